"""Sockets that a service manager made before the engine was started, and telling it that the engine is ready.

`--host fd://` takes every socket that was passed, `fd://NUMBER` one descriptor. Clients that connect while the engine starts or is
updated wait instead of being refused. Only unix sockets are taken: a TCP listener has to say how it is secured.
Source: sd_listen_fds(3), sd_notify(3); moby cmd/dockerd, docs of `dockerd -H fd://`.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from tare.base.errors import InvalidArgument

SCHEME = "fd://"
_FIRST = 3
_HINT = "start it by its socket unit (packaging/tare.socket), or use unix:///path"


def numbers(host: str, environ: Mapping[str, str], *, pid: int) -> list[int]:
    """The descriptors that a `fd://` address means. Raises InvalidArgument."""
    count = environ.get("LISTEN_FDS", "") if environ.get("LISTEN_PID", "") == str(pid) else ""
    passed = range(_FIRST, _FIRST + int(count)) if count.isdecimal() else range(0)
    if not passed:
        raise InvalidArgument(f"--host {host}: no sockets were passed to this process", hint=_HINT)
    wanted = host.removeprefix(SCHEME)
    if not wanted or wanted == "*":
        return list(passed)
    if not wanted.isdecimal() or int(wanted) not in passed:
        raise InvalidArgument(
            f"--host {host}: that descriptor was not passed", hint=f"there are {passed[0]} to {passed[-1]}"
        )
    return [int(wanted)]


def adopt(number: int) -> socket.socket:
    """The socket of a descriptor, closed in children. Raises InvalidArgument for what is no unix stream socket."""
    try:
        found = socket.socket(fileno=number)
    except OSError as error:
        raise InvalidArgument(f"descriptor {number} is no socket: {error.strerror}", hint=_HINT) from None
    if found.family != socket.AF_UNIX or found.type != socket.SOCK_STREAM:
        found.detach()
        raise InvalidArgument(
            f"the socket at descriptor {number} is no unix stream socket", hint="TCP: --host tcp://… (docs/tcp.md)"
        )
    found.set_inheritable(False)
    return found


def tell(state: str, environ: Mapping[str, str]) -> None:
    """`READY=1`, `STOPPING=1`: to the service manager, where there is one that wants to know. Never fails."""
    place = environ.get("NOTIFY_SOCKET", "")
    if not place.startswith(("/", "@")):
        return
    address = "\0" + place[1:] if place.startswith("@") else place
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        try:
            told.sendto(state.encode(), address)
        except OSError:
            return  # it is gone: it will not wait either


__all__ = ["SCHEME", "adopt", "numbers", "tell"]
