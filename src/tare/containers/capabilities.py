"""Capabilities: which a process starts with, from the default list and what the user adds and drops.

Names are `CAP_…` in kernel order. Nothing here asks the kernel: what the host has comes in as a set.
Source: capabilities(7), include/uapi/linux/capability.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tare.base.errors import InvalidArgument


def _words(text: str) -> list[str]:
    return text.split()


ALL: tuple[str, ...] = tuple(
    "CAP_" + name
    for name in _words(
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
        "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
        "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
        "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
        "PERFMON BPF CHECKPOINT_RESTORE"
    )
)
"""Every capability Linux has, position = bit number."""

DEFAULT: frozenset[str] = frozenset(
    "CAP_" + name
    for name in _words(
        "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP "
        "SETUID SYS_CHROOT"
    )
)
"""What a container has when nobody says otherwise: mask 00000000a80425fb."""

_ALL = "ALL"
_KNOWN = frozenset(ALL)


def from_mask(mask: int) -> frozenset[str]:
    """The names of the bits set in a `Cap…` line of /proc/PID/status; unnamed newer bits are left out."""
    return frozenset(name for bit, name in enumerate(ALL) if mask >> bit & 1)


def to_mask(names: Iterable[str]) -> int:
    """The reverse of `from_mask`."""
    wanted = set(names)
    return sum(1 << bit for bit, name in enumerate(ALL) if name in wanted)


def normalize(names: Sequence[str], *, field: str) -> list[str]:
    """`net_admin`, `CAP_NET_ADMIN` and `all` in canonical spelling, order kept.

    field: `CapAdd` or `CapDrop`, for the message. Raises InvalidArgument for a name Linux does not have.
    """
    out: list[str] = []
    for name in names:
        upper = name.upper()
        if upper == _ALL:
            out.append(_ALL)
            continue
        full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
        if full not in _KNOWN:
            raise InvalidArgument(f'invalid {field}: unknown capability: "{full}"')
        out.append(full)
    return out


def resolve(*, add: Sequence[str], drop: Sequence[str], privileged: bool, available: frozenset[str]) -> tuple[str, ...]:
    """The bounding set of a container, in kernel order.

    available: what the engine itself holds, hence the most it can give. An explicit wish beyond that raises
    InvalidArgument; the default set, ALL and privileged are cut to it silently.
    """
    adds, drops = normalize(add, field="CapAdd"), normalize(drop, field="CapDrop")
    if privileged:
        return tuple(name for name in ALL if name in available)
    for name in adds:
        if name != _ALL and name not in available:
            raise InvalidArgument(
                f"invalid CapAdd: capability not supported by your kernel or not available in the current environment: "
                f'"{name}"'
            )
    if _ALL in adds:
        chosen = set(ALL) - set(drops)
    elif _ALL in drops:
        chosen = set(adds)
    else:
        chosen = (set(DEFAULT) - set(drops)) | set(adds)
    return tuple(name for name in ALL if name in chosen and name in available)
