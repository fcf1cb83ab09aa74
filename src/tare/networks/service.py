"""Networks: their definitions, the bridge they live on, and who is plugged in.

Life of an attachment: `attach` makes namespace and endpoints and keeps the namespace's descriptor, the runtime opens
`path`, `handed_over` lets go of the descriptor since the container's processes hold the namespace now, `detach` gives
the addresses back. Nothing waits for the kernel to take a link down. After a restart of the engine `restore` learns from the records of running
containers what they hold.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import msgspec

from tare.aio.tasks import spawn
from tare.aio.threads import in_thread
from tare.base import clock
from tare.base.errors import Conflict, Forbidden, InternalError, NotFound, TareError
from tare.base.ids import random_id
from tare.base.news import News, Publish
from tare.drivers.network.bridge import BridgeDriver, Plug, mac_for
from tare.drivers.network.netns import NetNamespace
from tare.drivers.network.nft import BridgeRules
from tare.networks import files, ipam, records
from tare.networks import plan as planning
from tare.networks.files import Resolver
from tare.networks.plan import EndpointPlan, Mode, NetworkPlan
from tare.networks.records import NetworkRecord, Pool
from tare.store.db import Database
from tare.wire.config import ContainerConfig, EndpointSettings, HostConfig

log = logging.getLogger(__name__)

_HOST_HOSTS = Path("/etc/hosts")
_HOST_RESOLVER = Path("/etc/resolv.conf")
_RESOLVED_RESOLVER = Path("/run/systemd/resolve/resolv.conf")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """What the daemon's options say. bridge "none": no default network."""

    bridge: str = "tare0"
    bip: str = ""
    iptables: bool = True
    icc: bool = True
    ip_forward: bool = True
    ip_masq: bool = True
    mtu: int = 1500
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    host_gateway: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTexts:
    """/etc/hosts, /etc/hostname and /etc/resolv.conf of a container."""

    hosts: str = ""
    hostname: str = ""
    resolv_conf: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """What a container was given. `path` None: the host's namespace. `endpoints` by network name."""

    mode: Mode
    path: str | None = None
    endpoints: dict[str, EndpointSettings] = field(default_factory=dict)
    files: FileTexts = FileTexts()

    @property
    def addresses(self) -> list[str]:
        """The container's own addresses, in the order of its networks."""
        return [e.IPAddress for e in self.endpoints.values() if e.IPAddress]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a container that starts asks for. `joined` is the id of the container named by `container:NAME`.

    `config.Hostname` is the name it will have; `endpoints` is `NetworkingConfig.EndpointsConfig` or the record's.
    """

    container_id: str
    name: str
    config: ContainerConfig
    host: HostConfig
    endpoints: Mapping[str, EndpointSettings | None] = field(default_factory=dict)
    joined: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningContainer:
    """What `restore` needs to know of a container that outlived the engine: its first process and what it held."""

    wish: Wish
    pid: int
    endpoints: Mapping[str, EndpointSettings]


@dataclass(slots=True)
class _Held:
    name: str
    namespace: NetNamespace | None
    attachment: Attachment


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One endpoint as a network sees it."""

    container_id: str
    container_name: str
    settings: EndpointSettings


