"""Bridges and what is plugged into them: the kernel side of every network of driver "bridge".

    bridge <name> (gateway address)  <-  veth<7 hex> | eth0 in the container's namespace
    table ip tare-<name>                 masquerading, forwarding, published ports

Life of an endpoint: `namespace()`, then `plug` for each network, then the descriptor goes to the runtime; `close` of
the namespace ends it (links and addresses go with it, nobody waits). Bridges and rules stay until `remove_bridge`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tare.base.errors import Conflict, InternalError, InvalidArgument, NotFound, Unavailable
from tare.drivers.network.netlink import IPAddress, IPInterface, IPNetwork, Link, Netlink, Route
from tare.drivers.network.netns import Namespaces, NetNamespace
from tare.drivers.network.nft import BridgeRules, Nft, Publication, check_bridge_name, names_ruleset

NAME_SERVER = "127.0.0.11"
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def mac_for(address: ipaddress.IPv4Address) -> str:
    """Docker's locally administered address for an IPv4 one: 02:42 and its four bytes."""
    return "02:42:" + address.packed.hex(":")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plug:
    """One endpoint to make. `gateway` None: no default route by this one. `reflects`: it has published ports."""

    bridge: str
    interface: str
    mac: str
    addresses: tuple[IPInterface, ...]
    gateway: IPAddress | None = None
    mtu: int = 1500
    isolated: bool = False
    reflects: bool = False


