"""nftables in this process, by libnftables: one context, commands in the language of nft(8).

We own the tables named `tare-<bridge>` (families ip and ip6), <bridge> being the engine's default one. Their rules
never change: what an engine's networks and published ports are is in sets and maps, changed entry by entry. What nft cannot do: an `accept` of ours ends only our
chain; a `drop` in anybody else's chain at the same hook stands. Where a firewall, or dockerd by its iptables FORWARD
policy, drops forwarded traffic, `accept_forwarding` puts one pair of rules at the end of that chain, marked by the
comment `tare-<bridge>` and taken out again by `forget_forwarding`: see docs/adr/0010-forward-policy-of-others.md.
"""

from __future__ import annotations

import ctypes
import ipaddress
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from tare.base.errors import InternalError, InvalidArgument, NotFound, Unavailable
from tare.drivers.network.elements import Element, Elements, cells, link_name

PREFIX = "tare-"
_JSON = 1 << 4
_HANDLES = 1 << 3
_SHAPE = 1 << 1 | 1 << 11  # stateless, terse: no counters, no elements
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}\Z")


def check_bridge_name(name: str) -> str:
    """An interface name that can stand in a rule and in a path. Raises InvalidArgument."""
    if not _NAME.match(name) or name in (".", ".."):
        raise InvalidArgument(f"invalid bridge name {name!r}: letters, digits, _ . and -, at most 15")
    return name


IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
NAT, UNPROTECTED, ROUTED = "nat", "nat-unprotected", "routed"
FAMILIES = {4: "ip", 6: "ip6"}
_ADDRESS_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
_MESSAGES = {4: "icmp", 6: "ipv6-icmp"}


class Listener(Struct, frozen=True, kw_only=True):
    """A TCP socket of the engine itself, which no container may reach. address None: every address of the host."""

    port: int
    address: IPAddress | None = None


class BridgeRules(Struct, frozen=True, kw_only=True):
    """What the rules say of one bridge. A family without a subnet is not forwarded at all.

    engine: the bridge that names the engine's tables; "": this one. mode, mode6: how packets come in that are addressed
    to a container itself: nat: not at all; nat-unprotected: all that do not come from another bridge of the engine;
    routed: those to opened ports, and ICMP; routed also means that nothing is translated. direct: also with nat, packets
    to opened ports that do not come from another bridge of the engine.
    """

    bridge: str
    engine: str = ""
    subnet: ipaddress.IPv4Network | None = None
    subnet6: ipaddress.IPv6Network | None = None
    masquerade: bool = True
    masquerade6: bool = True
    icc: bool = True
    internal: bool = False
    mode: str = NAT
    mode6: str = NAT
    direct: bool = False
    listeners: tuple[Listener, ...] = ()

    def mode_of(self, version: int) -> str:
        """The mode of a family (4, 6)."""
        return self.mode if version == 4 else self.mode6

    @property
    def table(self) -> str:
        """The name of our table, the same in both families."""
        return PREFIX + (self.engine or self.bridge)


class Publication(Struct, frozen=True, kw_only=True):
    """A published port: packets to (host_ip, host_port) go to (address, port). host_ip None: every address."""

    protocol: str
    host_port: int
    address: IPAddress
    port: int
    host_ip: IPAddress | None = None

    @property
    def said(self) -> str:
        """How `Nft.said` tells it."""
        where = [str(self.host_ip)] if self.host_ip is not None else []
        name = "published_on" if where else "published"
        key = [*where, self.protocol, str(self.host_port)]
        return _said(self.address.version, name, key, [str(self.address), str(self.port)])


class Opening(Struct, frozen=True, kw_only=True):
    """A published port that is reached at the container's own address."""

    protocol: str
    address: IPAddress
    port: int

    @property
    def said(self) -> str:
        """How `Nft.said` tells it."""
        return _said(self.address.version, "opened", [str(self.address), self.protocol, str(self.port)], [])


PortRule = Publication | Opening