class Networks:
    """The service. All methods belong to the event loop's thread."""

    def __init__(
        self,
        *,
        database: Database,
        options: NetworkOptions,
        publish: Publish = lambda _: None,
        driver: BridgeDriver | None = None,
    ) -> None:
        """driver: made from the options unless given. Call `start` before anything else."""
        self._database = database
        self._options = options
        self._publish = publish
        self._driver = driver or BridgeDriver(rules=options.iptables)
        self._networks: dict[str, NetworkRecord] = {}
        self._held: dict[str, _Held] = {}

    def __repr__(self) -> str:
        return f"<Networks {len(self._networks)} networks, {len(self._held)} containers, bridge {self._options.bridge}>"

    # --- life

    async def start(self) -> None:
        """Load the records, make or adopt the default bridge with its rules. Raises TareError when that cannot be."""
        known = {record.name: record for record in await self._database.read(records.load)}
        for name, driver in (("host", "host"), ("none", "null")):
            if name not in known:
                known[name] = await self._keep(_new_record(name, driver))
        if self._options.bridge != "none":
            known["bridge"] = await self._start_bridge(known.get("bridge"))
        else:
            known.pop("bridge", None)
        self._networks = {record.id: record for record in known.values()}

    async def _start_bridge(self, old: NetworkRecord | None) -> NetworkRecord:
        options = self._options
        address = await in_thread(self._bridge_address, old)
        await in_thread(self._driver.ensure_bridge, options.bridge, address, mtu=options.mtu)
        record = _bridge_record(old, address, options)
        if record != old:
            record = await self._keep(record)
        await in_thread(self._driver.apply_rules, self._rules(record))
        if options.ip_forward:
            await in_thread(self._driver.enable_forwarding)
        return record

    def _bridge_address(self, old: NetworkRecord | None) -> ipaddress.IPv4Interface:
        """--bip, else what the bridge has, else what it had last time if still free, else the first free pool."""
        options = self._options
        if options.bip:
            return ipam.parse_bip(options.bip)
        present = self._driver.bridge_address(options.bridge)
        if present is not None:
            return present
        in_use = self._driver.networks_in_use(besides=options.bridge)
        if old is not None and old.subnet is not None and old.gateway is not None:
            subnet = old.subnet
            if not any(isinstance(n, ipaddress.IPv4Network) and subnet.overlaps(n) for n in in_use):
                return ipaddress.IPv4Interface(f"{old.gateway}/{subnet.prefixlen}")
        subnet = ipam.choose_subnet(in_use)
        return ipaddress.IPv4Interface(f"{ipam.default_gateway(subnet)}/{subnet.prefixlen}")

    def _rules(self, record: NetworkRecord) -> BridgeRules:
        assert record.subnet is not None
        return BridgeRules(
            bridge=record.bridge,
            subnet=record.subnet,
            masquerade=self._options.ip_masq,
            icc=self._options.icc,
            internal=record.internal,
        )

    async def _keep(self, record: NetworkRecord) -> NetworkRecord:
        await self._database.write(partial(_save, record=record))
        return record

    async def close(self, *, remove: bool = False) -> None:
        """Let go of descriptors; with `remove` also take the bridge and its rules away."""
        for held in self._held.values():
            if held.namespace is not None:
                held.namespace.close()
        self._held.clear()
        if remove:
            for record in self._networks.values():
                if record.bridge:
                    await in_thread(self._driver.remove_bridge, record.bridge)
        await in_thread(self._driver.close)

    async def restore(self, running: Iterable[RunningContainer]) -> None:
        """After `start`: these containers hold what their records say, and nobody else holds anything."""
        leases: list[tuple[str, ipaddress.IPv4Address, str]] = []
        for container in running:
            wish = container.wish
            endpoints = {name: e for name, e in container.endpoints.items() if e.NetworkID in self._networks}
            in_hosts = any(self._networks[e.NetworkID].driver == "host" for e in endpoints.values())
            mode = Mode.HOST if in_hosts else Mode.OWN
            path = None if in_hosts else f"/proc/{container.pid}/ns/net"
            texts = self.file_texts(wish.config, wish.host, mode=mode, endpoints=endpoints)
            attachment = Attachment(mode=mode, path=path, endpoints=endpoints, files=texts)
            self._held[wish.container_id] = _Held(wish.name, None, attachment)
            leases += [
                (e.NetworkID, ipaddress.IPv4Address(e.IPAddress), wish.container_id)
                for e in endpoints.values()
                if e.IPAddress
            ]
        await self._database.write(lambda connection: records.replace_leases(connection, leases), durable=False)

    # --- attaching

    def plan(
        self, config: ContainerConfig, host: HostConfig, endpoints: Mapping[str, EndpointSettings | None] | None = None
    ) -> NetworkPlan:
        """What `attach` will do. Raises NotFound (`network x not found`), InvalidArgument."""
        return planning.plan(config, host, endpoints or {}, networks=list(self._networks.values()))

    async def attach(self, wish: Wish) -> Attachment:
        """Make the container's namespace and plug it in. All or nothing, also when the caller is cancelled.

        `container:NAME` gets the namespace and the files of that container. Raises NotFound (`network x not found`),
        InvalidArgument, Conflict (addresses used up, joined container not running).
        """
        plan = self.plan(wish.config, wish.host, wish.endpoints)
        if plan.mode is Mode.JOINED:
            return self._join(wish, plan)
        task = spawn(self._attach(wish, plan), name=f"attach {wish.container_id[:12]}", is_awaited=True)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                spawn(self._attach_then_detach(task, wish.container_id), name=f"detach {wish.container_id[:12]}")
            raise

    def _join(self, wish: Wish, plan: NetworkPlan) -> Attachment:
        held = self._held.get(wish.joined or "")
        if held is None:
            raise Conflict(f"cannot join network of a non running container: {wish.joined or plan.joined}")
        target = held.attachment
        return Attachment(mode=Mode.JOINED, path=target.path, files=target.files)

    async def _attach_then_detach(self, task: asyncio.Task[Attachment], container_id: str) -> None:
        try:
            await task
        except TareError:
            return  # nothing was left to undo
        await self.detach(container_id)

    async def _attach(self, wish: Wish, plan: NetworkPlan) -> Attachment:
        await self.detach(wish.container_id)
        endpoints: dict[str, EndpointSettings] = {}
        namespace: NetNamespace | None = None
        try:
            plugs: list[Plug] = []
            for endpoint in plan.endpoints:
                settings, plug = await self._prepare(wish, endpoint)
                endpoints[endpoint.network.name] = settings
                plugs += [plug] if plug is not None else []
            texts = self.file_texts(wish.config, wish.host, mode=plan.mode, endpoints=endpoints)
            if plan.mode is Mode.OWN:
                namespace = await in_thread(self._make_namespace, plugs)
        except BaseException:
            await self._release(wish.container_id)
            raise
        path = namespace.path if namespace is not None else None
        attachment = Attachment(mode=plan.mode, path=path, endpoints=endpoints, files=texts)
        self._held[wish.container_id] = _Held(wish.name, namespace, attachment)
        for endpoint in plan.endpoints:
            self._tell("connect", endpoint.network, wish.container_id)
        return attachment

    def handed_over(self, container_id: str, pid: int) -> None:
        """The container's first process `pid` is in its namespace: from now on that keeps it, and not we."""
        held = self._held.get(container_id)
        if held is None or held.namespace is None:
            return
        held.namespace.close()
        held.namespace = None
        held.attachment = replace(held.attachment, path=f"/proc/{pid}/ns/net")

    def _make_namespace(self, plugs: Sequence[Plug]) -> NetNamespace:
        namespace = self._driver.namespace()
        try:
            for plug in plugs:
                self._driver.plug(namespace, plug)
        except BaseException:
            namespace.close()
            raise
        return namespace

    async def _prepare(self, wish: Wish, endpoint: EndpointPlan) -> tuple[EndpointSettings, Plug | None]:
        """Lease an address and say what to plug in."""
        network, asked = endpoint.network, endpoint.settings
        identity = {"NetworkID": network.id, "EndpointID": random_id()}
        if not endpoint.interface:
            return msgspec.structs.replace(asked, **identity), None
        subnet, gateway = network.subnet, network.gateway
        if subnet is None:
            raise InternalError(f"network {network.name} has no subnet")
        address = await self._database.write(
            partial(_lease, network=network, container_id=wish.container_id, wanted=endpoint.address), durable=False
        )
        mac = endpoint.mac or mac_for(address)
        settings = msgspec.structs.replace(
            asked,
            **identity,
            Gateway=str(gateway) if gateway is not None and not network.internal else "",
            IPAddress=str(address),
            IPPrefixLen=subnet.prefixlen,
            MacAddress=mac,
            DNSNames=None if network.is_predefined else [wish.name, *(asked.Aliases or ()), wish.container_id[:12]],
        )
        plug = Plug(
            bridge=network.bridge,
            interface=endpoint.interface,
            mac=mac,
            addresses=(ipaddress.IPv4Interface(f"{address}/{subnet.prefixlen}"),),
            gateway=gateway if endpoint.is_gateway else None,
            mtu=self._options.mtu,
            isolated=not self._options.icc,
        )
        return settings, plug

    async def detach(self, container_id: str) -> None:
        """Give back what a container was given. Idempotent; the kernel removes links by itself, later."""
        held = self._held.pop(container_id, None)
        if held is None:
            return
        if held.namespace is not None:
            held.namespace.close()
        if held.attachment.addresses:
            await self._release(container_id)
        for settings in held.attachment.endpoints.values():
            if (network := self._networks.get(settings.NetworkID)) is not None:
                self._tell("disconnect", network, container_id)

    async def _release(self, container_id: str) -> None:
        await self._database.write(lambda connection: records.release(connection, container_id), durable=False)

    def renamed(self, container_id: str, name: str) -> None:
        """A container has another name now."""
        if (held := self._held.get(container_id)) is not None:
            held.name = name

    def _tell(self, action: str, network: NetworkRecord, container_id: str) -> None:
        attributes = {"container": container_id, "name": network.name, "type": network.driver}
        self._publish(News(type="network", action=action, id=network.id, attributes=attributes))

    # --- files

    def file_texts(
        self, config: ContainerConfig, host: HostConfig, *, mode: Mode, endpoints: Mapping[str, EndpointSettings]
    ) -> FileTexts:
        """The three files of a container.

        In the host's network the container sees the host's hosts and resolver, plus what it asks for itself.
        """
        options = self._options
        servers = tuple(host.Dns or ()) or options.dns
        search = tuple(host.DnsSearch or ()) or options.dns_search
        keywords = tuple(host.DnsOptions or ()) or options.dns_options
        hostname = files.hostname_file(config.Hostname)
        if mode is Mode.HOST:
            own = files.parse_resolver(_read(_HOST_RESOLVER))
            resolver = Resolver(
                servers=servers or own.servers, search=search or own.search, options=keywords or own.options
            )
            hosts = _read(_HOST_HOSTS) + _extra_lines(host, self._host_gateway())
            return FileTexts(hosts=hosts, hostname=hostname, resolv_conf=resolver.text)
        resolver = files.container_resolver(_host_resolver(), servers=servers, search=search, options=keywords)
        hosts = files.hosts(
            hostname=config.Hostname,
            domainname=config.Domainname,
            addresses=[e.IPAddress for e in endpoints.values() if e.IPAddress],
            extra=host.ExtraHosts or (),
            gateway=self._host_gateway(),
        )
        return FileTexts(hosts=hosts, hostname=hostname, resolv_conf=resolver.text)

    def _host_gateway(self) -> str:
        if self._options.host_gateway:
            return self._options.host_gateway
        bridge = next((n for n in self._networks.values() if n.name == "bridge"), None)
        return str(bridge.gateway) if bridge is not None and bridge.gateway is not None else ""

    # --- looking

    def list(self) -> Sequence[NetworkRecord]:
        """Every network, oldest first."""
        return sorted(self._networks.values(), key=lambda network: (network.created_at, network.name))

    def inspect(self, name: str) -> NetworkRecord:
        """One network by id, name or id prefix. Raises NotFound, InvalidArgument."""
        return planning.resolve(name, list(self._networks.values()))

    def check_removable(self, name: str) -> NetworkRecord:
        """The network, if it may be removed now. Raises NotFound, and Forbidden with Docker's texts."""
        network = self.inspect(name)
        if network.is_predefined:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        if self.members(network.id):
            raise Forbidden(
                f"error while removing network: network {network.name} id {network.id} has active endpoints"
            )
        return network

    def members(self, network_id: str) -> Sequence[Member]:
        """Who is plugged into a network."""
        return [
            Member(container_id=container_id, container_name=held.name, settings=settings)
            for container_id, held in self._held.items()
            for settings in held.attachment.endpoints.values()
            if settings.NetworkID == network_id
        ]

    def attachment_of(self, container_id: str) -> Attachment:
        """What a container holds now. Raises NotFound when it is not attached."""
        held = self._held.get(container_id)
        if held is None:
            raise NotFound(f"container {container_id} is not attached to any network")
        return held.attachment

    def pools(self) -> Sequence[dict[str, object]]:
        """`DefaultAddressPools` of info."""
        return [{"Base": str(pool), "Size": size} for pool, size in ipam.DEFAULT_POOLS]

    def warnings(self) -> Sequence[str]:
        """What `info` should say about this host's network."""
        return [
            f"Chain {chain} drops forwarded packets: its owner has to let {self._options.bridge} through"
            for chain in self._driver.forward_drops()
        ]


