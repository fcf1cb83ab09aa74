"""Compile the `linux.seccomp` section to the kernel's filter language, in this process, once per profile.

A runtime that compiles the default profile needs 14 to 19 ms at every start; handed the result (crun's annotation
`run.oci.seccomp_bpf_data`) it needs one. What was compiled is kept in memory and in a directory:

    <directory>/<sha256 of section, library version and form>      32 bytes sha256 of the rest, then the filter

Promise: a file that is damaged or from another library is never used. Numbers of system calls newer than the library
knows answer ENOSYS, so that programs fall back instead of failing.
Source: seccomp(2), seccomp_rule_add(3), seccomp_export_bpf(3), Linux linux/filter.h.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from tare.base.errors import InternalError, InvalidArgument, Unavailable

_FORM = b"2"
_MAX_INSTRUCTIONS = 4096
_INSTRUCTION = struct.Struct("=HBBI")

_ACTIONS: Mapping[str, int] = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_WITH_ERRNO = frozenset({"SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"})
_PERMISSIVE = frozenset({"SCMP_ACT_ALLOW", "SCMP_ACT_LOG"})
_OPERATORS: Mapping[str, int] = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_ATTRIBUTE_OPTIMIZE = 8
_OPTIMIZE_BINARY_TREE = 2
_EPERM = 1
_ENOSYS = 38
_UNKNOWN_SYSCALL = -1
_ARCH_NATIVE = 0
_AUDIT_ARCH_X86_64 = 0xC000003E
_X32_BIT = 0x40000000
_SCAN = 1024
"""More system calls than any table has."""

# linux/filter.h
_LOAD_WORD = 0x20
_JUMP_EQUAL = 0x15
_JUMP_GREATER = 0x25
_JUMP_GREATER_EQUAL = 0x35
_RETURN = 0x06
_OFFSET_NUMBER = 0
_OFFSET_ARCH = 4


class _Comparison(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise Unavailable("libseccomp is missing", hint="apt install libseccomp2") from None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_release.restype = None
    library.seccomp_arch_native.restype = ctypes.c_uint32
    library.seccomp_arch_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_arch_exist.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_syscall_resolve_num_arch.argtypes = [ctypes.c_uint32, ctypes.c_int]
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    ]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_version.restype = ctypes.POINTER(_Version)
    return library


def library_version() -> str:
    """`2.5.4`. Raises Unavailable where there is no libseccomp."""
    version = _library().seccomp_version().contents
    return f"{version.major}.{version.minor}.{version.micro}"


def compile_section(section: Mapping[str, Any]) -> bytes | None:
    """The filter (an array of `struct sock_filter`) for an OCI seccomp section.

    None when a filter alone cannot say what is asked (notifications, filter flags): the runtime must compile then.
    Names the library does not know are skipped, as all runtimes do. Raises InvalidArgument, Unavailable.
    """
    rules: Sequence[Mapping[str, Any]] = section.get("syscalls") or ()
    actions = [section["defaultAction"], *(rule["action"] for rule in rules)]
    if section.get("flags") or any(action not in _ACTIONS for action in actions):
        return None
    library = _library()
    default = _action(section["defaultAction"], section.get("defaultErrnoRet"))
    context = library.seccomp_init(default)
    if not context:
        raise InternalError("libseccomp cannot make a filter")
    try:
        architectures = _set_architectures(library, context, section.get("architectures") or ())
        _check(library.seccomp_attr_set(context, _ATTRIBUTE_OPTIMIZE, _OPTIMIZE_BINARY_TREE), "optimize the filter")
        for rule in rules:
            _add_rule(library, context, rule, default=default)
        program = _export(library, context)
    finally:
        library.seccomp_release(context)
    if section["defaultAction"] not in _PERMISSIVE:
        program = _unknown_is_enosys(architectures) + program
    if len(program) > _MAX_INSTRUCTIONS * _INSTRUCTION.size:
        raise InvalidArgument("the seccomp profile is too large for the kernel")
    return program


def _action(name: str, errno_value: int | None) -> int:
    base = _ACTIONS[name]
    if name in _WITH_ERRNO:
        return base | ((_EPERM if errno_value is None else errno_value) & 0xFFFF)
    return base


def _set_architectures(library: ctypes.CDLL, context: int, names: Sequence[str]) -> list[int]:
    """Replace the native architecture by those named; one the library does not know is skipped."""
    native = int(library.seccomp_arch_native())
    tokens: list[int] = []
    for name in names:
        short = name.removeprefix("SCMP_ARCH_").lower().encode()
        token = int(library.seccomp_arch_resolve_name(short))
        if token:
            tokens.append(native if token == _ARCH_NATIVE else token)
    if not tokens:
        return [native]
    for token in tokens:
        if library.seccomp_arch_exist(context, token) != 0:
            _check(library.seccomp_arch_add(context, token), "add an architecture")
    if native not in tokens:
        _check(library.seccomp_arch_remove(context, native), "remove the native architecture")
    return tokens


def _add_rule(library: ctypes.CDLL, context: int, rule: Mapping[str, Any], *, default: int) -> None:
    action = _action(rule["action"], rule.get("errnoRet"))
    if action == default:
        return  # the library refuses a rule that changes nothing
    comparisons = [
        _Comparison(item["index"], _OPERATORS[item["op"]], item["value"], item.get("valueTwo", 0))
        for item in rule.get("args") or ()
    ]
    indices = [comparison.arg for comparison in comparisons]
    # Several conditions on one argument mean "any of them"; on different arguments "all of them".
    alternatives = [[c] for c in comparisons] if len(indices) != len(set(indices)) else [comparisons]
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == _UNKNOWN_SYSCALL:
            continue
        for conditions in alternatives:
            array = (_Comparison * len(conditions))(*conditions)
            result = library.seccomp_rule_add_array(context, action, number, len(conditions), array)
            _check(result, f"add the rule for {name}")


def _check(result: int, what: str) -> None:
    if result < 0:
        raise InvalidArgument(f"invalid seccomp profile: cannot {what}: {os.strerror(-result).lower()}")


def _export(library: ctypes.CDLL, context: int) -> bytes:
    fd = os.memfd_create("seccomp")
    try:
        _check(library.seccomp_export_bpf(context, fd), "compile the filter")
        return os.pread(fd, (_MAX_INSTRUCTIONS + 1) * _INSTRUCTION.size, 0)
    finally:
        os.close(fd)


def _unknown_is_enosys(architectures: Sequence[int]) -> bytes:
    """Instructions to stand before the filter: a number above all the library knows answers ENOSYS.

    They fall through to the filter with nothing changed but the accumulator, which it loads first anyway.
    """
    out = b""
    for token in architectures:
        newest = _newest_number(token)
        if newest is None:
            continue
        # x32 uses the architecture of x86_64 with a bit in the number; those are left to the filter.
        guard = [_INSTRUCTION.pack(_JUMP_GREATER_EQUAL, 2, 0, _X32_BIT)] if token == _AUDIT_ARCH_X86_64 else []
        body = [
            _INSTRUCTION.pack(_LOAD_WORD, 0, 0, _OFFSET_NUMBER),
            *guard,
            _INSTRUCTION.pack(_JUMP_GREATER, 0, 1, newest),
            _INSTRUCTION.pack(_RETURN, 0, 0, _ACTIONS["SCMP_ACT_ERRNO"] | _ENOSYS),
        ]
        out += _INSTRUCTION.pack(_LOAD_WORD, 0, 0, _OFFSET_ARCH)
        out += _INSTRUCTION.pack(_JUMP_EQUAL, 0, len(body), token) + b"".join(body)
    return out


@cache
def _newest_number(token: int) -> int | None:
    library = _library()
    libc = ctypes.CDLL(None)
    libc.free.argtypes = [ctypes.c_void_p]
    newest: int | None = None
    for number in range(_SCAN):
        name = library.seccomp_syscall_resolve_num_arch(token, number)
        if name:
            newest = number
            libc.free(name)
    return newest


class FilterCache:
    """Compiled filters by profile. `get` blocks for some 15 ms the first time a profile is seen, then not at all.

    Safe to call from several threads; the work is done once.
    """

    def __init__(self, directory: Path) -> None:
        """directory: made on first use, mode 0700."""
        self._directory = directory
        self._memory: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def get(self, section: Mapping[str, Any]) -> bytes | None:
        """As `compile_section`."""
        document = msgspec.json.encode(section, order="sorted")
        key = hashlib.sha256(b"\0".join((_FORM, library_version().encode(), document))).hexdigest()
        with self._lock:
            if key in self._memory:
                return self._memory[key]
            program = self._load(key)
            if program is None:
                program = compile_section(section)
                if program is None:
                    return None
                self._save(key, program)
            self._memory[key] = program
            return program

    def _load(self, key: str) -> bytes | None:
        try:
            data = (self._directory / key).read_bytes()
        except OSError:
            return None
        program = data[32:]
        if not program or len(program) % _INSTRUCTION.size or hashlib.sha256(program).digest() != data[:32]:
            return None
        return program

    def _save(self, key: str, program: bytes) -> None:
        """Written beside and renamed: a reader sees a whole file or none."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._directory, delete=False) as file:
                file.write(hashlib.sha256(program).digest() + program)
            os.rename(file.name, self._directory / key)
        except OSError as error:
            raise InternalError(f"cannot keep a compiled filter in {self._directory}: {error.strerror}") from None
