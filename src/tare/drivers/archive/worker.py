"""The program in which archives nobody vouches for are handled.

`python -I worker.py FD` is a zygote: started once by the daemon, its modules loaded, in mount and network namespaces of
its own that hold nothing (an empty root), it waits on the seqpacket socket FD. Each message with one descriptor (the
job's channel) makes it fork a child, about 3 ms. The child

    1. answers {"ready": true} with its own pidfd, so that the daemon can kill exactly this process and see it end,
    2. receives one JSON message with the descriptors of its job (input or output, directory, blob),
    3. shuts itself into the directory: chroot by descriptor, capabilities dropped to what the job needs,
       no_new_privs, resource limits,
    4. works, answers one JSON message and ends.

It also ends when the channel closes, and the zygote when FD closes, so nothing outlives the daemon.
SYS_ADMIN is kept by none of the jobs that read archives: the opaque mark (a trusted.* xattr) is set by the daemon. Only
`pack` of an overlay's upper half, which reads no archive, and `verify`, whose archive is a layer that was unpacked before,
keep it, to see those marks.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import json
import os
import resource
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":  # run as a file, isolated: find the package this file belongs to
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from msgspec.structs import asdict

from tare.drivers import linux
from tare.drivers.archive.pack import Packer
from tare.drivers.archive.pipeline import Options, is_disk_full, unpack
from tare.drivers.archive.spool import compose, spool
from tare.drivers.archive.tar import ArchiveError
from tare.drivers.archive.verify import verify

MAX_MESSAGE = 1024 * 1024
_MAX_FDS = 16
_MAX_OPEN_FILES = 1024
_MAX_MEMORY = 4 * 1024**3
_MAX_OPAQUE_TEXT = 512 * 1024
_PATIENT = 10

_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _CAP_FOWNER, _CAP_FSETID = 0, 1, 2, 3, 4
_CAP_MKNOD, _CAP_SETFCAP, _CAP_SYS_ADMIN = 27, 31, 21
_CAP_LAST = 63
EXTRACT_CAPABILITIES = frozenset({_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_FOWNER, _CAP_FSETID, _CAP_MKNOD, _CAP_SETFCAP})
PACK_CAPABILITIES = frozenset({_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE})
PACK_OVERLAY_CAPABILITIES = PACK_CAPABILITIES | {_CAP_SYS_ADMIN}

_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def drop_capabilities(keep: frozenset[int]) -> None:
    """Reduce permitted, effective and bounding sets to `keep`; clear inheritable; set no_new_privs."""
    for capability in range(_CAP_LAST + 1):
        if capability not in keep and _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # EINVAL: past the last one this kernel knows
    mask = sum(1 << capability for capability in keep)
    header = array.array("I", [_CAPABILITY_VERSION_3, 0])
    data = array.array("I")
    for word in (mask & 0xFFFFFFFF, mask >> 32):
        data.extend([word, word, 0])
    _checked(_libc.capset(_pointer(header), _pointer(data)), "capset")
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def _pointer(words: array.array[int]) -> ctypes.c_void_p:
    return ctypes.c_void_p(words.buffer_info()[0])


def confine(root_fd: int, keep: frozenset[int]) -> None:
    """Make `root_fd` the root of everything this process can name, and give up what the job does not need."""
    os.fchdir(root_fd)
    os.chroot(".")
    os.chdir("/")
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
        (resource.RLIMIT_AS, _MAX_MEMORY),
    ):
        hard = resource.getrlimit(kind)[1]
        bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (bound, bound))
    drop_capabilities(keep)


def isolate() -> None:
    """Enter a mount namespace with nothing but an empty read-only root, and a network namespace with nothing."""
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWNET)
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("none", "/proc", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC, "size=4k,mode=555")
    os.chdir("/proc")
    _checked(_libc.pivot_root(b".", b"."), "pivot_root")
    linux.umount(".", linux.MNT_DETACH)
    os.chdir("/")


def _watch(channel: socket.socket) -> None:
    """End the process when the daemon lets go of the channel; it sends nothing after the job."""
    with contextlib.suppress(OSError):
        channel.recv(1)
    os._exit(1)


def _job(request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    kind = request["kind"]
    if kind == "unpack":
        input_fd, root_fd, *rest = fds
        options = Options(**request["options"])
        jail_fd, blob_fd = (rest[0], None) if options.merge else (root_fd, rest[0] if rest else None)
        confine(jail_fd, EXTRACT_CAPABILITIES)
        result = asdict(unpack(input_fd, root_fd, blob_fd, options))
        if sum(map(len, result["opaque"])) > _MAX_OPAQUE_TEXT:
            raise ArchiveError("too many opaque directories in one layer")
        return result
    if kind == "pack":
        out_fd, root_fd = fds
        overlay = bool(request["overlay"])
        confine(root_fd, PACK_OVERLAY_CAPABILITIES if overlay else PACK_CAPABILITIES)
        packer = Packer(
            root_fd,
            out_fd,
            overlay=overlay,
            one_file_system=bool(request["one_file_system"]),
            hidden_devices=request["hidden_devices"],
            newest_ns=request["newest_ns"],
        )
        if request["name"] is None:
            return {"entries": packer.run()}
        name = os.fsencode(request["name"])
        if request["member"] is None:
            return {"entries": packer.run_as(name)}
        return {"entries": packer.run_member(os.fsencode(request["member"]), name)}
    if kind == "verify":
        blob_fd, root_fd = fds
        os.nice(_PATIENT)  # nobody waits for a check as for a start
        confine(root_fd, PACK_OVERLAY_CAPABILITIES)
        return verify(blob_fd, root_fd)
    if kind == "spool":
        input_fd, root_fd, data_fd, index_fd = fds
        confine(root_fd, frozenset())
        return spool(input_fd, data_fd, index_fd, is_own=bool(request["is_own"]))
    if kind == "compose":
        out_fd, root_fd, plan_fd, *sources = fds
        confine(root_fd, frozenset())
        return {"entries": compose(plan_fd, sources, out_fd)}
    raise ValueError(f"unknown job {kind!r}")


def _child(channel: socket.socket) -> NoReturn:
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        own = os.pidfd_open(os.getpid())
        socket.send_fds(channel, [b'{"ready":true}'], [own])
        os.close(own)
        data, fds, _, _ = socket.recv_fds(channel, MAX_MESSAGE, _MAX_FDS)
        if data:
            request = json.loads(data)
            if request.pop("user_namespace", False):
                _join(fds.pop())
            threading.Thread(target=_watch, args=(channel,), daemon=True).start()
            _reply(channel, _answer(request, fds))
            status = 0
    finally:
        os._exit(status)


def _join(user_fd: int) -> None:
    """Become the root of a container's user namespace, whose ids are then the ones an archive speaks of."""
    linux.setns(user_fd, linux.CLONE_NEWUSER)
    os.close(user_fd)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _reply(channel: socket.socket, answer: dict[str, Any]) -> None:
    try:
        channel.send(json.dumps(answer).encode())
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
        channel.send(json.dumps({"error": "too many opaque directories in one layer", "class": "archive"}).encode())


def _answer(request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    try:
        return {"result": _job(request, fds)}
    except ArchiveError as error:
        return {"error": str(error), "class": "archive"}
    except (MemoryError, RecursionError) as error:
        return {"error": f"archive needs more than a worker may use: {type(error).__name__}", "class": "archive"}
    except OSError as error:
        return {"error": error.strerror or str(error), "class": "full" if is_disk_full(error) else "os"}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "class": "internal"}


def serve(control: socket.socket) -> None:
    """Fork a child for each channel that comes in; return when the daemon is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel; the daemon watches pidfds
    while True:
        data, fds, _, _ = socket.recv_fds(control, 64, 1)
        if not data:
            return
        if not fds:
            continue
        channel = socket.socket(fileno=fds[0])
        if os.fork() == 0:
            control.close()
            _child(channel)
        channel.close()


def main() -> None:
    """The zygote. argv[1] is the number of its control socket."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0)
    isolate()
    # Nothing can be loaded from the empty root later: touch what is loaded on first use.
    "x".encode("ascii").decode("utf-8", "backslashreplace")
    json.dumps({"a": [1.5, None]})
    control.send(b"up")
    serve(control)


if __name__ == "__main__":
    main()