class Entry(Struct, frozen=True, kw_only=True):
    """What a set of ours says of one bridge: `key` of names of links, addresses and subnets; `verdict` in a map."""

    version: int
    name: str
    key: tuple[str | IPNetwork, ...]
    verdict: str = ""

    def text(self, table: str) -> str:
        """The command that adds it."""
        fields = " . ".join(f'"{field}"' if isinstance(field, str) else str(field) for field in self.key)
        verdict = f" : {self.verdict}" if self.verdict else ""
        return f"add element {FAMILIES[self.version]} {table} {self.name} {{ {fields}{verdict} }}\n"

    @property
    def said(self) -> str:
        """How `Nft.said` tells it."""
        return _said(self.version, self.name, [_bare(str(field)) for field in self.key], [self.verdict])

    def elements(self, table: str) -> list[Element]:
        """The same for the kernel itself. A subnet alone is an interval: where it starts and where the next begins."""
        first = cells(*(link_name(field) if isinstance(field, str) else field[0] for field in self.key))
        element = Element(version=self.version, table=table, name=self.name, key=first, verdict=self.verdict)
        last = self.key[0]
        if isinstance(last, str):
            return [element]
        if len(self.key) > 1:  # a concatenation has both ends in one element
            end = cells(*(link_name(field) if isinstance(field, str) else field[-1] for field in self.key))
            return [replace(element, end=end)]
        if int(last[-1]) + 1 >> last.max_prefixlen:
            return [element]
        return [element, replace(element, key=cells(last[-1] + 1), is_end=True)]


def _said(version: int, name: str, key: Sequence[str], value: Sequence[str]) -> str:
    """`ip published tcp . 80 : 10.0.0.2 . 8080`: one element of a set or map of ours in words, always the same ones."""
    data = " . ".join(value)
    return f"{FAMILIES[version]} {name} {' . '.join(key)}{f' : {data}' if data else ''}"


def _bare(text: str) -> str:
    """A subnet of one address as nft writes it."""
    return text.removesuffix("/32" if "." in text else "/128")


_INWARD = {ROUTED: "routed", UNPROTECTED: "unprotected"}
"""The set of bridges that packets to containers' own addresses come to, by mode."""


def entries(rules: BridgeRules) -> list[Entry]:
    """Everything our tables say of one bridge; the rules themselves name none."""
    check_bridge_name(rules.bridge)
    found: list[Entry] = []
    for version in FAMILIES:
        subnet = rules.subnet if version == 4 else rules.subnet6
        masquerade = rules.masquerade if version == 4 else rules.masquerade6

        def add(name: str, *key: str | IPNetwork, verdict: str = "", version: int = version) -> None:
            found.append(Entry(version=version, name=name, key=key, verdict=verdict))

        add("bridges", rules.bridge)
        add("within", rules.bridge, rules.bridge, verdict="accept" if rules.icc else "drop")
        if subnet is None or rules.internal:
            add("closed", rules.bridge)
        if subnet is not None:
            mode = rules.mode_of(version)
            add("homes", subnet, rules.bridge)
            if masquerade and not rules.internal and mode != ROUTED:
                add("outbound", subnet)
            if mode in _INWARD and not rules.internal:
                add(_INWARD[mode], rules.bridge)
    return found


def ruleset(*wanted: tuple[BridgeRules, Iterable[PortRule]]) -> str:
    """The tables of an engine, with all bridges and what is published, in one transaction: old ones are replaced.

    wanted: bridges of one engine or of several; each engine has a table in each family.
    """
    text, made = "", set()
    for rules, _ in wanted:
        check_bridge_name(rules.engine or rules.bridge)
        if rules.table not in made:
            made.add(rules.table)
            text += _table(rules, 4) + _table(rules, 6)
    for rules, publications in wanted:
        text += "".join(entry.text(rules.table) for entry in entries(rules))
        text += "".join(publish_command(rules, publication, present=True) for publication in publications)
    return text


def _table(rules: BridgeRules, version: int) -> str:
    """The rules are the same however many bridges there are: each packet meets them once."""
    family, kind = FAMILIES[version], _ADDRESS_TYPES[version]
    return f"""\
table {family} {rules.table}
delete table {family} {rules.table}
table {family} {rules.table} {{
  set bridges {{
    type ifname
  }}
  set closed {{
    type ifname
  }}
  map within {{
    type ifname . ifname : verdict
  }}
  set homes {{
    type {kind} . ifname
    flags interval
  }}
  set outbound {{
    type {kind}
    flags interval
  }}
  set routed {{
    type ifname
  }}
  set unprotected {{
    type ifname
  }}
  set opened {{
    type {kind} . inet_proto . inet_service
  }}
  map published {{
    type inet_proto . inet_service : {kind} . inet_service
  }}
  map published_on {{
    type {kind} . inet_proto . inet_service : {kind} . inet_service
  }}
  chain publish {{
    dnat {family} to {family} daddr . meta l4proto . th dport map @published_on
    dnat {family} to meta l4proto . th dport map @published
  }}
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
{_guard(version)}  }}
  chain input {{
    type filter hook input priority filter; policy accept;
{_input(rules, version)}  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    meta l4proto {{ tcp, udp, sctp }} fib daddr type local jump publish
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
{_own_loopback(version)}    meta l4proto {{ tcp, udp, sctp }} fib daddr type local jump publish
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
{_masquerade(version)}  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname . oifname vmap @within
    iifname @closed drop
    oifname != @bridges accept
    ct state established,related accept
    ct status dnat accept
    oifname @routed meta l4proto {_MESSAGES[version]} accept
    oifname @routed {family} daddr . meta l4proto . th dport @opened accept
    iifname @bridges drop
    oifname @unprotected accept
    {family} daddr . meta l4proto . th dport @opened accept
    drop
  }}
}}
"""


