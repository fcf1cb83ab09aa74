"""What a container's interfaces are called and which settings of the kernel they have. Pure.

Source: Docker's labels for the options of an endpoint: endpoint.ifname, endpoint.sysctls.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tare.base.errors import InvalidArgument
from tare.drivers.network.bridge import interface_taken
from tare.wire.config import EndpointSettings, HostConfig

NAME = "com.docker.network.endpoint.ifname"
SYSCTLS = "com.docker.network.endpoint.sysctls"
_PREFIX = "eth"
_NAME = re.compile(r"[^\s/:%]{1,15}\Z")
_FIELD = re.compile(r"[a-z0-9_]+\Z")
_FAMILIES = frozenset({"ipv4", "ipv6", "mpls"})


def asked_name(settings: EndpointSettings) -> str:
    """The name that is asked for, "" for one of ours. Raises InvalidArgument for what the kernel would refuse."""
    name = (settings.DriverOpts or {}).get(NAME, "")
    if name and (not _NAME.match(name) or name in (".", "..", "lo", "all", "default")):
        raise InvalidArgument(f"invalid interface name {name!r}: at most 15 characters, no space, / or :")
    return name


def names(asked: Sequence[str]) -> list[str]:
    """A name for each interface of a container that starts: the one asked for, or the first eth0, eth1, … nobody has.

    Raises InvalidArgument when two ask for the same.
    """
    wanted = [name for name in asked if name]
    for name in wanted:
        if wanted.count(name) > 1:
            raise interface_taken(name)
    free = free_names(wanted)
    return [name or next(free) for name in asked]


def free_names(present: Sequence[str]) -> Iterator[str]:
    """eth0, eth1, … without those that are there."""
    number = 0
    while True:
        name = f"{_PREFIX}{number}"
        if name not in present:
            yield name
        number += 1


def has_ipv6(host: HostConfig) -> bool:
    """Whether a container has IPv6 at all: its sysctls may switch it off."""
    return not isinstance(host.Sysctls, dict) or host.Sysctls.get("net.ipv6.conf.all.disable_ipv6") != "1"


def sysctls(settings: EndpointSettings) -> tuple[tuple[str, str], ...]:
    """The settings that are asked for: path below /proc/sys with IFNAME for the interface, value. Raises InvalidArgument."""
    text = (settings.DriverOpts or {}).get(SYSCTLS, "")
    return tuple(_sysctl(part) for part in text.split(",")) if text else ()


def _sysctl(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    fields = key.split(".")
    is_known = (
        len(fields) == 5
        and fields[0] == "net"
        and fields[1] in _FAMILIES
        and fields[3] in ("IFNAME", "ifname")
        and all(_FIELD.match(field) for field in (fields[2], fields[4]))
    )
    if not is_known:
        raise InvalidArgument(
            f"invalid endpoint settings:\nunrecognised network interface sysctl '{text}'; represent "
            "'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
        )
    if not equals:
        raise InvalidArgument(f"expected sysctl '{text}' to have format name=value")
    return "/".join([*fields[:3], "IFNAME", fields[4]]), value
