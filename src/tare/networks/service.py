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
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address

import msgspec
from msgspec.structs import replace

from tare.aio import failpoints
from tare.aio.tasks import spawn
from tare.aio.threads import in_thread
from tare.base.errors import Conflict, Forbidden, InternalError, InvalidArgument, NotFound, TareError
from tare.base.ids import random_id
from tare.base.news import News, Publish
from tare.drivers.network.bridge import NAME_SERVER, BridgeDriver, Plug
from tare.drivers.network.netns import NetNamespace, check_network_namespace
from tare.drivers.network.nft import BridgeRules
from tare.drivers.network.watch import Losses
from tare.networks import definition, interfaces, ipam, plugging, ports, records, texts
from tare.networks import plan as planning
from tare.networks.attachment import Attachment as Attachment
from tare.networks.attachment import FileTexts, addresses_of, dns_names
from tare.networks.attachment import Member as Member
from tare.networks.attachment import NetworkOptions as NetworkOptions
from tare.networks.attachment import RunningContainer as RunningContainer
from tare.networks.attachment import Wish as Wish
from tare.networks.auditing import Auditor
from tare.networks.directory import Directory
from tare.networks.exposing import Exposer
from tare.networks.holding import Held
from tare.networks.plan import EndpointPlan, Mode, NetworkPlan
from tare.networks.publishing import Publisher
from tare.networks.records import NetworkRecord
from tare.networks.routing import Routes
from tare.networks.serving import Names
from tare.networks.strays import Strays
from tare.networks.watching import Watcher
from tare.networks.wiring import Wiring, new_record
from tare.store.db import Database
from tare.wire.config import ContainerConfig, EndpointSettings, HostConfig
from tare.wire.networks import NetworkCreate

