"""The default profile holds what the baseline promises, and users' profiles are read as Docker reads them."""

import json

import pytest

from tare.base.errors import InvalidArgument
from tare.containers import capabilities, seccomp_profile
from tare.containers.seccomp_profile import Host, parse, resolve

HOST = Host(machine="x86_64", kernel=(6, 1))


def allowed(section):
    """Names allowed whatever the arguments."""
    return {
        name
        for rule in section["syscalls"]
        if rule["action"].endswith("ALLOW") and "args" not in rule
        for name in rule["names"]
    }


def default(caps=capabilities.DEFAULT, host=HOST):
    return resolve(seccomp_profile.DEFAULT, capabilities=caps, host=host)


def test_everyday_calls_are_allowed_and_dangerous_ones_are_not():
    names = allowed(default())
    assert {"read", "openat2", "execve", "futex_waitv", "statx", "rseq", "chroot", "ptrace", "arch_prctl"} <= names
    assert not names & {"mount", "clone", "clone3", "unshare", "setns", "bpf", "perf_event_open", "reboot", "socket"}
    assert default()["defaultAction"] == "SCMP_ACT_ERRNO"
    assert default()["defaultErrnoRet"] == 1


@pytest.mark.parametrize("caps", [frozenset(), capabilities.DEFAULT, frozenset(capabilities.ALL)])
def test_some_calls_are_never_named(caps):
    named = {name for rule in default(caps)["syscalls"] for name in rule["names"]}
    assert not named & seccomp_profile.NEVER


def test_capabilities_open_their_calls():
    assert {"mount", "clone", "clone3", "bpf"} <= allowed(default(capabilities.DEFAULT | {"CAP_SYS_ADMIN"}))
    assert "settimeofday" in allowed(default({"CAP_SYS_TIME"}))
    assert "chroot" not in allowed(default(set()))


def test_clone_and_clone3_without_sys_admin():
    rules = {rule["names"][0]: rule for rule in default()["syscalls"] if rule["names"][0].startswith("clone")}
    assert rules["clone"]["args"] == [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
    assert rules["clone3"]["errnoRet"] == 38


def test_kernel_and_architecture_decide():
    assert "ptrace" not in allowed(default(host=Host(machine="x86_64", kernel=(4, 4))))
    arm = default(host=Host(machine="aarch64", kernel=(6, 1)))
    assert arm["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert "arch_prctl" not in allowed(arm)
    assert "cacheflush" in allowed(arm)


def test_no_name_twice_in_the_unconditional_list():
    names = seccomp_profile.DEFAULT.syscalls[0].names
    assert len(names) == len(set(names))


def test_a_users_profile():
    profile = parse(
        json.dumps(
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
                "syscalls": [
                    {"name": "mkdir", "action": "SCMP_ACT_ERRNO"},
                    {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                ],
            }
        )
    )
    section = resolve(profile, capabilities={"CAP_SYS_ADMIN"}, host=HOST)
    assert section["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert [rule["names"] for rule in section["syscalls"]] == [["mkdir"]]


def test_an_allowing_profile_without_rules_means_no_filter():
    assert resolve(parse('{"defaultAction": "SCMP_ACT_ALLOW"}'), capabilities=(), host=HOST) is None


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        '{"defaultAction": "NO_SUCH"}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "a", "names": ["b"], "action": "SCMP_ACT_ALLOW"}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "a", "action": "SCMP_ACT_ALLOW",'
        ' "args": [{"index": 9, "value": 0, "op": "SCMP_CMP_EQ"}]}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "a", "action": "SCMP_ACT_ALLOW",'
        ' "includes": {"minKernel": "x"}}]}',
    ],
)
def test_bad_profiles_are_refused(text):
    with pytest.raises(InvalidArgument):
        parse(text)
