"""Networks: their definitions, the bridge they live on, and who is plugged in.

Life of an attachment: `plan` when a container starts, `attach` makes its namespace and endpoints and keeps the
namespace's descriptor, the runtime opens `netns_path`, `detach` gives the addresses back and lets go. Nothing waits
for the kernel to take a link down. After a restart of the engine `restore` learns from the records of running
containers what they hold.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from tare.aio.tasks import spawn
from tare.aio.threads import in_thread
from tare.base import clock
from tare.base.errors import Forbidden, InternalError, NotFound, TareError
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

_HOST_RESOLVER = Path("/etc/resolv.conf")
_RESOLVED_RESOLVER = Path("/run/systemd/resolve/resolv.conf")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
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
class Attachment:
    """What a container was given. `netns_path` None: the host's namespace. `endpoints` by network name."""

    mode: Mode
    netns_path: str | None = None
    endpoints: Mapping[str, EndpointSettings] = field(default_factory=dict)

    @property
    def addresses(self) -> list[str]:
        """The container's own addresses, in the order of its networks."""
        return [e.IPAddress for e in self.endpoints.values() if e.IPAddress]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTexts:
    """The three files of a container."""

    hosts: str
    hostname: str
    resolv_conf: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningContainer:
    """What `restore` needs to know of a container that outlived the engine."""

    id: str
    name: str
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
        database: Database,
        *,
        settings: NetworkSettings,
        publish: Publish = lambda _: None,
        driver: BridgeDriver | None = None,
    ) -> None:
        """driver: made from the settings unless given. Call `start` before anything else."""
        self._database = database
        self._settings = settings
        self._publish = publish
        self._driver = driver or BridgeDriver(rules=settings.iptables)
        self._networks: dict[str, NetworkRecord] = {}
        self._held: dict[str, _Held] = {}

    def __repr__(self) -> str:
        return (
            f"<Networks {len(self._networks)} networks, {len(self._held)} containers, bridge {self._settings.bridge}>"
        )

    # --- life

    async def start(self) -> None:
        """Load the records, make or adopt the default bridge with its rules. Raises TareError when that cannot be."""
        known = {record.name: record for record in await self._database.read(records.load)}
        for name, driver in (("host", "host"), ("none", "null")):
            if name not in known:
                known[name] = await self._keep(_new_record(name, driver))
        if self._settings.bridge != "none":
            known["bridge"] = await self._start_bridge(known.get("bridge"))
        else:
            known.pop("bridge", None)
        self._networks = {record.id: record for record in known.values()}

    async def _start_bridge(self, old: NetworkRecord | None) -> NetworkRecord:
        settings = self._settings
        address = await in_thread(self._bridge_address, old)
        await in_thread(self._driver.ensure_bridge, settings.bridge, address, mtu=settings.mtu)
        record = _bridge_record(old, address, settings)
        if record != old:
            record = await self._keep(record)
        await in_thread(self._driver.apply_rules, self._rules(record))
        if settings.ip_forward:
            await in_thread(self._driver.enable_forwarding)
        return record

    def _bridge_address(self, old: NetworkRecord | None) -> ipaddress.IPv4Interface:
        """--bip, else what the bridge has, else what it had last time if still free, else the first free pool."""
        settings = self._settings
        if settings.bip:
            return ipam.parse_bip(settings.bip)
        present = self._driver.bridge_address(settings.bridge)
        if present is not None:
            return present
        in_use = self._driver.networks_in_use(besides=settings.bridge)
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
            masquerade=self._settings.ip_masq,
            icc=self._settings.icc,
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
            endpoints = {name: e for name, e in container.endpoints.items() if e.NetworkID in self._networks}
            in_hosts = any(self._networks[e.NetworkID].driver == "host" for e in endpoints.values())
            attachment = Attachment(
                mode=Mode.HOST if in_hosts else Mode.OWN,
                netns_path=None if in_hosts else f"/proc/{container.pid}/ns/net",
                endpoints=endpoints,
            )
            self._held[container.id] = _Held(container.name, None, attachment)
            leases += [
                (e.NetworkID, ipaddress.IPv4Address(e.IPAddress), container.id)
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

    async def attach(self, container_id: str, name: str, plan: NetworkPlan) -> Attachment:
        """Make the container's namespace and plug it in. All or nothing, also when the caller is cancelled.

        Not for JOINED plans: whose namespace that is, the engine knows. Raises Conflict when addresses are used up.
        """
        task = spawn(self._attach(container_id, name, plan), name=f"attach {container_id[:12]}")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                spawn(self._attach_then_detach(task, container_id), name=f"detach {container_id[:12]}")
            raise

    async def _attach_then_detach(self, task: asyncio.Task[Attachment], container_id: str) -> None:
        try:
            await task
        except TareError:
            return  # nothing was left to undo
        await self.detach(container_id)

    async def _attach(self, container_id: str, name: str, plan: NetworkPlan) -> Attachment:
        if plan.mode is Mode.JOINED:
            raise InternalError("a joined network namespace is not attached")
        await self.detach(container_id)
        endpoints: dict[str, EndpointSettings] = {}
        namespace: NetNamespace | None = None
        try:
            plugs: list[Plug] = []
            for endpoint in plan.endpoints:
                settings, plug = await self._prepare(container_id, name, endpoint)
                endpoints[endpoint.network.name] = settings
                plugs += [plug] if plug is not None else []
            if plan.mode is Mode.OWN:
                namespace = await in_thread(self._make_namespace, plugs)
        except BaseException:
            await self._release(container_id)
            raise
        path = namespace.path if namespace is not None else None
        attachment = Attachment(mode=plan.mode, netns_path=path, endpoints=endpoints)
        self._held[container_id] = _Held(name, namespace, attachment)
        for endpoint in plan.endpoints:
            self._tell("connect", endpoint.network, container_id)
        return attachment

    def _make_namespace(self, plugs: Sequence[Plug]) -> NetNamespace:
        namespace = self._driver.namespace()
        try:
            for plug in plugs:
                self._driver.plug(namespace, plug)
        except BaseException:
            namespace.close()
            raise
        return namespace

    async def _prepare(
        self, container_id: str, name: str, endpoint: EndpointPlan
    ) -> tuple[EndpointSettings, Plug | None]:
        """Lease an address and say what to plug in."""
        network, asked = endpoint.network, endpoint.settings
        identity = {"NetworkID": network.id, "EndpointID": random_id()}
        if not endpoint.interface:
            return msgspec.structs.replace(asked, **identity), None
        subnet, gateway = network.subnet, network.gateway
        if subnet is None:
            raise InternalError(f"network {network.name} has no subnet")
        address = await self._database.write(
            partial(_lease, network=network, container_id=container_id, wanted=endpoint.address), durable=False
        )
        mac = endpoint.mac or mac_for(address)
        settings = msgspec.structs.replace(
            asked,
            **identity,
            Gateway=str(gateway) if gateway is not None and not network.internal else "",
            IPAddress=str(address),
            IPPrefixLen=subnet.prefixlen,
            MacAddress=mac,
            DNSNames=None if network.is_predefined else [name, *(asked.Aliases or ()), container_id[:12]],
        )
        plug = Plug(
            bridge=network.bridge,
            interface=endpoint.interface,
            mac=mac,
            addresses=(ipaddress.IPv4Interface(f"{address}/{subnet.prefixlen}"),),
            gateway=gateway if endpoint.is_gateway else None,
            mtu=self._settings.mtu,
            isolated=not self._settings.icc,
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
        self, config: ContainerConfig, host: HostConfig, attachment: Attachment, *, hostname: str
    ) -> FileTexts:
        """/etc/hosts, /etc/hostname and /etc/resolv.conf of a container.

        In the host's network the container sees the host's hosts and resolver, plus what it asks for itself.
        """
        settings = self._settings
        servers = tuple(host.Dns or ()) or settings.dns
        search = tuple(host.DnsSearch or ()) or settings.dns_search
        options = tuple(host.DnsOptions or ()) or settings.dns_options
        if attachment.mode is Mode.HOST:
            own = files.parse_resolver(_read(_HOST_RESOLVER))
            resolver = Resolver(
                servers=servers or own.servers, search=search or own.search, options=options or own.options
            )
            texts = _read(Path("/etc/hosts")) + _extra_lines(host, self._host_gateway())
            return FileTexts(hosts=texts, hostname=files.hostname_file(hostname), resolv_conf=resolver.text)
        resolver = files.container_resolver(_host_resolver(), servers=servers, search=search, options=options)
        hosts = files.hosts(
            hostname=hostname,
            domainname=config.Domainname,
            addresses=attachment.addresses,
            extra=host.ExtraHosts or (),
            gateway=self._host_gateway(),
        )
        return FileTexts(hosts=hosts, hostname=files.hostname_file(hostname), resolv_conf=resolver.text)

    def _host_gateway(self) -> str:
        if self._settings.host_gateway:
            return self._settings.host_gateway
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

    def warnings(self) -> Sequence[str]:
        """What `info` should say about this host's network."""
        return [
            f"Chain {chain} drops forwarded packets: its owner has to let {self._settings.bridge} through"
            for chain in self._driver.forward_drops()
        ]


def _new_record(name: str, driver: str) -> NetworkRecord:
    return NetworkRecord(id=random_id(), name=name, driver=driver, created_at=clock.now())


def _bridge_record(
    old: NetworkRecord | None, address: ipaddress.IPv4Interface, settings: NetworkSettings
) -> NetworkRecord:
    """The record of the default network: the id of before, everything else from the options."""
    base = old or _new_record("bridge", "bridge")
    return msgspec.structs.replace(
        base,
        bridge=settings.bridge,
        pools=(Pool(subnet=str(address.network), gateway=str(address.ip)),),
        options={
            "com.docker.network.bridge.default_bridge": "true",
            "com.docker.network.bridge.enable_icc": str(settings.icc).lower(),
            "com.docker.network.bridge.enable_ip_masquerade": str(settings.ip_masq).lower(),
            "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
            "com.docker.network.bridge.name": settings.bridge,
            "com.docker.network.driver.mtu": str(settings.mtu),
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
