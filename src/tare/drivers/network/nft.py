"""nftables in this process, by libnftables: one context, commands in the language of nft(8).

We own the tables named `tare-<bridge>` (family ip) and touch no other. What nft cannot do: an `accept` of ours ends
only our chain; a `drop` in anybody else's chain at the same hook stands. Where a firewall, or dockerd by its iptables
FORWARD policy, drops forwarded traffic, its owner has to let our bridge through: `forward_drops` finds those chains
so that `info` can say so.
"""

from __future__ import annotations

import ctypes
import ipaddress
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from tare.base.errors import InternalError, InvalidArgument, NotFound, Unavailable

PREFIX = "tare-"
_JSON = 1 << 4
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}\Z")


def check_bridge_name(name: str) -> str:
    """An interface name that can stand in a rule and in a path. Raises InvalidArgument."""
    if not _NAME.match(name) or name in (".", ".."):
        raise InvalidArgument(f"invalid bridge name {name!r}: letters, digits, _ . and -, at most 15")
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeRules:
    """What the rules of one bridge say."""

    bridge: str
    subnet: ipaddress.IPv4Network
    masquerade: bool = True
    icc: bool = True
    internal: bool = False

    @property
    def table(self) -> str:
        """The name of our table."""
        return PREFIX + self.bridge


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A published port: packets to (host_ip, host_port) go to (address, port). host_ip None: every address."""

    protocol: str
    host_port: int
    address: ipaddress.IPv4Address
    port: int
    host_ip: ipaddress.IPv4Address | None = None


def ruleset(rules: BridgeRules) -> str:
    """The whole table in one transaction: what was there under the name is replaced."""
    bridge = check_bridge_name(rules.bridge)
    icc = "accept" if rules.icc else "drop"
    outward = "drop" if rules.internal else "accept"
    masquerade = (
        f'    ip saddr {rules.subnet} oifname != "{bridge}" masquerade\n'
        if rules.masquerade and not rules.internal
        else ""
    )
    # A neighbour (or the container itself) that came by a published port would else be answered directly, and the
    # host by its loopback address cannot be answered at all.
    masquerade += f'''\
    ip saddr {rules.subnet} oifname "{bridge}" ct status dnat masquerade
    ip saddr 127.0.0.0/8 oifname "{bridge}" ct status dnat masquerade
'''
    return f"""\
table ip {rules.table}
delete table ip {rules.table}
table ip {rules.table} {{
  map published {{
    type inet_proto . inet_service : ipv4_addr . inet_service
  }}
  map published_on {{
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
  }}
  chain publish {{
    dnat ip to ip daddr . meta l4proto . th dport map @published_on
    dnat ip to meta l4proto . th dport map @published
  }}
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop
    iifname "{bridge}" ip saddr 127.0.0.0/8 drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    meta l4proto {{ tcp, udp, sctp }} fib daddr type local jump publish
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    meta l4proto {{ tcp, udp, sctp }} fib daddr type local jump publish
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
{masquerade}  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname "{bridge}" ct state established,related accept
    iifname "{bridge}" oifname "{bridge}" {icc}
    iifname "{bridge}" {outward}
    oifname "{bridge}" ct status dnat accept
    oifname "{bridge}" drop
  }}
}}
"""


def names_ruleset(server: str, *, udp_port: int, tcp_port: int, replaces: bool) -> str:
    """Inside a container: questions to `server` port 53 go to the ports our name server really has.

    Port 53 itself stays free for a name server in the container. replaces: there may be such a table; deleting waits
    for an RCU grace period, which a new namespace need not pay.
    """
    table = f"{PREFIX}names"
    first = f"table ip {table}\ndelete table ip {table}\n" if replaces else ""
    return f"""{first}\
