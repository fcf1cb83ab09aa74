"""Compiling profiles: the filter is interpreted here, so that what it answers can be asked without a kernel."""

import ctypes
import ctypes.util
import platform
import struct

import pytest

from tare.base.errors import InvalidArgument
from tare.containers import capabilities, seccomp_profile
from tare.containers.seccomp_profile import Host
from tare.drivers import seccomp

pytestmark = pytest.mark.skipif(ctypes.util.find_library("seccomp") is None, reason="needs libseccomp2")

X86_64, I386 = 0xC000003E, 0x40000003
ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
READ, SOCKET, CLONE, CLONE3, PERSONALITY, MOUNT, IO_URING = 0, 41, 56, 435, 135, 165, 425
HOST = Host(machine="x86_64", kernel=(6, 1))


def answer(program, number, *args, arch=X86_64):
    """Run a classic BPF program on one system call."""
    data = struct.pack("=iIQ6Q", number if number < 1 << 31 else number - (1 << 32), arch, 0, *(args + (0,) * 6)[:6])
    at = value = 0
    while True:
        code, yes, no, k = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        match code:
            case 0x20:
                value = struct.unpack_from("=I", data, k)[0]
            case 0x54:
                value &= k
            case 0x05:
                at += k
            case 0x15:
                at += yes if value == k else no
            case 0x25:
                at += yes if value > k else no
            case 0x35:
                at += yes if value >= k else no
            case 0x06:
                return k
            case _:
                raise AssertionError(f"instruction {code:#x}")


@pytest.fixture(scope="module")
def default():
    section = seccomp_profile.resolve(seccomp_profile.DEFAULT, capabilities=capabilities.DEFAULT, host=HOST)
    return seccomp.compile_section(section)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ((READ,), ALLOW),
        ((MOUNT,), EPERM),
        ((IO_URING,), EPERM),
        ((SOCKET, 2), ALLOW),
        ((SOCKET, 38), EPERM),
        ((SOCKET, 39), ALLOW),
        ((SOCKET, 40), EPERM),
        ((SOCKET, 44), ALLOW),
        ((CLONE, 0x11), ALLOW),
        ((CLONE, 0x10000000), EPERM),
        ((CLONE, 0x02000000), EPERM),
        ((CLONE3,), ENOSYS),
        ((PERSONALITY, 0xFFFFFFFF), ALLOW),
        ((PERSONALITY, 0x20008), ALLOW),
        ((PERSONALITY, 4), EPERM),
        ((1000,), ENOSYS),
        ((0x40000000 + 5000,), EPERM),
    ],
)
def test_the_default_profile_answers(default, call, expected):
    assert answer(default, *call) == expected


def test_the_32_bit_table_has_its_own_numbers(default):
    assert answer(default, 3, arch=I386) == ALLOW  # read
    assert answer(default, 21, arch=I386) == EPERM  # mount
    assert answer(default, 2000, arch=I386) == ENOSYS
    assert answer(default, 0, arch=0xC00000B7) != ALLOW  # an architecture nobody named


def test_sys_admin_opens_mount():
    section = seccomp_profile.resolve(
        seccomp_profile.DEFAULT, capabilities=capabilities.DEFAULT | {"CAP_SYS_ADMIN"}, host=HOST
    )
    program = seccomp.compile_section(section)
    assert answer(program, MOUNT) == answer(program, CLONE3) == answer(program, CLONE, 0x10000000) == ALLOW


def section(*rules, default="SCMP_ACT_ALLOW", **more):
    return {"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": list(rules)} | more


def test_an_allowing_profile_lets_unknown_numbers_through():
    program = seccomp.compile_section(section({"names": ["mount", "no_such_call"], "action": "SCMP_ACT_ERRNO"}))
    assert answer(program, MOUNT) == EPERM
    assert answer(program, 1000) == ALLOW


def test_several_conditions_on_one_argument_are_alternatives():
    args = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (3, 5)]
    program = seccomp.compile_section(
        section({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": args}, default="SCMP_ACT_ERRNO")
    )
    assert [answer(program, PERSONALITY, value) for value in (3, 4, 5)] == [ALLOW, EPERM, ALLOW]


def test_what_a_filter_cannot_say_is_left_to_the_runtime():
    assert seccomp.compile_section(section(flags=["SECCOMP_FILTER_FLAG_LOG"])) is None
    assert seccomp.compile_section(section({"names": ["mount"], "action": "SCMP_ACT_NOTIFY"})) is None


def test_what_the_library_refuses_is_an_invalid_profile():
    rule = {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 9, "value": 0, "op": "SCMP_CMP_EQ"}]}
    with pytest.raises(InvalidArgument, match="cannot add the rule for mount"):
        seccomp.compile_section(section(rule))


