"""The seccomp profiles: our default one as data, the common JSON format for users' own, and their resolution.

A profile is a default action and rules; a rule may depend on the capabilities of the container, the architecture and
the kernel. `resolve` decides all of that and returns the `linux.seccomp` section of the OCI runtime specification.
Nothing here touches the kernel; `drivers/seccomp.py` compiles the result.
Source: seccomp(2), the syscall tables of Linux, runtime-spec config-linux.md "Seccomp".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from tare.base.errors import InvalidArgument


def _words(text: str) -> list[str]:
    return text.split()


ALLOW = "SCMP_ACT_ALLOW"
ERRNO = "SCMP_ACT_ERRNO"
EPERM = 1
ENOSYS = 38
MAX_PROFILE_BYTES = 1024 * 1024

_ACTIONS = frozenset(
    "SCMP_ACT_" + name for name in _words("ALLOW ERRNO KILL KILL_PROCESS KILL_THREAD LOG NOTIFY TRACE TRAP")
)
_OPERATORS = frozenset("SCMP_CMP_" + name for name in _words("NE LT LE EQ GE GT MASKED_EQ"))

ARCHITECTURES: Mapping[str, tuple[str, ...]] = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
"""Machine (as uname says) to its own and its 32-bit architectures, native first."""

_DOCKER_ARCH: Mapping[str, frozenset[str]] = {
    "x86_64": frozenset({"amd64", "x86", "x32"}),
    "aarch64": frozenset({"arm64", "arm"}),
}


class Argument(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison of one syscall argument; for MASKED_EQ `value` is the mask and `valueTwo` the result."""

    index: int
    value: int
    valueTwo: int = 0  # noqa: N815
    op: str = "SCMP_CMP_EQ"


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """When a rule holds. Empty parts do not restrict; `minKernel` reads `4.8`."""

    caps: list[str] | None = None
    arches: list[str] | None = None
    minKernel: str | None = None  # noqa: N815


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with some syscalls. All of `includes` must hold and none of `excludes`."""

    names: list[str] | None = None
    name: str | None = None
    action: str = ALLOW
    errnoRet: int | None = None  # noqa: N815
    args: list[Argument] | None = None
    includes: Condition | None = None
    excludes: Condition | None = None


class SubArchitectures(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `archMap`."""

    architecture: str
    subArchitectures: list[str] | None = None  # noqa: N815


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A profile in the common JSON format. Without `architectures` and `archMap` the native ones are meant."""

    defaultAction: str = ""  # noqa: N815
    defaultErrnoRet: int | None = None  # noqa: N815
    architectures: list[str] | None = None
    archMap: list[SubArchitectures] | None = None  # noqa: N815
    flags: list[str] | None = None
    syscalls: list[Rule] | None = None


class Host(Struct, frozen=True, kw_only=True):
    """What rules may depend on: machine as `uname -m` says, kernel as (major, minor)."""

    machine: str
    kernel: tuple[int, int]


_UNCONDITIONAL = _words(
    "_llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod "
    "chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime "
    "clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat "
    "dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait "
    "epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 "
    "fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl "
    "fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs "
    "fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake "
    "futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid "
    "geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid "
    "getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname "
    "getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init "
    "inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 "
    "io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset "
    "landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listxattr listxattrat llistxattr "
    "lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret "
    "mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify "
    "mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal "
    "msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat nice "
    "open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect "
    "poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 "
    "pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg "
    "recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 "
    "restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn "
    "rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max "
    "sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler "
    "sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam "
    "sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send "
    "sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid "
    "setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority "
    "setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid "
    "setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd "
    "signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statx symlink "
    "symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun "
    "timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime "
    "timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask "
    "uname unlink unlinkat utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write "
    "writev"
)
"""The syscall tables of x86_64, i386, aarch64 and arm, less what is never allowed, obsolete, or conditional below."""

NEVER = frozenset(
    _words(
        "_sysctl add_key afs_syscall create_module get_kernel_syms getpmsg io_uring_enter io_uring_register "
        "io_uring_setup kexec_file_load kexec_load keyctl migrate_pages move_pages nfsservctl pivot_root putpmsg "
        "query_module request_key security swapoff swapon sysfs tuxcall uselib userfaultfd ustat vserver vm86 "
        "vm86old bdflush break ftime gtty idle lock mpx prof profil stty ulimit oldfstat oldlstat oldstat "
        "oldolduname olduname readdir sgetmask ssetmask signal pciconfig_iobase pciconfig_read pciconfig_write"
    )
)
"""Refused whatever the capabilities: no rule below may name one of these."""

_CLONE_NAMESPACES = 0x7E020000
"""CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}."""

_WITH_CAPABILITY: Mapping[str, str] = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": (
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr "
        "lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl "
        "quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare"
    ),
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "init_module finit_module delete_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}


def _default_rules() -> list[Rule]:
    without_admin = Condition(caps=["CAP_SYS_ADMIN"])
    rules = [Rule(names=_UNCONDITIONAL)]
    rules += [
        Rule(names=["ptrace", "process_vm_readv", "process_vm_writev"], includes=Condition(minKernel="4.8")),
        Rule(names=["arch_prctl", "modify_ldt"], includes=Condition(arches=["amd64", "x32", "x86"])),
        Rule(
            names=[
                "arm_fadvise64_64",
                "arm_sync_file_range",
                "breakpoint",
                "cacheflush",
                "set_tls",
                "sync_file_range2",
            ],
            includes=Condition(arches=["arm", "arm64"]),
        ),
    ]
    rules += [
        Rule(names=["personality"], args=[Argument(index=0, value=value)])
        for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)
    ]
    # AF_ALG (38) is kernel code nobody in a container needs; AF_VSOCK (40) knows no namespaces and reaches the host.
    rules += [
        Rule(names=["socket"], args=[Argument(index=0, value=value, op=f"SCMP_CMP_{op}")])
        for op, value in (("LT", 38), ("EQ", 39), ("GT", 40))
    ]
    rules += [
        Rule(names=names.split(), includes=Condition(caps=[capability]))
        for capability, names in _WITH_CAPABILITY.items()
    ]
    rules += [
        Rule(
            names=["clone"],
            args=[Argument(index=0, value=_CLONE_NAMESPACES, valueTwo=0, op="SCMP_CMP_MASKED_EQ")],
            excludes=without_admin,
        ),
        # The flags of clone3 are behind a pointer, which a filter cannot follow: ENOSYS makes libraries use clone.
        Rule(names=["clone3"], action=ERRNO, errnoRet=ENOSYS, excludes=without_admin),
    ]
    return rules


DEFAULT = Profile(defaultAction=ERRNO, defaultErrnoRet=EPERM, syscalls=_default_rules())
"""The profile of every container that is neither privileged nor told otherwise."""


def parse(text: str | bytes) -> Profile:
    """Read a user's profile. Raises InvalidArgument (`Decoding seccomp profile failed: …`)."""
    raw = text.encode() if isinstance(text, str) else text
    if len(raw) > MAX_PROFILE_BYTES:
        raise InvalidArgument(f"Decoding seccomp profile failed: larger than {MAX_PROFILE_BYTES} bytes")
    try:
        profile = msgspec.json.decode(raw, type=Profile)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from None
    if profile.architectures and profile.archMap:
        raise InvalidArgument("both 'architectures' and 'archMap' are specified in the seccomp profile, use either one")
    _check_action(profile.defaultAction)
    for rule in profile.syscalls or ():
        _check_action(rule.action)
        if rule.name and rule.names:
            raise InvalidArgument("both 'name' and 'names' are specified in the seccomp profile, use either one")
        for argument in rule.args or ():
            if argument.op not in _OPERATORS or not 0 <= argument.index <= 5:
                raise InvalidArgument(f"invalid seccomp argument filter: index {argument.index}, op {argument.op!r}")
            if not (0 <= argument.value < 1 << 64 and 0 <= argument.valueTwo < 1 << 64):
                raise InvalidArgument("invalid seccomp argument filter: value is not an unsigned 64-bit number")
        for condition in (rule.includes, rule.excludes):
            if condition is not None and condition.minKernel:
                _kernel(condition.minKernel)
    return profile