class BridgeDriver:
    """The kernel's networking in one network namespace (normally the daemon's). Blocking calls, any thread."""

    def __init__(self, *, rules: bool = True, home: str | None = None) -> None:
        """rules: whether to use nftables at all (`--iptables`). home: path of the namespace to work in."""
        self._namespaces = Namespaces()
        self._lock = threading.RLock()
        self._is_closed = False
        self._home: NetNamespace | None = None
        try:
            if home is None:
                self._netlink = Netlink()
                self._nft = Nft() if rules else None
            else:
                self._home = self._namespaces.open(home)
                self._netlink = self._home.netlink
                self._nft = self._namespaces.run(self._home.fd, Nft) if rules else None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close descriptors and threads; links and rules stay. A second time does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        if (nft := getattr(self, "_nft", None)) is not None:
            nft.close()
        if self._home is not None:
            self._home.close()
        elif (netlink := getattr(self, "_netlink", None)) is not None:
            netlink.close()
        self._namespaces.close()

    # --- bridges

    def networks_in_use(self, *, besides: str = "") -> list[IPNetwork]:
        """Destinations of the host's routes and subnets of its addresses: what a new subnet must not overlap.

        besides: a bridge whose own subnet does not count.
        """
        with self._lock:
            own = self._netlink.link(besides) if besides else None
            index = own.index if own else -1
            routes = [r.destination for r in self._netlink.routes() if r.index != index and r.destination.prefixlen]
            here = [a.interface.network for a in self._netlink.addresses() if a.index != index]
        return [*routes, *here]

    def bridge_address(self, name: str) -> ipaddress.IPv4Interface | None:
        """The first IPv4 address of an existing bridge. Raises InvalidArgument when the link is no bridge."""
        with self._lock:
            link = self._netlink.link(check_bridge_name(name))
            if link is None:
                return None
            _check_is_bridge(link)
            for address in self._netlink.addresses():
                if address.index == link.index and isinstance(address.interface, ipaddress.IPv4Interface):
                    return address.interface
        return None

    def ensure_bridge(self, name: str, address: ipaddress.IPv4Interface, *, mtu: int = 1500) -> None:
        """Make the bridge, or adopt the one there is: up, with this address."""
        with self._lock:
            link = self._netlink.link(check_bridge_name(name))
            if link is None:
                mac = "02:42:" + secrets.token_bytes(4).hex(":")
                self._netlink.create_bridge(name, mac=mac, mtu=mtu)
                link = self._netlink.link(name)
                if link is None:
                    raise InternalError(f"bridge {name} went away while it was made")
            _check_is_bridge(link)
            present = {a.interface for a in self._netlink.addresses() if a.index == link.index}
            if address not in present:
                self._netlink.add_address(link.index, address)
            if not link.is_up:
                self._netlink.set_up(link.index)

    def remove_bridge(self, name: str, *, keeps_link: bool = False) -> None:
        """Delete the bridge and its rules. Idempotent. keeps_link: the link was there before us."""
        with self._lock:
            if self._nft is not None:
                self._nft.remove(name)
            if not keeps_link:
                self._netlink.delete_link(name)

    def links(self) -> set[str]:
        """Names of the host's interfaces."""
        with self._lock:
            return {link.name for link in self._netlink.links()}

    def apply_rules(self, rules: BridgeRules) -> None:
        """Make or replace the rules of a bridge; without nftables does nothing.

        What is published is gone afterwards. The host may reach published ports by its loopback address: the kernel
        routes those only where `route_localnet` says so; the rules keep containers from using that.
        """
        if self._nft is None:
            return
        self._nft.apply(rules)
        path = Path(f"/proc/sys/net/ipv4/conf/{check_bridge_name(rules.bridge)}/route_localnet")
        if self._home is None:
            _switch_on(path)
        else:
            self._namespaces.run(self._home.fd, lambda: _switch_on(path))

    def publish(self, rules: BridgeRules, publications: Iterable[Publication], *, present: bool) -> None:
        """Map published ports, or take them away. Raises Unavailable without nftables, NotFound (flushed rules)."""
        if self._nft is None:
            raise Unavailable("ports cannot be published with --iptables=false", hint="use --network host")
        self._nft.publish(rules, publications, present=present)

    def forward_drops(self) -> list[str]:
        """Chains of others that stop forwarded packets; empty without nftables."""
        return self._nft.forward_drops() if self._nft is not None else []

    def enable_forwarding(self) -> None:
        """Let the kernel route between interfaces. Only written where it is off."""
        if self._home is None:
            _enable_forwarding()
        else:
            self._namespaces.run(self._home.fd, _enable_forwarding)

    # --- endpoints

    def namespace(self, *, ipv6: bool = False, bare: int | None = None) -> NetNamespace:
        """A new namespace with loopback only, or a `bare` one furnished as such. The caller closes it."""
        return self._namespaces.create(ipv6=ipv6, bare=bare)

    def open_namespace(self, pid: int) -> NetNamespace:
        """The namespace of a running process. Raises NotFound."""
        return self._namespaces.open(f"/proc/{pid}/ns/net")

    def plug(self, namespace: NetNamespace, plug: Plug) -> str:
        """Connect a namespace to a bridge; returns the name of the host's end.

        On failure nothing is left: the pair dies with whichever end is deleted.
        """
        with self._lock:
            bridge = self._netlink.link(plug.bridge)
            if bridge is None:
                raise InternalError(f"bridge {plug.bridge} is missing", hint="restart the engine to make it again")
            outside = self._create_pair(namespace, plug, bridge)
            try:
                if (plug.isolated or plug.reflects) and (link := self._netlink.link(outside)) is not None:
                    if plug.isolated:
                        self._netlink.isolate(link.index)
                    if plug.reflects:
                        self._netlink.reflect(link.index)
                self._configure(namespace.netlink, plug)
            except BaseException:
                with contextlib.suppress(InternalError):
                    self._netlink.delete_link(outside)
                raise
            return outside

    def plug_running(self, namespace: NetNamespace, plug: Plug) -> None:
        """Connect a running container: `plug` under the first free name eth0, eth1, …"""
        names = {link.name for link in namespace.netlink.links()}
        number = next(number for number in range(len(names) + 1) if f"eth{number}" not in names)
        self.plug(namespace, replace(plug, interface=f"eth{number}"))

    def unplug_running(self, namespace: NetNamespace, mac: str) -> None:
        """Cut the connection with this mac off a running container. Idempotent."""
        with self._lock:
            for link in namespace.netlink.links():
                if link.mac == mac and link.kind == "veth":
                    namespace.netlink.delete_link(link.name)

    def set_gateway(self, namespace: NetNamespace, mac: str, gateway: IPAddress | None) -> None:
        """Let the IPv4 default route of a running container go by the interface with this mac; None: there is none."""
        with self._lock:
            inside = namespace.netlink
            for route in inside.routes():
                if not route.destination.prefixlen and route.destination.version == 4:
                    inside.delete_route(route)
            if gateway is None:
                return
            link = next((link for link in inside.links() if link.mac == mac), None)
            if link is None:
                raise NotFound(f"no interface with mac {mac} in the container")
            everywhere = ipaddress.ip_network("0.0.0.0/0")
            inside.add_route(Route(destination=everywhere, gateway=gateway, index=link.index))

    def name_sockets(self, namespace: NetNamespace, *, is_new: bool) -> tuple[socket.socket, socket.socket]:
        """Where a container asks for names: udp and tcp sockets behind 127.0.0.11:53 inside, the caller closes them.

        is_new: nobody served names in this namespace before.
        """
        redirects = self._nft is not None
        return self._namespaces.run(namespace.fd, lambda: _name_sockets(redirects=redirects, is_new=is_new))

    def unplug(self, outside: str) -> None:
        """Cut one connection of a namespace that lives on. Waits for a grace period. Idempotent."""
        with self._lock:
            self._netlink.delete_link(outside)

    def _create_pair(self, namespace: NetNamespace, plug: Plug, bridge: Link) -> str:
        for _ in range(3):
            outside = f"veth{secrets.token_hex(4)[:7]}"
            with contextlib.suppress(Conflict):
                self._netlink.create_veth(
                    outside,
                    master=bridge.index,
                    peer_name=plug.interface,
                    peer_namespace_fd=namespace.fd,
                    peer_mac=plug.mac,
                    mtu=plug.mtu,
                )
                return outside
        raise Conflict(f"cannot make {plug.interface}: the name is taken in the container's network namespace")

    @staticmethod
    def _configure(inside: Netlink, plug: Plug) -> None:
        link = inside.link(plug.interface)
        if link is None:
            raise InternalError(f"{plug.interface} did not appear in the container's network namespace")
        for address in plug.addresses:
            inside.add_address(link.index, address)
        if not link.is_up:
            inside.set_up(link.index)
        if plug.gateway is not None:
            everywhere = ipaddress.ip_network("0.0.0.0/0" if plug.gateway.version == 4 else "::/0")
            inside.add_route(Route(destination=everywhere, gateway=plug.gateway, index=link.index))


