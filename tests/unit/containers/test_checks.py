"""Refusals and warnings read as dockerd's."""

import msgspec
import pytest

from tare.base.errors import InvalidArgument
from tare.containers import capabilities, checks
from tare.drivers.cgroups import CgroupMode
from tare.drivers.host import HostFacts
from tare.wire.config import (
    ContainerConfig,
    DeviceMapping,
    HealthConfig,
    HostConfig,
    PortBinding,
    RestartRule,
    Ulimit,
    WeightDevice,
)
from tare.wire.signals import parse_signal

FACTS = HostFacts(
    capabilities=frozenset(capabilities.ALL),
    cgroup_mode=CgroupMode.V1,
    controllers=frozenset({"memory", "cpu", "pids", "blkio"}),
    cpu_count=2,
    cpus="0-1",
)
MB = 1 << 20


def validate(config=None, facts=FACTS, **host):
    return checks.validate(config or ContainerConfig(), HostConfig(**host), facts=facts, runtimes=("crun", "runc"))


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"Memory": MB}, "Minimum memory limit allowed is 6MB"),
        ({"MemoryReservation": MB}, "Minimum memory reservation allowed is 6MB"),
        ({"Memory": 100 * MB, "MemorySwap": 50 * MB}, "Minimum memoryswap limit should be larger than memory limit"),
        ({"MemorySwap": 50 * MB}, "You should always set the Memory limit when using Memoryswap limit, see usage"),
        ({"Memory": 100 * MB, "MemoryReservation": 200 * MB}, "Minimum memory limit can not be less than memory res"),
        ({"MemorySwappiness": 101}, "Invalid value: 101, valid memory swappiness range is 0-100"),
        ({"NanoCpus": 99_000_000_000}, "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        ({"NanoCpus": 1, "CpuQuota": 5}, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
        ({"NanoCpus": 1, "CpuPeriod": 5}, "Conflicting options: Nano CPUs and CPU Period cannot both be set"),
        ({"CpuPeriod": 5}, "CPU cfs period can not be less than 1ms"),
        ({"CpuQuota": 5}, "CPU cfs quota can not be less than 1ms"),
        ({"CpuShares": -1}, "invalid CPU shares"),
        ({"CpusetCpus": "99"}, "Requested CPUs are not available - requested 99, available: 0-1"),
        ({"CpusetCpus": "x"}, "Invalid value x for cpuset cpus"),
        ({"CpusetMems": "9"}, "Requested memory nodes are not available - requested 9, available: 0"),
        ({"CpuRealtimeRuntime": 5}, "Your kernel does not support cgroup cpu real-time runtime"),
        ({"BlkioWeight": 5}, "Range of blkio weight is from 10 to 1000"),
        ({"BlkioWeightDevice": [WeightDevice(Path="/dev/x", Weight=1)]}, "Range of blkio weight is from 10 to 1000"),
        ({"ShmSize": -1}, "SHM size can not be less than 0"),
        ({"SecurityOpt": ["foo"]}, 'invalid --security-opt 1: "foo"'),
        ({"SecurityOpt": ["foo=bar"]}, 'invalid --security-opt 2: "foo=bar"'),
        ({"SecurityOpt": ["no-new-privileges=x"]}, 'invalid --security-opt 2: "no-new-privileges=x"'),
        ({"SecurityOpt": ["seccomp={"]}, "Decoding seccomp profile failed"),
        ({"CapAdd": ["FOO"]}, 'invalid CapAdd: unknown capability: "CAP_FOO"'),
        ({"Ulimits": [Ulimit(Name="foo")]}, "invalid ulimit type: foo"),
        ({"Ulimits": [Ulimit(Name="nofile", Soft=5, Hard=3)]}, "ulimit soft limit must be less than or equal"),
        ({"Devices": [DeviceMapping(PathOnHost="dev/x")]}, "not an absolute path"),
        ({"Devices": [DeviceMapping(PathOnHost="/dev/x", CgroupPermissions="q")]}, "invalid device mode: q"),
        ({"DeviceCgroupRules": ["foo"]}, "invalid device cgroup rule format: 'foo'"),
        ({"RestartPolicy": RestartRule(Name="foo")}, "invalid restart policy 'foo'"),
        ({"RestartPolicy": RestartRule(Name="always", MaximumRetryCount=1)}, "maximum retry count cannot be used"),
        ({"RestartPolicy": RestartRule(Name="on-failure", MaximumRetryCount=-1)}, "cannot be negative"),
        ({"RestartPolicy": RestartRule(Name="always"), "AutoRemove": True}, "can't create 'AutoRemove' container"),
        ({"OomScoreAdj": 2000}, "Invalid value 2000, range for oom score adj is"),
        ({"IpcMode": "foo"}, "invalid IPC mode: foo"),
        ({"PidMode": "foo"}, "invalid PID mode: foo"),
        ({"UTSMode": "foo"}, "invalid UTS mode: foo"),
        ({"CgroupnsMode": "foo"}, "invalid cgroup namespace mode: foo"),
        ({"Tmpfs": {"relative": ""}}, "invalid mount path: 'relative' mount path must be absolute"),
        ({"Tmpfs": {"/x": "foo"}}, r'invalid tmpfs option \["foo"\]'),
        ({"Runtime": "foo"}, "Unknown runtime specified foo"),
        ({"Isolation": "foo"}, "Invalid isolation: \"foo\" - linux only supports 'default'"),
        ({"ExtraHosts": ["foo"]}, 'bad format for add-host: "foo"'),
        ({"ExtraHosts": ["foo:bar"]}, 'invalid IP address in add-host: "bar"'),
        ({"Dns": ["foo"]}, "invalid IP address"),
        ({"NetworkMode": "host", "Sysctls": {"net.ipv4.ip_forward": "1"}}, "not allowed in host network namespace"),
        ({"Sysctls": {"kernel.panic": "1"}}, "not in a separate kernel namespace"),
        ({"Sysctls": {"net/../kernel/panic": "1"}}, "invalid sysctl"),
        ({"NetworkMode": "container:x", "Dns": ["1.1.1.1"]}, "conflicting options: dns and the network mode"),
        ({"NetworkMode": "container:"}, "invalid container format"),
        ({"NetworkMode": "host", "Links": ["a:b"]}, "host type networking can't be used with links"),
        ({"CgroupParent": "/../x"}, "invalid cgroup parent"),
    ],
)
def test_refusals_of_host_configs(host, message):
    with pytest.raises(InvalidArgument, match=message):
        validate(**host)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"WorkingDir": "rel"}, "the working directory 'rel' is invalid, it needs to be an absolute path"),
        ({"WorkingDir": "/a/../proc/self"}, "must not be below /proc"),
        ({"Env": ["=x"]}, "invalid environment variable: =x"),
        ({"StopSignal": "FOO"}, "Invalid signal: FOO"),
        ({"Healthcheck": HealthConfig(Interval=5)}, "Interval in Healthcheck cannot be less than 1ms"),
    ],
)
def test_refusals_of_configs(config, message):
    with pytest.raises(InvalidArgument, match=message):
        validate(ContainerConfig(**config))