def resolve(profile: Profile, *, capabilities: Collection[str], host: Host) -> dict[str, Any] | None:
    """The `linux.seccomp` section for a container with these bounding capabilities on this host.

    None when the profile has neither a default action nor rules, which means: no filter.
    """
    if not profile.syscalls and profile.defaultAction in ("", ALLOW):
        return None
    section: dict[str, Any] = {"defaultAction": profile.defaultAction}
    if profile.defaultErrnoRet is not None:
        section["defaultErrnoRet"] = profile.defaultErrnoRet
    section["architectures"] = _architectures(profile, host)
    if profile.flags:
        section["flags"] = list(profile.flags)
    section["syscalls"] = [
        _oci_rule(rule) for rule in profile.syscalls or () if _holds(rule, capabilities=capabilities, host=host)
    ]
    return section


def _oci_rule(rule: Rule) -> dict[str, Any]:
    out: dict[str, Any] = {"names": list(rule.names or ([rule.name] if rule.name else [])), "action": rule.action}
    if rule.errnoRet is not None:
        out["errnoRet"] = rule.errnoRet
    if rule.args:
        out["args"] = [{"index": a.index, "value": a.value, "valueTwo": a.valueTwo, "op": a.op} for a in rule.args]
    return out


def _holds(rule: Rule, *, capabilities: Collection[str], host: Host) -> bool:
    arches = _DOCKER_ARCH.get(host.machine, frozenset({host.machine}))
    # Several capabilities in `includes` must all be there; a single one in `excludes` is enough.
    if (wanted := rule.includes) is not None:
        if wanted.arches and not arches & set(wanted.arches):
            return False
        if wanted.caps and not all(name in capabilities for name in wanted.caps):
            return False
        if wanted.minKernel and host.kernel < _kernel(wanted.minKernel):
            return False
    if (unwanted := rule.excludes) is not None:
        if unwanted.arches and arches & set(unwanted.arches):
            return False
        if unwanted.caps and any(name in capabilities for name in unwanted.caps):
            return False
        if unwanted.minKernel and host.kernel >= _kernel(unwanted.minKernel):
            return False
    return True


def _architectures(profile: Profile, host: Host) -> list[str]:
    if profile.architectures:
        return list(profile.architectures)
    native = ARCHITECTURES.get(host.machine, (f"SCMP_ARCH_{host.machine.upper()}",))
    for line in profile.archMap or ():
        if line.architecture == native[0]:
            return [line.architecture, *(line.subArchitectures or ())]
    return list(native)


def _check_action(action: str) -> None:
    if action not in _ACTIONS:
        raise InvalidArgument(f"invalid seccomp action: {action!r}")


def _kernel(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    if not (major.isascii() and major.isdecimal() and minor.isascii() and minor.isdecimal()):
        raise InvalidArgument(f"invalid kernel version {text!r}: it should read like 4.8")
    return int(major), int(minor)