def _check_is_bridge(link: Link) -> None:
    if link.kind != "bridge":
        raise InvalidArgument(f"{link.name} exists and is not a bridge")


def _enable_forwarding() -> None:
    try:
        if _FORWARD.read_text().strip() != "1":
            _FORWARD.write_text("1\n")
    except OSError as error:
        raise InternalError(f"cannot enable IPv4 forwarding: {error.strerror}") from None


def _switch_on(path: Path) -> None:
    try:
        path.write_text("1\n")
    except OSError as error:
        raise InternalError(f"cannot write {path}: {error.strerror}") from None


def _name_sockets(*, redirects: bool, is_new: bool) -> tuple[socket.socket, socket.socket]:
    """redirects: take any ports, and let the packet filter of this namespace lead port 53 to them."""
    flags = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | flags)
    try:
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | flags)
        try:
            for each in (udp, tcp):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                each.bind((NAME_SERVER, 0 if redirects else 53))
            tcp.listen(64)
            if redirects:
                nft = Nft()
                try:
                    ports = {"udp_port": udp.getsockname()[1], "tcp_port": tcp.getsockname()[1]}
                    nft.run(names_ruleset(NAME_SERVER, **ports, replaces=not is_new))
                finally:
                    nft.close()
        except BaseException:
            tcp.close()
            raise
    except BaseException:
        udp.close()
        raise
    return udp, tcp