def _guard(version: int) -> str:
    """`route_localnet` must not let containers use the host's loopback. IPv6 has no such thing.

    Every packet of the host comes by: the address, which is compared quicker than a name is looked up, is asked first.
    """
    if version == 6:
        return ""
    return "    ip daddr 127.0.0.0/8 iifname @bridges drop\n    ip saddr 127.0.0.0/8 iifname @bridges drop\n"


def _input(rules: BridgeRules, version: int) -> str:
    """Containers reach the host by its addresses, as with Docker, but no socket of the engine."""
    lines = []
    for listener in rules.listeners:
        if listener.address is not None and listener.address.version != version:
            continue
        where = f"{FAMILIES[version]} daddr {listener.address} " if listener.address is not None else ""
        lines.append(f"    iifname @bridges {where}tcp dport {listener.port} drop\n")
    return "".join(lines)


def _own_loopback(version: int) -> str:
    """Packets from ::1 cannot leave the loopback and come back: a socket of the engine takes them (`relay`)."""
    return "    ip6 daddr ::1 return\n" if version == 6 else ""


def _masquerade(version: int) -> str:
    """A neighbour (or the container itself) that came by a published port would else be answered directly, and the
    host by its loopback address cannot be answered at all.
    """
    family = FAMILIES[version]
    text = f"    {family} saddr . oifname @homes ct status dnat masquerade\n"
    if version == 4:
        text += "    ip saddr 127.0.0.0/8 oifname @bridges ct status dnat masquerade\n"
    return text + f"    {family} saddr . oifname @homes accept\n    {family} saddr @outbound masquerade\n"


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


def publish_command(rules: BridgeRules, publication: PortRule, *, present: bool) -> str:
    """The command that adds (or deletes) the element of one port: no rule changes."""
    verb = "add" if present else "delete"
    if isinstance(publication, Opening):
        where = f"{publication.address} . {publication.protocol} . {publication.port}"
        return f"{verb} element {FAMILIES[publication.address.version]} {rules.table} opened {{ {where} }}\n"
    key = f"{publication.protocol} . {publication.host_port}"
    name, family = "published", FAMILIES[publication.address.version]
    if publication.host_ip is not None:
        key, name = f"{publication.host_ip} . {key}", "published_on"
    return f"{verb} element {family} {rules.table} {name} {{ {key} : {publication.address} . {publication.port} }}\n"


_LINKS_IN = {"bridges": (0,), "closed": (0,), "within": (0, 1), "homes": (1,), "routed": (0,), "unprotected": (0,)}
"""Which fields of a key are names of links, by set."""


def removal(table: str, said: str) -> str:
    """The command that deletes the element which is told so (`Entry.said`, `Publication.said`)."""
    family, name, rest = said.split(" ", 2)
    key, _, value = rest.partition(" : ")
    links = _LINKS_IN.get(name, ())
    fields = [f'"{check_bridge_name(f)}"' if n in links else f for n, f in enumerate(key.split(" . "))]
    return f"delete element {family} {table} {name} {{ {' . '.join(fields)}{f' : {value}' if value else ''} }}\n"


def bridge_of(said: str) -> str:
    """The bridge an element is about, "" for those that name none."""
    _, name, key = said.partition(" : ")[0].split(" ", 2)
    return key.split(" . ")[_LINKS_IN[name][0]] if name in _LINKS_IN else ""


