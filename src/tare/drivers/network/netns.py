"""Network namespaces as descriptors: made without a name, so that the kernel forgets them with their last process.

Everything that has to *be* in another namespace happens on one thread of its own, which goes there, opens what is
needed, and comes back. No thread of the event loop or its pools ever changes namespace.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from msgspec import Struct

from tare.base.errors import InternalError, InvalidArgument, NotFound, Unavailable
from tare.drivers import linux
from tare.drivers.network.netlink import Netlink

T = TypeVar("T")

_SYSCTLS: tuple[tuple[str, str], ...] = (
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
)
_NO_IPV6: tuple[tuple[str, str], ...] = (
    ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
    ("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"),
    ("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0"),
)
_LOOPBACK = 1
_NS_GET_NSTYPE = 0xB703


class NetNamespace(Struct, frozen=True):
    """A namespace we hold: `fd` keeps it alive, `netlink` configures it from outside."""

    fd: int
    netlink: Netlink

    @property
    def path(self) -> str:
        """A path another process can open as long as this one holds the descriptor."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def close(self) -> None:
        """Let go. Without a process inside the kernel removes the namespace and all its links by itself."""
        self.netlink.close()
        os.close(self.fd)


class Namespaces:
    """The thread that visits namespaces."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tare-netns")

    def create(self, *, bare: int | None = None) -> NetNamespace:
        """A new namespace: loopback up, ports and ping free for everyone inside, IPv6 off on what is plugged in later.

        bare: a descriptor of one that somebody else made and that is to be so. Blocks for about 0.3 ms.
        """

        def go() -> None:
            linux.unshare(linux.CLONE_NEWNET) if bare is None else linux.setns(bare, linux.CLONE_NEWNET)

        return self._there(go, _furnish)

    def enable_ipv6(self, namespace_fd: int, interface: str) -> None:
        """Let an interface have IPv6: addresses are ours to give, so no duplicates are looked for, no router heard."""
        self.run(namespace_fd, lambda: switch_ipv6_on(interface))

    def open(self, path: str) -> NetNamespace:
        """Take hold of an existing one, by `/proc/PID/ns/net`. Raises NotFound."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise NotFound(f"no network namespace {path}") from None
        try:
            netlink = self._there(lambda: linux.setns(fd, linux.CLONE_NEWNET), Netlink)
        except BaseException:
            os.close(fd)
            raise
        return NetNamespace(fd, netlink)

    def run(self, namespace_fd: int, work: Callable[[], T]) -> T:
        """Do `work` (quick, synchronous) on the thread while it is in a namespace."""
        return self._there(lambda: linux.setns(namespace_fd, linux.CLONE_NEWNET), work)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _there(self, go: Callable[[], None], work: Callable[[], T]) -> T:
        future: Future[T] = self._thread.submit(_visit, go, work)
        try:
            return future.result()
        except OSError as error:
            raise InternalError(f"cannot use a network namespace: {error.strerror}") from None


def check_network_namespace(path: str) -> None:
    """Raises InvalidArgument unless there is a network namespace at this absolute path."""
    if not path.startswith("/") or "\0" in path:
        raise InvalidArgument(f"invalid network namespace {path!r}: an absolute path is needed")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidArgument(f"no network namespace at {path}: {(error.strerror or '').lower()}") from None
    try:
        kind = fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError:
        raise InvalidArgument(f"{path} is no network namespace") from None
    finally:
        os.close(fd)
    if kind != linux.CLONE_NEWNET:
        raise InvalidArgument(f"{path} is a namespace, but not one of networks")


def _visit(go: Callable[[], None], work: Callable[[], T]) -> T:
    assert threading.current_thread() is not threading.main_thread()
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        go()
        try:
            return work()
        finally:
            linux.setns(home, linux.CLONE_NEWNET)
    finally:
        os.close(home)


def switch_ipv6_on(interface: str) -> None:
    """In the namespace of the calling thread. Raises Unavailable where the kernel has no IPv6."""
    directory = f"/proc/sys/net/ipv6/conf/{interface}"
    if not os.path.isdir(directory):
        raise Unavailable("this host has no IPv6", hint="boot without ipv6.disable=1")
    for name, value in (("accept_dad", "0"), ("accept_ra", "0"), ("disable_ipv6", "0")):
        _set(f"{directory}/{name}", value)


def switch_ipv6_off(interface: str) -> None:
    """In the namespace of the calling thread. Nothing to do where the kernel has no IPv6."""
    if os.path.isdir(directory := f"/proc/sys/net/ipv6/conf/{interface}"):
        _set(f"{directory}/disable_ipv6", "1")


def set_sysctl(path: str, value: str) -> None:
    """In the namespace of the calling thread; path is below /proc/sys. Raises InvalidArgument as Docker words it."""
    full = f"/proc/sys/{path}"
    if not os.path.isfile(full):
        raise InvalidArgument(f"{full} is not a sysctl file")
    try:
        with open(full, "w") as file:
            file.write(value)
    except OSError as error:
        raise InvalidArgument(f"unable to write to '{full}': {(error.strerror or '').lower()}") from None


def _furnish() -> NetNamespace:
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    netlink: Netlink | None = None
    try:
        netlink = Netlink()
        netlink.set_up(_LOOPBACK)
        for path, value in _SYSCTLS + _NO_IPV6:
            _set(path, value)
    except BaseException:
        if netlink is not None:
            netlink.close()
        os.close(fd)
        raise
    return NetNamespace(fd, netlink)


def _set(path: str, value: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # a kernel without that knob (no IPv6) needs no setting
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