def test_the_cache_keeps_files_and_distrusts_damaged_ones(tmp_path, monkeypatch):
    wanted = section({"names": ["mount"], "action": "SCMP_ACT_ERRNO"})
    program = seccomp.FilterCache(tmp_path / "c").get(wanted)
    [file] = (tmp_path / "c").iterdir()
    compiled = []
    real = seccomp.compile_section
    monkeypatch.setattr(seccomp, "compile_section", lambda given: compiled.append(1) or real(given))
    assert seccomp.FilterCache(tmp_path / "c").get(wanted) == program
    assert compiled == []
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    again = seccomp.FilterCache(tmp_path / "c")
    assert again.get(wanted) == again.get(wanted) == program
    assert compiled == [1]


# Every number of the native table, with no capability, with each alone, and with all: what the project's baseline says.

NEVER = frozenset(
    [
        "_sysctl",
        "add_key",
        "afs_syscall",
        "create_module",
        "get_kernel_syms",
        "getpmsg",
        "io_uring_enter",
        "io_uring_register",
        "io_uring_setup",
        "kexec_file_load",
        "kexec_load",
        "keyctl",
        "migrate_pages",
        "move_pages",
        "nfsservctl",
        "pivot_root",
        "putpmsg",
        "query_module",
        "request_key",
        "security",
        "swapoff",
        "swapon",
        "sysfs",
        "tuxcall",
        "uselib",
        "userfaultfd",
        "ustat",
        "vserver",
    ]
)
ONLY_WITH = {
    name: frozenset(f"CAP_{capability}" for capability in capabilities_.split("|"))
    for capabilities_, names in {
        "DAC_READ_SEARCH": "open_by_handle_at",
        "SYS_ADMIN": "fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount open_tree"
        " quotactl quotactl_fd setdomainname sethostname setns umount2 unshare",
        "SYS_ADMIN|BPF": "bpf",
        "SYS_ADMIN|PERFMON": "perf_event_open",
        "SYS_ADMIN|SYSLOG": "syslog",
        "SYS_BOOT": "reboot",
        "SYS_CHROOT": "chroot",
        "SYS_MODULE": "init_module finit_module delete_module",
        "SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
        "SYS_PACCT": "acct",
        "SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
        "SYS_RAWIO": "iopl ioperm",
        "SYS_TIME": "settimeofday clock_settime",
        "SYS_TTY_CONFIG": "vhangup",
    }.items()
    for name in names.split()
}
BY_ARGUMENT = frozenset({"clone", "clone3", "personality", "socket"})
LAST = 1 << 9


def names_of_numbers():
    """Number → name of the native table, as far as the library knows it."""
    library = seccomp._library()
    found = {}
    for number in range(LAST):
        raw = library.seccomp_syscall_resolve_num_arch(X86_64, number)
        if raw:
            found[number] = ctypes.string_at(raw).decode()
    return found


EVERYTHING = frozenset(capabilities.ALL)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86_64")
@pytest.mark.parametrize("given", [frozenset(), *(frozenset({name}) for name in capabilities.ALL), EVERYTHING])
def test_each_number_with_each_capability(given):
    section = seccomp_profile.resolve(seccomp_profile.DEFAULT, capabilities=given, host=HOST)
    program = seccomp.compile_section(section)
    names = names_of_numbers()
    assert len(names) > 340
    wrong = []
    for number in range(LAST):
        name = names.get(number)
        if name is None:
            expected = {ENOSYS, EPERM}  # a gap in the table, or newer than the library
        elif name in NEVER:
            expected = {EPERM, ENOSYS}
        elif name in BY_ARGUMENT:
            continue  # above
        elif name in ONLY_WITH:
            expected = {ALLOW} if ONLY_WITH[name] & given else {EPERM, ENOSYS}
        elif name.startswith("lsm_"):
            expected = {ALLOW} if "CAP_SYS_ADMIN" in given else {EPERM, ENOSYS}
        else:
            expected = {ALLOW, ENOSYS}
        if answer(program, number) not in expected:
            wrong.append((number, name, hex(answer(program, number))))
    assert wrong == []