def test_hostname_conflicts():
    with pytest.raises(InvalidArgument, match="hostname and the UTS mode"):
        validate(ContainerConfig(Hostname="x"), UTSMode="host")
    with pytest.raises(InvalidArgument, match="hostname and the network mode"):
        validate(ContainerConfig(Hostname="x"), NetworkMode="container:y")
    assert validate(ContainerConfig(Hostname="x"), NetworkMode="host") == []


@pytest.mark.parametrize(
    ("facts", "host", "beginning"),
    [
        ({}, {"OomKillDisable": True}, "OOM killer is disabled for the container, but no memory limit is set"),
        ({}, {"NetworkMode": "host", "PortBindings": {"80/tcp": [PortBinding()]}}, "Published ports are discarded"),
        ({}, {"KernelMemory": 100 * MB}, "Specifying a kernel memory limit is deprecated"),
        ({"has_blkio_weight": False}, {"BlkioWeight": 5}, "Your kernel does not support Block I/O weight"),
        ({"has_swap_limit": False}, {"Memory": 64 * MB}, "Your kernel does not support swap limit"),
        ({"controllers": frozenset()}, {"Memory": 64 * MB, "MemorySwap": -1}, "Your kernel does not support memory"),
        ({"controllers": frozenset()}, {"PidsLimit": 5}, "Your kernel does not support PIDs limit"),
        ({"cgroup_mode": CgroupMode.V2}, {"MemorySwappiness": 5}, "Your kernel does not support memory swappiness"),
        ({"cgroup_mode": CgroupMode.V2}, {"OomKillDisable": True}, "Your kernel does not support OomKillDisable"),
        (
            {"capabilities": capabilities.DEFAULT, "rlimits": {"nofile": (10, 100)}},
            {"Ulimits": [Ulimit(Name="nofile", Soft=200, Hard=300)]},
            "The engine cannot raise the hard limit nofile beyond 100",
        ),
    ],
)
def test_warnings(facts, host, beginning):
    changed = {field: getattr(FACTS, field) for field in FACTS.__slots__} | facts
    warnings = validate(facts=HostFacts(**changed), **host)
    assert len(warnings) == 1
    assert warnings[0].startswith(beginning)


