"""Addresses: which subnet a network gets, which address an endpoint. Pure; leases are kept in `records`.

Source: behaviour and texts of dockerd's default address pools (172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 by
/20).
"""

from __future__ import annotations

import bisect
import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Iterator

from tare.base.errors import Conflict, Forbidden, InvalidArgument, NotFound

Network4 = ipaddress.IPv4Network
Address4 = ipaddress.IPv4Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_POOLS: tuple[tuple[Network, int], ...] = (
    *((Network4(f"172.{second}.0.0/16"), 16) for second in range(17, 32)),
    (Network4("192.168.0.0/16"), 20),
)
"""Pools with the prefix length of the subnets cut from them."""
_EXHAUSTED = "remove unused networks (network prune), name a --subnet, or give the engine a --default-address-pool"


def parse_pool(text: str) -> tuple[Network, int]:
    """`base=10.0.0.0/8,size=24`, as of --default-address-pool. Raises InvalidArgument."""
    fields = dict(part.strip().partition("=")[::2] for part in text.split(","))
    if set(fields) != {"base", "size"}:
        raise InvalidArgument(f"invalid default address pool: {text}", hint="write base=10.0.0.0/8,size=24")
    try:
        base, size = ipaddress.ip_network(fields["base"], strict=False), int(fields["size"])
        if "/" not in fields["base"]:
            raise ValueError(text)
    except ValueError:
        raise InvalidArgument(f"invalid default address pool: {text}", hint="write base=10.0.0.0/8,size=24") from None
    if not base.prefixlen <= size <= base.max_prefixlen - 2:
        raise InvalidArgument(
            f"invalid default address pool: {text}: the size is a prefix length from {base.prefixlen} to"
            f" {base.max_prefixlen - 2}"
        )
    return base, size


def _candidates(pools: Iterable[tuple[Network, int]]) -> Iterator[Network]:
    for pool, prefix in pools:
        yield from pool.subnets(new_prefix=max(prefix, pool.prefixlen))


def _ranges(networks: Iterable[Network]) -> list[tuple[int, int]]:
    """First and last address of each as numbers, in order, none overlapping another."""
    found: list[tuple[int, int]] = []
    for first, last in sorted((int(n.network_address), int(n.broadcast_address)) for n in networks):
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return found


def _is_free(subnet: Network, taken: list[tuple[int, int]]) -> bool:
    """One step, however many are taken."""
    place = bisect.bisect_right(taken, (int(subnet.broadcast_address), 1 << 128))
    return place == 0 or taken[place - 1][1] < int(subnet.network_address)


def choose_subnet(
    in_use: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network],
    *,
    pools: Iterable[tuple[Network, int]] = DEFAULT_POOLS,
) -> Network4:
    """The first subnet of the pools that overlaps nothing in use (host routes, other networks). Raises NotFound, as Docker."""
    taken = _ranges(network for network in in_use if isinstance(network, Network4))
    for candidate in _candidates(pool for pool in pools if pool[0].version == 4):
        if isinstance(candidate, Network4) and _is_free(candidate, taken):
            return candidate
    raise NotFound(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
        hint=_EXHAUSTED,
    )


def local_prefix(seed: str) -> ipaddress.IPv6Network:
    """The /48 that subnets of IPv6 are cut from when nobody names one: unique-local, the same for the same seed.

    Source: RFC 4193: fd00::/8 and forty bits that are random to others.
    """
    global_id = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:5], "big")
    return ipaddress.IPv6Network((0xFD << 120 | global_id << 80, 48))


def choose_subnet6(
    in_use: Iterable[Network], *, prefix: ipaddress.IPv6Network, pools: Iterable[tuple[Network, int]] = ()
) -> ipaddress.IPv6Network:
    """The first subnet of the pools of IPv6, or without any the first /64 of the prefix, that overlaps nothing in use.

    Raises NotFound.
    """
    ours = [pool for pool in pools if pool[0].version == 6]
    taken = _ranges(n for n in in_use if isinstance(n, ipaddress.IPv6Network) and n.prefixlen)
    for candidate in _candidates(ours or [(prefix, 64)]):
        if isinstance(candidate, ipaddress.IPv6Network) and _is_free(candidate, taken):
            return candidate
    raise NotFound(
        "could not find an available, non-overlapping IPv6 address pool among the defaults to assign to the network",
        hint=_EXHAUSTED,
    )


def check_subnet(subnet: Network4, in_use: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> None:
    """Refuse a subnet somebody asked for when another network of ours has it. Raises Conflict."""
    if any(isinstance(network, Network4) and subnet.overlaps(network) for network in in_use):
        raise Conflict("Pool overlaps with other one on this address space")


def default_gateway(subnet: Network) -> Address:
    """The first usable address."""
    return subnet.network_address + 1 if subnet.prefixlen < subnet.max_prefixlen - 1 else subnet.network_address


def parse_bip(text: str) -> ipaddress.IPv4Interface:
    """`--bip`: the bridge's address with its prefix. Raises InvalidArgument."""
    try:
        interface = ipaddress.IPv4Interface(text)
    except ValueError:
        raise InvalidArgument(f"invalid CIDR address: {text}") from None
    network = interface.network
    if (
        "/" not in text
        or network.prefixlen > 30
        or interface.ip in (network.network_address, network.broadcast_address)
    ):
        raise InvalidArgument(
            f"invalid bridge address {text}: an address inside a subnet is needed, like 172.30.0.1/16"
        )
    return interface


def allocate(
    subnet: Network,
    *,
    taken: Collection[Address],
    wanted: Address | None = None,
    ip_range: Network | None = None,
    network: str = "",
) -> Address:
    """The lowest free address, or `wanted` if it is free.

    taken: leases, gateway, auxiliary addresses. ip_range: only from there. Raises InvalidArgument, Forbidden (taken),
    Conflict (none is free).
    """
    unusable = set(_unusable(subnet))
    if wanted is not None:
        if wanted not in subnet:
            raise InvalidArgument(f"invalid endpoint settings: no configured subnet contains IP address {wanted}")
        if wanted in taken or int(wanted) in unusable:
            raise Forbidden("Address already in use")
        return wanted
    pool = ip_range if ip_range is not None else subnet
    busy = {int(address) for address in taken} | unusable
    for number in range(int(pool.network_address), int(pool.broadcast_address) + 1):
        if number not in busy:
            return type(subnet.network_address)(number)
    version = subnet.version
    raise Conflict(f"no available IPv{version} addresses on this network's address pools: {network}".rstrip(": "))


def _unusable(subnet: Network) -> tuple[int, ...]:
    """The network's and the broadcast address; in IPv6 the anycast address of the routers alone."""
    if subnet.prefixlen >= subnet.max_prefixlen - 1:
        return ()
    if subnet.version == 6:
        return (int(subnet.network_address),)
    return int(subnet.network_address), int(subnet.broadcast_address)