def _new_record(name: str, driver: str) -> NetworkRecord:
    return NetworkRecord(id=random_id(), name=name, driver=driver, created_at=clock.now())


def _bridge_record(
    old: NetworkRecord | None, address: ipaddress.IPv4Interface, options: NetworkOptions
) -> NetworkRecord:
    """The record of the default network: the id of before, everything else from the options."""
    base = old or _new_record("bridge", "bridge")
    return msgspec.structs.replace(
        base,
        bridge=options.bridge,
        pools=(Pool(subnet=str(address.network), gateway=str(address.ip)),),
        options={
            "com.docker.network.bridge.default_bridge": "true",
            "com.docker.network.bridge.enable_icc": str(options.icc).lower(),
            "com.docker.network.bridge.enable_ip_masquerade": str(options.ip_masq).lower(),
            "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
            "com.docker.network.bridge.name": options.bridge,
            "com.docker.network.driver.mtu": str(options.mtu),
        },
    )


def _save(connection: sqlite3.Connection, *, record: NetworkRecord) -> None:
    records.save(connection, record)


def _lease(
    connection: sqlite3.Connection,
    *,
    network: NetworkRecord,
    container_id: str,
    wanted: ipaddress.IPv4Address | None,
) -> ipaddress.IPv4Address:
    subnet, pool = network.subnet, network.pools[0]
    assert subnet is not None
    reserved = {ipaddress.IPv4Address(text) for text in (pool.gateway, *pool.auxiliary.values()) if text}
    return records.lease(
        connection,
        network_id=network.id,
        container_id=container_id,
        choose=lambda leased: ipam.allocate(
            subnet,
            taken=leased | reserved,
            wanted=wanted,
            ip_range=ipaddress.IPv4Network(pool.ip_range) if pool.ip_range else None,
            network=network.name,
        ),
    )


def _extra_lines(host: HostConfig, gateway: str) -> str:
    """The lines that `--add-host` adds to the host's own file."""
    without, with_extra = (
        files.hosts(hostname=""),
        files.hosts(hostname="", extra=host.ExtraHosts or (), gateway=gateway),
    )
    return with_extra.removeprefix(without)


def _host_resolver() -> Resolver:
    resolver = files.parse_resolver(_read(_HOST_RESOLVER))
    if files.is_local_stub(resolver):
        return files.parse_resolver(_read(_RESOLVED_RESOLVER))
    return resolver


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise InternalError(f"cannot read {path}: {error.strerror}") from None