def test_default_nofile_is_cut_silently():
    weak = HostFacts(capabilities=capabilities.DEFAULT, rlimits={"nofile": (1024, 20000)})
    assert checks.rlimits((), facts=weak) == ([{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 20000}], [])
    strong = HostFacts(capabilities=frozenset(capabilities.ALL), rlimits={"nofile": (1024, 20000)})
    assert checks.rlimits((), facts=strong)[0] == [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 524288}]


@pytest.mark.parametrize(
    ("text", "number"), [("TERM", 15), ("sigkill", 9), ("9", 9), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("RTMAX", 64)]
)
def test_signals(text, number):
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "RTMIN+99", "-1", "TERMX", "²"])
def test_bad_signals(text):
    with pytest.raises(InvalidArgument):
        parse_signal(text)


def test_adapt_writes_the_defaults_out():
    stored = checks.adapt(HostConfig(Memory=64 * MB, PidsLimit=0), facts=FACTS, default_runtime="crun")
    assert (stored.MemorySwap, stored.ShmSize, stored.IpcMode) == (128 * MB, 64 * MB, "private")
    assert (stored.NetworkMode, stored.Runtime, stored.CgroupnsMode) == ("bridge", "crun", "host")
    assert (stored.PidsLimit, stored.OomKillDisable, stored.RestartPolicy.Name) == (None, False, "no")
    assert "/proc/kcore" in stored.MaskedPaths
    assert checks.adapt(stored, facts=FACTS, default_runtime="runc") == stored


def test_adapt_leaves_privileged_unmasked_and_follows_old_versions():
    stored = checks.adapt(
        HostConfig(Privileged=True, MaskedPaths=["/x"]), facts=FACTS, default_runtime="crun", version=(1, 39)
    )
    assert (stored.MaskedPaths, stored.IpcMode) == (None, "shareable")
    v2 = msgspec.structs.replace(stored, CgroupnsMode="", Privileged=False)
    assert checks.adapt(v2, facts=HostFacts(), default_runtime="crun").CgroupnsMode == "private"


def test_tmpfs_options_keep_the_safe_ones_unless_overridden():
    assert checks.tmpfs_options("/x", "") == ["noexec", "nosuid", "nodev"]
    assert checks.tmpfs_options("/x", "exec,size=1m") == ["nosuid", "nodev", "exec", "size=1m"]
    with pytest.raises(InvalidArgument, match="destination can't be '/'"):
        checks.tmpfs_options("//", "")


def test_device_rules():
    assert checks.parse_device_rule("c 10:* rw") == {"allow": True, "type": "c", "access": "rw", "major": 10}
    assert checks.parse_device_rule("a *:* rwm") == {"allow": True, "type": "a", "access": "rwm"}


def test_security_options_in_both_spellings():
    parsed = checks.security_options(["no-new-privileges:true", "seccomp=unconfined", "apparmor=x", "label=disable"])
    assert (parsed.no_new_privileges, parsed.seccomp, parsed.apparmor, parsed.labels) == (
        True,
        "unconfined",
        "x",
        ("disable",),
    )
    assert checks.security_options(["seccomp=builtin"]).seccomp is None