log = logging.getLogger(__name__)


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
        self._held: dict[str, Held] = {}
        self._busy: Counter[str] = Counter()  # networks somebody is being plugged into just now
        self._changing = asyncio.Lock()  # networks are made and removed one at a time
        self._wiring = Wiring(self._driver, options)
        self._publisher = Publisher(self._driver, is_relayed=options.is_relayed, is_filtered=options.iptables)
        self._exposer = Exposer(self._publisher, self._wiring, self._networks)
        self._directory = Directory(self.members)
        self._names = Names(self._driver, self._directory, self._networks, dns=options.dns)
        self._routes = Routes(self._driver, self._networks)
        self._watcher = Watcher(self._wiring, self._publisher, self._networks, self._held)
        tables = self._networks, self._held
        self.strays = Strays(self._wiring, self._networks, self._changing)
        self.audit = Auditor(self._wiring, self._exposer, self._publisher, *tables, self._changing)

    def __repr__(self) -> str:
        return f"<Networks {len(self._networks)} networks, {len(self._held)} containers, bridge {self._options.bridge}>"

    # --- life

    async def start(self) -> None:
        """Load the records, make or adopt the default bridge with its rules. Raises TareError when that cannot be."""
        known = {record.name: record for record in await self._database.read(records.load)}
        for name, driver in (("host", "host"), ("none", "null")):
            if name not in known:
                known[name] = await self._keep(new_record(name, driver))
        if self._options.bridge != "none":
            known["bridge"] = await self._start_bridge(known.get("bridge"))
        else:
            known.pop("bridge", None)
        self._networks.update({record.id: record for record in known.values()})
        made: list[BridgeRules] = []
        for record in self._networks.values():
            if record.has_links:
                try:
                    if not record.is_predefined:
                        await in_thread(self._wiring.make, record)
                except TareError:
                    log.exception("network %s cannot be brought back", record.name)
                else:
                    made += [self._wiring.rules(record)] if record.bridge else []
        await self._publisher.restore(made)
        if self._options.iptables:
            bridges = [record.bridge for record in self._networks.values() if record.bridge]
            await in_thread(self._wiring.accept_forwarding, bridges)
            self._watcher.start()
            await self._watcher.learn()

    async def _make(self, record: NetworkRecord) -> None:
        """The link and the rules of a network."""
        await in_thread(self._wiring.make, record)
        if record.bridge:
            await self._publisher.admit(self._wiring.rules(record))

    async def _start_bridge(self, old: NetworkRecord | None) -> NetworkRecord:
        record = await in_thread(self._wiring.default_network, old)
        await in_thread(self._wiring.make, record)
        return await self._keep(record) if record != old else record

    async def _keep(self, record: NetworkRecord) -> NetworkRecord:
        await self._database.write(lambda connection: records.save(connection, record))
        return record

    async def close(self, *, remove: bool = False) -> None:
        """Let go of descriptors; with `remove` also take the bridge and its rules away."""
        self._watcher.close()
        for held in self._held.values():
            if held.namespace is not None:
                held.namespace.close()
            if held.names is not None:
                held.names.close()
        self._held.clear()
        self._directory.changed()
        self._publisher.close()
        if remove:
            for record in self._networks.values():
                await in_thread(self._wiring.remove, record)
            await in_thread(self._driver.remove_rules, self._wiring.engine)
        await in_thread(self._driver.close)

    async def restore(self, running: Iterable[RunningContainer]) -> None:
        """After `start`: these containers hold what their records say, and nobody else holds anything."""
        leases: list[tuple[str, IPv4Address | IPv6Address, str]] = []
        for container in running:
            wish = container.wish
            endpoints = {name: e for name, e in container.endpoints.items() if e.NetworkID in self._networks}
            in_hosts = any(self._networks[e.NetworkID].driver == "host" for e in endpoints.values())
            mode = Mode.HOST if in_hosts else Mode.OWN
            path = None if in_hosts else f"/proc/{container.pid}/ns/net"
            given = self.file_texts(wish.config, wish.host, mode=mode, endpoints=endpoints)
            published = tuple(ports.published_of(container.ports))
            attachment = Attachment(
                mode=mode, path=path, endpoints=endpoints, files=given, ports=ports.bindings(published)
            )
            held = Held(wish, wish.name, None, attachment, pid=container.pid, published=published)
            held.gateways = self._routes.gateways_of(endpoints)
            self._held[wish.container_id] = held
            leases += [
                (e.NetworkID, ipaddress.ip_address(text), wish.container_id)
                for e in endpoints.values()
                for text in (e.IPAddress, e.GlobalIPv6Address)
                if text
            ]
        await self._database.write(lambda connection: records.replace_leases(connection, leases), durable=False)
        for held in self._held.values():
            try:
                await self._readopt(held)
            except (TareError, OSError):
                log.exception("ports and names of container %s", held.name)

    async def _readopt(self, held: Held) -> None:
        """Ports and name server of a container that outlived the engine."""
        await self._exposer.adopt(held)
        if held.attachment.mode is not Mode.OWN:
            return
        namespace, held.outside = await in_thread(self._visit, held, list(self._networks.values()))
        try:
            try:
                await self._watcher.mend_ends(held, Losses(everything=True))
                await self._routes.check(held, namespace)
            except TareError:
                log.exception("interfaces of container %s", held.name)
            if self._names.are_wanted(held.attachment.endpoints):
                await self._names.open(held, namespace)
        finally:
            namespace.close()

    def _visit(self, held: Held, networks: Sequence[NetworkRecord]) -> tuple[NetNamespace, dict[str, str]]:
        """Its namespace, which the caller closes, without what was half plugged in; by network the host's ends. Blocks."""
        endpoints = held.attachment.endpoints.values()
        bridged = {network.id for network in networks if network.bridge}
        namespace = self._driver.open_namespace(held.pid)
        try:
            self._driver.sweep(
                namespace,
                macs={e.MacAddress for e in endpoints if e.MacAddress},
                addresses=addresses_of(endpoints),
                bridges={network.bridge for network in networks if network.bridge},
                parents={network.parent for network in networks if network.parent},
            )
            ends = {
                e.NetworkID: self._driver.outside(namespace, e.MacAddress) for e in endpoints if e.NetworkID in bridged
            }
        except BaseException:
            namespace.close()
            raise
        return namespace, ends

    # --- networks made by users

    async def create(self, body: NetworkCreate) -> NetworkRecord:
        """Make a network. Raises InvalidArgument, Forbidden, NotFound (driver), Conflict with Docker's texts."""
        async with self._changing:
            in_use = await in_thread(self._driver.networks_in_use)
            links = await in_thread(self._driver.links)
            record = definition.define(
                body, known=self._networks.values(), in_use=in_use, links=links, prefix6=self._prefix6,
                defaults=self._options.pools, default_options=self._options.default_options,
            )  # fmt: skip
            await self._keep(record)
            try:
                failpoints.hit("network.recorded")
                await self._make(record)
                if record.bridge and self._options.iptables:
                    await in_thread(self._wiring.accept_forwarding, [record.bridge])
            except BaseException:
                await self._erase(record)
                raise
            failpoints.passed("network.made")
            self._networks[record.id] = record
        self._tell("create", record)
        return record

    async def in_use(self) -> list[definition.IPNetwork]:
        """What the host's routes and addresses cover."""
        return list(await in_thread(self._driver.networks_in_use))

    async def remove(self, name: str) -> None:
        """Remove a network nobody is plugged into. Raises NotFound, Forbidden."""
        async with self._changing:
            record = self.check_removable(name)
            del self._networks[record.id]
            try:
                await self._erase(record)
            except BaseException:
                self._networks[record.id] = record
                await self._make(record)
                raise
        self._tell("destroy", record)

    async def _erase(self, record: NetworkRecord) -> None:
        """What it is made of goes first: after a crash in between the next start makes a whole network of the record."""
        self._publisher.forget(record.bridge)
        is_shared = any(other.parent == record.parent for other in self._networks.values() if other.id != record.id)
        await in_thread(self._wiring.remove, record, keeps_parent=is_shared)
        failpoints.hit("network.unmade")
        await self._database.write(lambda connection: records.delete(connection, record.id))

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
        if plan.mode is Mode.PATH:
            return await self._enter(wish, plan)
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

    async def _enter(self, wish: Wish, plan: NetworkPlan) -> Attachment:
        """`ns:PATH`: somebody else's namespace, with the host's files. Raises InvalidArgument."""
        await in_thread(check_network_namespace, plan.joined)
        given = self.file_texts(wish.config, wish.host, mode=Mode.PATH, endpoints={})
        return Attachment(mode=Mode.PATH, path=plan.joined, files=given)

    async def _attach_then_detach(self, task: asyncio.Task[Attachment], container_id: str) -> None:
        try:
            await task
        except TareError:
            return  # nothing was left to undo
        await self.detach(container_id)

    async def _attach(self, wish: Wish, plan: NetworkPlan) -> Attachment:
        await self.detach(wish.container_id)
        endpoints: dict[str, EndpointSettings] = {}
        held = Held(wish, wish.name, None, Attachment(mode=plan.mode))
        busy = [endpoint.network.id for endpoint in plan.endpoints]
        self._busy.update(busy)
        try:
            plugs: dict[str, Plug] = {}
            for endpoint in plan.endpoints:
                settings, plug = await self._prepare(wish, endpoint)
                endpoints[endpoint.network.name] = settings
                if plug is not None:
                    plugs[endpoint.network.id] = plug
            given = self.file_texts(wish.config, wish.host, mode=plan.mode, endpoints=endpoints, links=wish.links)
            if plan.mode is Mode.OWN:
                held.namespace, held.outside = await in_thread(self._make_namespace, plugs, wish.bare_namespace)
            path = held.namespace.path if held.namespace is not None else None
            held.attachment = Attachment(mode=plan.mode, path=path, endpoints=endpoints, files=given)
            held.gateways = self._routes.gateways_of(endpoints)
            await self._exposer.expose(held)
            if held.namespace is not None and self._names.are_wanted(endpoints):
                await self._names.open(held, held.namespace, is_new=True)
        except BaseException:
            await self._let_go(held)
            raise
        finally:
            self._busy.subtract(busy)
        self._held[wish.container_id] = held
        self._directory.changed()
        attachment = held.attachment
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
        held.pid = pid
        held.attachment = replace(held.attachment, path=f"/proc/{pid}/ns/net")

    def _make_namespace(self, plugs: Mapping[str, Plug], bare: int | None) -> tuple[NetNamespace, dict[str, str]]:
        """plugs: by network id. With the names of the host's ends."""
        namespace = self._driver.namespace(bare=bare)
        try:
            return namespace, {network: self._driver.plug(namespace, plug) for network, plug in plugs.items()}
        except BaseException:
            namespace.close()
            raise

    async def _prepare(self, wish: Wish, endpoint: EndpointPlan) -> tuple[EndpointSettings, Plug | None]:
        """Lease addresses and say what to plug in."""
        network, asked = endpoint.network, endpoint.settings
        identity = {"NetworkID": network.id, "EndpointID": random_id()}
        if not endpoint.interface:
            return msgspec.structs.replace(asked, **identity), None
        address, address6 = await self._database.write(
            partial(
                records.lease_on,
                network=network,
                container_id=wish.container_id,
                wanted=endpoint.address,
                wanted6=endpoint.address6,
                has_ipv6=interfaces.has_ipv6(wish.host),
            ),
            durable=False,
        )
        if address is None and address6 is None:
            raise InternalError(f"network {network.name} has no subnet that the container could use")
        names = dns_names(wish.name, asked, container_id=wish.container_id, hostname=wish.config.Hostname)
        settings = msgspec.structs.replace(
            asked,
            **identity,
            **plugging.addresses(network, address, address6),
            MacAddress=plugging.mac(endpoint, address),
            DNSNames=None if network.is_predefined else names,
        )
        reflects = bool(wish.host.PortBindings) or wish.host.PublishAllPorts
        plug = plugging.plug(
            network, settings, gateways=endpoint.gateways, mtu=self._options.mtu, reflects=reflects,
            interface=endpoint.interface,
        )  # fmt: skip
        return settings, plug

    async def detach(self, container_id: str) -> None:
        """Give back what a container was given. Idempotent; the kernel removes links by itself, later."""
        held = self._held.pop(container_id, None)
        if held is None:
            return
        self._directory.changed()
        await self._let_go(held)
        for settings in held.attachment.endpoints.values():
            if (network := self._networks.get(settings.NetworkID)) is not None:
                self._tell("disconnect", network, container_id)

    async def _let_go(self, held: Held) -> None:
        """Names, ports, namespace, addresses. Every step is tried."""
        if held.names is not None:
            held.names.close()
            held.names = None
        if held.namespace is not None:
            held.namespace.close()
            held.namespace = None
        try:
            await self._exposer.withdraw(held)
        finally:
            if held.wish.endpoints or held.attachment.mode is Mode.OWN:
                await self._release(held.wish.container_id)

    async def _release(self, container_id: str) -> None:
        await self._database.write(lambda connection: records.release(connection, container_id), durable=False)

    def renamed(self, container_id: str, name: str) -> None:
        """A container has another name now."""
        held = self._held.get(container_id)
        if held is None:
            return
        held.name, held.wish = name, replace(held.wish, name=name)
        endpoints = {
            network: settings
            if settings.DNSNames is None
            else msgspec.structs.replace(
                settings,
                DNSNames=dns_names(name, settings, container_id=container_id, hostname=held.wish.config.Hostname),
            )
            for network, settings in held.attachment.endpoints.items()
        }
        held.attachment = replace(held.attachment, endpoints=endpoints)
        self._directory.changed()

    def _tell(self, action: str, network: NetworkRecord, container_id: str = "") -> None:
        attributes = {"name": network.name, "type": network.driver}
        if container_id:
            attributes = {"container": container_id, **attributes}
        self._publish(News(type="network", action=action, id=network.id, attributes=attributes))

    # --- running containers

    async def connect(self, container_id: str, name: str, asked: EndpointSettings) -> Attachment:
        """Plug a running container into one more network. Raises NotFound, Forbidden (it is there), InvalidArgument."""
        network, held = self.inspect(name), self._running(container_id)
        if network.name in held.attachment.endpoints:
            raise Forbidden(f"endpoint with name {held.name} already exists in network {network.name}")
        plan = planning.endpoint(network, asked)
        self._busy[network.id] += 1
        try:
            settings, plug = await self._prepare(held.wish, plan)
            try:
                if plug is None:
                    raise InvalidArgument(f"a running container cannot be connected to network {network.name}")
                namespace = await in_thread(self._driver.open_namespace, held.pid)
                try:
                    held.outside[network.id] = await in_thread(self._driver.plug_running, namespace, plug)
                    await self._refit(held, {**held.attachment.endpoints, network.name: settings}, namespace)
                finally:
                    namespace.close()
            except BaseException:
                await self._release_one(network.id, container_id)
                raise
        finally:
            self._busy[network.id] -= 1
        self._tell("connect", network, container_id)
        return held.attachment

    async def disconnect(self, container_id: str, name: str) -> Attachment:
        """Cut a running container off a network. Raises NotFound, Forbidden (it is not there)."""
        network, held = self.inspect(name), self._running(container_id)
        settings = held.attachment.endpoints.get(network.name)
        if settings is None:
            raise Forbidden(f"container {container_id} is not connected to the network {network.name}")
        namespace = await in_thread(self._driver.open_namespace, held.pid)
        try:
            rest = {key: value for key, value in held.attachment.endpoints.items() if key != network.name}
            if network.id in held.gateways.values():
                await self._exposer.withdraw(held, keep=True)
            outside = held.outside.pop(network.id, "")
            index = await in_thread(
                partial(
                    self._driver.cut,
                    namespace,
                    settings.MacAddress,
                    addresses_of([settings]),
                    outside=outside,
                    besides=held.leaving,
                )
            )
            held.leaving.add(index)
            await self._refit(held, rest, namespace)
        except BaseException:
            namespace.close()
            raise
        spawn(self._let_leave(held, namespace, index), name=f"unplug {container_id[:12]}")
        await self._release_one(network.id, container_id)
        self._tell("disconnect", network, container_id)
        return held.attachment

    async def _let_leave(self, held: Held, namespace: NetNamespace, index: int) -> None:
        """Delete an interface that nothing passes any more: that waits for a grace period, and nobody for that."""
        try:
            if index:
                await in_thread(namespace.netlink.delete_index, index)
        except TareError as error:
            log.warning("an interface that was cut off could not be deleted: %s", error.message)
        finally:
            held.leaving.discard(index)
            namespace.close()

    def _running(self, container_id: str) -> Held:
        held = self._held.get(container_id)
        if held is None or not held.pid:
            raise Conflict(f"container {container_id} is not running")
        return held

    async def _refit(self, held: Held, endpoints: dict[str, EndpointSettings], namespace: NetNamespace) -> None:
        """A running container has these endpoints now: its route, ports, names and files follow."""
        if self._held.get(held.wish.container_id) is not held:
            raise Conflict(f"container {held.wish.container_id} is not running")
        given = self.file_texts(
            held.wish.config, held.wish.host, mode=Mode.OWN, endpoints=endpoints, links=held.wish.links
        )
        gateways = self._routes.gateways_of(endpoints)
        moves = gateways != held.gateways
        if moves:
            await self._exposer.withdraw(held, keep=True)
        held.attachment = replace(held.attachment, endpoints=endpoints, files=given)
        self._directory.changed()
        if moves:
            before, held.gateways = held.gateways, gateways
            for version in (4, 6):
                if before.get(version) != gateways.get(version):
                    await self._routes.turn(held, namespace, version)
            await self._exposer.expose(held)
        if held.names is None and self._names.are_wanted(endpoints):
            await self._names.open(held, namespace)

    async def change_ports(self, container_id: str, host: HostConfig) -> Attachment | None:
        """A running container asks for other ports now; None: it is not plugged in. A conflict changes nothing."""
        held = self._held.get(container_id)
        if held is None:
            return None
        await self._exposer.change(held, host)
        return held.attachment

    async def _release_one(self, network_id: str, container_id: str) -> None:
        release = partial(records.release_one, network_id=network_id, container_id=container_id)
        await self._database.write(release, durable=False)

    # --- files

    def file_texts(
        self,
        config: ContainerConfig,
        host: HostConfig,
        *,
        mode: Mode,
        endpoints: Mapping[str, EndpointSettings],
        links: Sequence[str] = (),
    ) -> FileTexts:
        """The three files of a container (see `texts.compose`)."""
        return texts.compose(
            config,
            host,
            options=self._options,
            mode=mode,
            addresses=addresses_of(endpoints.values()),
            host_gateway=self._host_gateway(),
            name_server=NAME_SERVER if self._names.are_wanted(endpoints) else "",
            links=links,
        )

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
        if any(other.config_from == network.name for other in self._networks.values()):
            raise Forbidden(f'error while removing network: configuration network "{network.name}" is in use')
        if self.members(network.id) or self._busy[network.id]:
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

    @property
    def _prefix6(self) -> ipaddress.IPv6Network:
        return ipam.local_prefix(self._options.seed)

    def pools(self) -> Sequence[dict[str, object]]:
        """`DefaultAddressPools` of info."""
        return [{"Base": str(pool), "Size": size} for pool, size in self._options.pools]

    @property
    def firewall(self) -> str:
        """What filters and translates packets here; "" with --iptables=false."""
        return "nftables" if self._options.iptables else ""

    def warnings(self) -> Sequence[str]:
        """What `info` should say about this host's network."""
        if self._options.forward_accept:
            return []
        return [
            f"Chain {chain} drops forwarded packets: its owner has to let {self._options.bridge} through"
            for chain in self._driver.forward_drops()
        ]