table ip {table} {{
  chain output {{
    type nat hook output priority -100; policy accept;
    ip daddr {server} udp dport 53 dnat to {server}:{udp_port}
    ip daddr {server} tcp dport 53 dnat to {server}:{tcp_port}
  }}
}}
"""


def publish_command(rules: BridgeRules, publication: Publication, *, present: bool) -> str:
    """The command that adds (or deletes) the map element of one port: no rule changes."""
    verb = "add" if present else "delete"
    key = f"{publication.protocol} . {publication.host_port}"
    name = "published"
    if publication.host_ip is not None:
        key, name = f"{publication.host_ip} . {key}", "published_on"
    return f"{verb} element ip {rules.table} {name} {{ {key} : {publication.address} . {publication.port} }}\n"


class Nft:
    """One libnftables context. Blocks well below a millisecond; may be used from any thread."""

    def __init__(self) -> None:
        """Raises Unavailable where the library is missing."""
        try:
            library = ctypes.CDLL("libnftables.so.1")
        except OSError:
            raise Unavailable("libnftables is missing", hint="apt install libnftables1") from None
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_free.argtypes = [ctypes.c_void_p]
        library.nft_ctx_free.restype = None
        for function in (library.nft_ctx_buffer_output, library.nft_ctx_buffer_error):
            function.argtypes = [ctypes.c_void_p]
        for function in (library.nft_ctx_get_output_buffer, library.nft_ctx_get_error_buffer):
            function.argtypes = [ctypes.c_void_p]
            function.restype = ctypes.c_char_p
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        library.nft_ctx_output_set_flags.restype = None
        self._library = library
        self._context: int | None = library.nft_ctx_new(0)
        if not self._context:
            raise Unavailable("libnftables cannot be used here")
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)
        self._lock = threading.Lock()

    def run(self, commands: str, *, json: bool = False) -> str:
        """Run commands as one transaction and return the output. Raises NotFound, InternalError."""
        with self._lock:
            if self._context is None:
                raise Unavailable("the packet filter is closed")
            self._library.nft_ctx_output_set_flags(self._context, _JSON if json else 0)
            failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            output = self._library.nft_ctx_get_output_buffer(self._context).decode(errors="replace")
            error = self._library.nft_ctx_get_error_buffer(self._context).decode(errors="replace").strip()
        if failed:
            first = error.splitlines()[0] if error else "unknown error"
            if "No such file or directory" in error:
                raise NotFound(f"nftables: {first}")
            raise InternalError(f"nftables: {first}")
        return str(output)

    def apply(self, rules: BridgeRules) -> None:
        """Make or replace our table for a bridge."""
        self.run(ruleset(rules))

    def remove(self, bridge: str) -> None:
        """Delete our table for a bridge; none is as good."""
        table = PREFIX + check_bridge_name(bridge)
        self.run(f"table ip {table}\ndelete table ip {table}\n")

    def publish(self, rules: BridgeRules, publications: Iterable[Publication], *, present: bool) -> None:
        """Add or delete published ports, all or none."""
        commands = "".join(publish_command(rules, publication, present=present) for publication in publications)
        if commands:
            self.run(commands)

    def tables(self) -> set[str]:
        """Names of our tables."""
        listed = _Listing.parse(self.run("list tables ip", json=True))
        return {name for name in listed.tables if name.startswith(PREFIX)}

    def forward_drops(self) -> list[str]:
        """Other people's chains that drop forwarded packets by policy, as `family table chain`."""
        return _Listing.parse(self.run("list chains", json=True)).forward_drops

    def close(self) -> None:
        """Free the context; rules stay."""
        with self._lock:
            if self._context is not None:
                self._library.nft_ctx_free(self._context)
                self._context = None


@dataclass(frozen=True, slots=True)
class _Listing:
    tables: list[str]
    forward_drops: list[str]

    @staticmethod
    def parse(text: str) -> _Listing:
        items = msgspec.json.decode(text, type=_Document).nftables if text else []
        chains = [item.chain for item in items if item.chain is not None]
        return _Listing(
            tables=[item.table.name for item in items if item.table is not None],
            forward_drops=[
                f"{chain.family} {chain.table} {chain.name}"
                for chain in chains
                if chain.hook == "forward"
                and chain.policy == "drop"
                and chain.family in ("ip", "inet")
                and not chain.table.startswith(PREFIX)
            ],
        )


class _Table(msgspec.Struct):
    name: str = ""


class _Chain(msgspec.Struct):
    family: str = ""
    table: str = ""
    name: str = ""
    hook: str = ""
    policy: str = ""


class _Item(msgspec.Struct):
    table: _Table | None = None
    chain: _Chain | None = None


class _Document(msgspec.Struct):
    nftables: list[_Item] = []