def _element(rules: BridgeRules, publication: PortRule) -> Element:
    """What `publish_command` says, for the kernel itself."""
    if isinstance(publication, Opening):
        return Element(
            version=publication.address.version,
            table=rules.table,
            name="opened",
            key=cells(publication.address, publication.protocol, publication.port),
        )
    where = () if publication.host_ip is None else (publication.host_ip,)
    return Element(
        version=publication.address.version,
        table=rules.table,
        name="published" if publication.host_ip is None else "published_on",
        key=cells(*where, publication.protocol, publication.host_port),
        data=cells(publication.address, publication.port),
    )


def acceptance_commands(place: ForwardDrop, bridge: str) -> str:
    """Rules of ours in somebody's chain that drops what `bridge` forwards; our own table has judged it already.

    They stand last (before a final drop or reject), so whatever the chain's owner refuses by a rule stays refused.
    """
    verb = f"insert rule {place.chain} position {place.before}" if place.before else f"add rule {place.chain}"
    comment = f'comment "{PREFIX}{check_bridge_name(bridge)}"'
    return (
        f'{verb} iifname "{bridge}" counter accept {comment}\n'
        f'{verb} oifname "{bridge}" counter accept {comment}\n'
    )  # fmt: skip


class ForwardDrop(Struct, frozen=True, kw_only=True):
    """A chain of others that ends in a drop. `before`: handle of its final rule, 0 where the policy drops.

    `ours`: handles of our rules in it, by bridge.
    """

    chain: str
    before: int = 0
    ours: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


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
        self._elements = Elements()
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)
        self._lock = threading.Lock()

    def run(self, commands: str, *, json: bool = False, flags: int = 0) -> str:
        """Run commands as one transaction and return the output. flags: of libnftables' output.

        Raises NotFound, InternalError.
        """
        with self._lock:
            if self._context is None:
                raise Unavailable("the packet filter is closed")
            self._library.nft_ctx_output_set_flags(self._context, flags | (_JSON if json else 0))
            failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            output = self._library.nft_ctx_get_output_buffer(self._context).decode(errors="replace")
            error = self._library.nft_ctx_get_error_buffer(self._context).decode(errors="replace").strip()
        if failed:
            first = error.splitlines()[0] if error else "unknown error"
            if "No such file or directory" in error:
                raise NotFound(f"nftables: {first}")
            raise InternalError(f"nftables: {first}")
        return str(output)

    def apply(self, *wanted: tuple[BridgeRules, Iterable[PortRule]]) -> None:
        """Make or replace our tables with these bridges, each with what is published there: all or none."""
        self.run(ruleset(*wanted))

    def admit(self, rules: BridgeRules, *, present: bool) -> None:
        """Add or take away what our tables say of one bridge, all or none. Raises NotFound (flushed rules)."""
        elements = [element for entry in entries(rules) for element in entry.elements(rules.table)]
        with self._lock:
            if self._context is None:
                raise Unavailable("the packet filter is closed")
            self._elements.change(elements, present=present)

    def shape(self, engine: str) -> str:
        """Our tables as text, without what is in their sets and counted. Raises NotFound."""
        table = PREFIX + check_bridge_name(engine)
        return "".join(self.run(f"list table {family} {table}\n", flags=_SHAPE) for family in FAMILIES.values())

    def said(self, engine: str) -> frozenset[str]:
        """Every element of the sets and maps in our tables, in the words of `Entry.said` and `Publication.said`.

        Raises NotFound (flushed rules).
        """
        table = PREFIX + check_bridge_name(engine)
        found: set[str] = set()
        for version, family in FAMILIES.items():
            for item in _Listing.parse(self.run(f"list table {family} {table}\n", json=True)).sets:
                for element in item.elem:
                    key, value = element if item.map else (element, "")
                    found.add(_said(version, item.name, _fields(key), _fields(value)))
        return frozenset(found)

    def forget(self, engine: str, said: str) -> None:
        """Delete one element, told as `said` does. Raises NotFound."""
        self.run(removal(PREFIX + check_bridge_name(engine), said))

    def remove(self, engine: str) -> None:
        """Delete our tables; none is as good."""
        table = PREFIX + check_bridge_name(engine)
        self.run("".join(f"table {family} {table}\ndelete table {family} {table}\n" for family in FAMILIES.values()))

    def publish(self, rules: BridgeRules, publications: Iterable[PortRule], *, present: bool) -> None:
        """Add or delete published ports, all or none."""
        elements = [_element(rules, publication) for publication in publications]
        with self._lock:
            if self._context is None:
                raise Unavailable("the packet filter is closed")
            self._elements.change(elements, present=present)

    def tables(self) -> set[str]:
        """Names of our tables."""
        listed = _Listing.parse(self.run("list tables", json=True))
        return {name for name in listed.tables if name.startswith(PREFIX)}

    def forward_drops(self) -> list[ForwardDrop]:
        """Other people's chains that drop forwarded packets, by policy or by their last rule."""
        found = []
        for chain in _Listing.parse(self.run("list chains", json=True)).forwards:
            where = f"{chain.family} {chain.table} {chain.name}"
            rules = _Listing.parse(self.run(f"list chain {where}\n", json=True, flags=_HANDLES)).rules
            if (drop := _forward_drop(where, chain, rules)) is not None:
                found.append(drop)
        return found

    def accept_forwarding(self, bridges: Iterable[str], drops: Iterable[ForwardDrop]) -> None:
        """Put our rules where they are missing."""
        wanted = list(bridges)
        commands = "".join(
            acceptance_commands(drop, bridge) for drop in drops for bridge in wanted if bridge not in drop.ours
        )
        if commands:
            self.run(commands)

    def forget_forwarding(self, bridge: str, drops: Iterable[ForwardDrop]) -> None:
        """Take our rules for a bridge out of other people's chains."""
        commands = "".join(
            f"delete rule {drop.chain} handle {handle}\n" for drop in drops for handle in drop.ours.get(bridge, ())
        )
        if commands:
            self.run(commands)

    def close(self) -> None:
        """Free the context; rules stay."""
        with self._lock:
            if self._context is not None:
                self._library.nft_ctx_free(self._context)
                self._context = None
                self._elements.close()


