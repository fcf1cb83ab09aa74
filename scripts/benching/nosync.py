"""Become a command for which syncs do nothing: a seccomp filter answers them instead of the kernel.

    nosync.py with|without COMMAND…

All children have the filter too, whatever their environment. `with` puts on one of the same kind about a system call
that nobody makes: what filtering costs, both pay. Standard library only, run with `python3 -IS`.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import sys
from collections.abc import Callable

SYNCS = ("fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "msync")
_NOTHING = ("lookup_dcookie",)
_ALLOW, _ERRNO_0, _NO_NEW_PRIVILEGES = 0x7FFF0000, 0x00050000, 3
_NO_FILE = 2**30  # larger than any descriptor


def put_on(names: tuple[str, ...]) -> None:
    """From now on these system calls do nothing and say that all went well, in this process and all it starts.

    Raises OSError.
    """
    library = ctypes.CDLL(ctypes.util.find_library("seccomp") or "libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ALLOW)))

    def call(function: Callable[..., int], *arguments: object) -> None:
        if (answer := function(context, *arguments)) < 0:
            raise OSError(-answer, f"seccomp: {os.strerror(-answer)}")

    call(library.seccomp_attr_set, _NO_NEW_PRIVILEGES, ctypes.c_uint32(0))
    for name in names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        call(library.seccomp_rule_add, ctypes.c_uint32(_ERRNO_0), number, 0)
    call(library.seccomp_load)


def is_on() -> bool:
    """Whether syncs do nothing: one of a descriptor there cannot be succeeds."""
    try:
        os.fsync(_NO_FILE)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return False
    return True


def main() -> None:
    """See the module."""
    kind, *argv = sys.argv[1:]
    put_on({"with": _NOTHING, "without": SYNCS}[kind])
    if is_on() != (kind == "without"):
        sys.exit("bench: the filter does not do what it should")
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main()