def _forward_drop(where: str, chain: _Chain, rules: Sequence[_Rule]) -> ForwardDrop | None:
    ours: dict[str, tuple[int, ...]] = {}
    for rule in rules:
        if rule.comment.startswith(PREFIX):
            bridge = rule.comment.removeprefix(PREFIX)
            ours[bridge] = (*ours.get(bridge, ()), rule.handle)
    last = rules[-1] if rules else None
    if last is not None and all(kind in ("counter", "drop", "reject") for part in last.expr for kind in part):
        return ForwardDrop(chain=where, before=last.handle, ours=ours)
    return ForwardDrop(chain=where, ours=ours) if chain.policy == "drop" else None


def _fields(value: Any) -> list[str]:
    """The parts of a key or a value in nft's JSON. Source: libnftables-json(5), "EXPRESSIONS"."""
    match value:
        case {"concat": parts}:
            return [field for part in parts for field in _fields(part)]
        case {"prefix": {"addr": address, "len": length}}:
            return [f"{address}/{length}"]
        case {"range": [first, last]}:
            return [f"{first}-{last}"]
        case {"elem": {"val": inner}}:
            return _fields(inner)
        case {"accept": _}:
            return ["accept"]
        case {"drop": _}:
            return ["drop"]
        case _:
            return [str(value)]


class _Listing(Struct, frozen=True):
    tables: list[str]
    sets: list[_Set]
    forwards: list[_Chain]
    rules: list[_Rule]

    @staticmethod
    def parse(text: str) -> _Listing:
        items = msgspec.json.decode(text, type=_Document).nftables if text else []
        chains = [item.chain for item in items if item.chain is not None]
        return _Listing(
            tables=[item.table.name for item in items if item.table is not None],
            sets=[found for item in items if (found := item.set or item.map) is not None],
            forwards=[
                chain
                for chain in chains
                if chain.hook == "forward"
                and chain.family in ("ip", "ip6", "inet")
                and not chain.table.startswith(PREFIX)
            ],
            rules=[item.rule for item in items if item.rule is not None],
        )


class _Table(msgspec.Struct):
    name: str = ""


class _Chain(msgspec.Struct):
    family: str = ""
    table: str = ""
    name: str = ""
    hook: str = ""
    policy: str = ""


class _Rule(msgspec.Struct):
    handle: int = 0
    comment: str = ""
    expr: list[dict[str, msgspec.Raw]] = []


class _Set(msgspec.Struct):
    """A set, or a map: then `map` names its values and each element is a pair."""

    name: str = ""
    map: str | list[str] = ""
    elem: list[Any] = []


class _Item(msgspec.Struct):
    table: _Table | None = None
    set: _Set | None = None
    map: _Set | None = None
    chain: _Chain | None = None
    rule: _Rule | None = None


class _Document(msgspec.Struct):
    nftables: list[_Item] = []
