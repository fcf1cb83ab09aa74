"""The rendered specification, part by part."""

import base64

import msgspec
import pytest

from tare.base.errors import InvalidArgument
from tare.containers import capabilities, checks, spec
from tare.drivers.cgroups import CgroupMode
from tare.drivers.host import HostFacts
from tare.wire.config import ContainerConfig, HostConfig, Mount, ThrottleDevice, TmpfsMountOptions

FACTS = HostFacts(
    capabilities=frozenset(capabilities.ALL),
    cgroup_mode=CgroupMode.V1,
    controllers=frozenset({"memory", "cpu", "pids", "blkio"}),
    thermal_throttle=("/sys/devices/system/cpu/cpu0/thermal_throttle",),
)
GIVEN = spec.SpecInput(
    id="c" * 64,
    config=ContainerConfig(),
    host=HostConfig(),
    argv=["sleep", "1"],
    env=["A=b"],
    cwd="/",
    user=spec.User(),
    hostname="box",
    rootfs="/root/fs",
    facts=FACTS,
    cgroup_path="/tare/x",
)


def render(config=None, host=None, **changes):
    base = {"config": ContainerConfig(**(config or {})), "host": HostConfig(**(host or {}))}
    return spec.render(msgspec.structs.replace(GIVEN, **(base | changes)))


def mounts(rendered):
    return {mount["destination"]: mount for mount in rendered["mounts"]}


def test_process():
    process = render()["process"]
    assert process["args"] == ["sleep", "1"]
    assert process["env"] == ["A=b"]
    assert set(process["capabilities"]["bounding"]) == capabilities.DEFAULT
    assert process["capabilities"]["effective"] == process["capabilities"]["bounding"]
    assert process["capabilities"]["inheritable"] == process["capabilities"]["ambient"] == []
    assert process["user"]["umask"] == 0o022
    assert not process["noNewPrivileges"]


def test_another_user_starts_with_nothing_in_hand():
    held = render(user=spec.User(uid=33))["process"]["capabilities"]
    assert held["effective"] == held["permitted"] == []
    assert set(held["bounding"]) == capabilities.DEFAULT


def test_an_exec_may_be_privileged():
    process = spec.render_process(
        argv=["x"],
        env=[],
        cwd="/",
        user=spec.User(),
        tty=True,
        host=HostConfig(),
        facts=FACTS,
        privileged=True,
        console_size=(24, 80),
    )
    assert set(process["capabilities"]["effective"]) == set(capabilities.ALL)
    assert process["consoleSize"] == {"height": 24, "width": 80}


def test_standard_mounts_are_those_of_the_baseline():
    found = {target: (m["type"], " ".join(m["options"])) for target, m in mounts(render()).items()}
    assert found == {
        "/proc": ("proc", "nosuid noexec nodev"),
        "/dev": ("tmpfs", "nosuid strictatime mode=755 size=65536k"),
        "/dev/pts": ("devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
        "/sys": ("sysfs", "nosuid noexec nodev ro"),
        "/sys/fs/cgroup": ("cgroup", "nosuid noexec nodev relatime ro"),
        "/dev/mqueue": ("mqueue", "nosuid noexec nodev"),
        "/dev/shm": ("tmpfs", "nosuid noexec nodev mode=1777 size=67108864"),
    }


def test_a_users_mount_replaces_ours_and_parents_come_first():
    plans = (
        spec.MountPlan(destination="/data/inner", source="/b"),
        spec.MountPlan(destination="/data/", source="/a", options=("ro",), propagation="rslave"),
        spec.MountPlan(destination="/dev/shm", source="/c"),
        spec.MountPlan(destination="/etc/hosts", source="/d"),
    )
    rendered = render(mounts=plans, files=spec.HostFiles(hosts="/h", resolv_conf="/r"))
    order = [m["destination"] for m in rendered["mounts"]]
    assert order.index("/data") < order.index("/data/inner")
    assert order.count("/dev/shm") == order.count("/etc/hosts") == 1
    assert mounts(rendered)["/data"]["options"] == ["rbind", "ro", "rslave"]
    assert mounts(rendered)["/data/inner"]["options"] == ["rbind", "rprivate"]
    assert mounts(rendered)["/etc/hosts"]["source"] == "/d"
    assert mounts(rendered)["/etc/resolv.conf"]["source"] == "/r"
    assert rendered["linux"]["rootfsPropagation"] == "rslave"
    assert "rootfsPropagation" not in render()["linux"]


def test_tmpfs_of_both_kinds():
    wanted = Mount(Type="tmpfs", Target="/b", ReadOnly=True, TmpfsOptions=TmpfsMountOptions(SizeBytes=4096, Mode=0o700))
    found = mounts(render(host={"Tmpfs": {"/a": "exec"}, "Mounts": [wanted]}))
    assert found["/a"]["options"] == ["nosuid", "nodev", "exec"]
    assert found["/b"]["options"] == ["noexec", "nosuid", "nodev", "mode=700", "size=4096", "ro"]
    with pytest.raises(InvalidArgument, match="Source must not be specified"):
        render(host={"Mounts": [Mount(Type="tmpfs", Target="/b", Source="/x")]})


def test_init_comes_before_the_command():
    rendered = render(init_path="/usr/bin/docker-init")
    assert rendered["process"]["args"] == ["/sbin/docker-init", "--", "sleep", "1"]
    assert mounts(rendered)["/sbin/docker-init"]["options"] == ["bind", "ro", "rprivate"]


@pytest.mark.parametrize(
    ("host", "namespaces", "expected"),
    [
        ({}, {}, ["mount", "network", "uts", "pid", "ipc"]),
        ({"PidMode": "host", "IpcMode": "host", "UTSMode": "host"}, {"network": None}, ["mount"]),
        ({"CgroupnsMode": "private", "IpcMode": "shareable"}, {}, ["mount", "network", "uts", "pid", "ipc", "cgroup"]),
    ],
)
def test_namespaces(host, namespaces, expected):
    rendered = render(host=host, namespaces=spec.Namespaces(**namespaces))
    assert [entry["type"] for entry in rendered["linux"]["namespaces"]] == expected


def test_joined_namespaces_need_a_path():
    joined = spec.Namespaces(network="/proc/1/ns/net", ipc="/proc/1/ns/ipc", pid="/proc/1/ns/pid")
    entries = render(host={"IpcMode": "container:x", "PidMode": "container:x"}, namespaces=joined)
    assert {"type": "pid", "path": "/proc/1/ns/pid"} in entries["linux"]["namespaces"]
    with pytest.raises(InvalidArgument, match="cannot join the pid namespace of container:x"):
        render(host={"PidMode": "container:x"})


def test_hostname_and_domain():
    rendered = render(config={"Domainname": "example.org"})
    assert rendered["hostname"] == "box"
    assert rendered["linux"]["sysctl"]["kernel.domainname"] == "example.org"
    assert "hostname" not in render(host={"UTSMode": "host"})


def test_network_sysctls_only_for_a_namespace_the_runtime_makes():
    assert render()["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"] == "0"
    assert render(namespaces=spec.Namespaces(network="/x"))["linux"]["sysctl"] == {}
    asked = render(host={"Sysctls": {"net.ipv4.ip_forward": "1"}}, namespaces=spec.Namespaces(network="/x"))
    assert asked["linux"]["sysctl"] == {"net.ipv4.ip_forward": "1"}


def test_masks():
    linux = render()["linux"]
    assert linux["maskedPaths"] == [*checks.MASKED_PATHS, "/sys/devices/system/cpu/cpu0/thermal_throttle"]
    assert linux["readonlyPaths"] == list(checks.READONLY_PATHS)
    assert render(host={"MaskedPaths": [], "ReadonlyPaths": []})["linux"]["maskedPaths"] == []


def test_privileged_lifts_everything():
    rendered = render(host={"Privileged": True, "MaskedPaths": ["/x"]})
    assert rendered["linux"]["maskedPaths"] == rendered["linux"]["readonlyPaths"] == []
    assert rendered["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "ro" not in mounts(rendered)["/sys"]["options"]
    assert "ro" not in mounts(rendered)["/sys/fs/cgroup"]["options"]
    assert not spec.wants_seccomp(HostConfig(Privileged=True))


def test_device_rules_deny_first():
    device = spec.DevicePlan(path="/dev/fuse", kind="c", major=10, minor=229)
    rules = render(devices=(device,), host={"DeviceCgroupRules": ["b 8:* r"]})["linux"]["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert {"allow": True, "type": "c", "access": "m"} in rules
    assert {"allow": True, "type": "c", "major": 136, "access": "rwm"} in rules
    denied = {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"}
    assert rules.index(denied) < rules.index(denied | {"allow": True})
    assert rules[-1] == {"allow": True, "type": "b", "access": "r", "major": 8}


def test_resources():
    host = {
        "Memory": 1 << 27,
        "MemoryReservation": 1 << 26,
        "NanoCpus": 1_500_000_000,
        "CpuShares": 512,
        "CpusetCpus": "0",
        "PidsLimit": 10,
        "OomKillDisable": True,
        "BlkioWeight": 300,
        "BlkioDeviceReadBps": [ThrottleDevice(Path="/dev/sda", Rate=1000)],
    }
    found = render(host=host, block_devices={"/dev/sda": (8, 0)})["linux"]["resources"]
    assert found["memory"] == {
        "limit": 1 << 27,
        "reservation": 1 << 26,
        "swap": 1 << 28,
        "disableOOMKiller": True,
    }
    assert found["cpu"] == {"shares": 512, "period": 100000, "quota": 150000, "cpus": "0"}
    assert found["pids"] == {"limit": 10}
    assert found["blockIO"] == {
        "weight": 300,
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}],
    }
    with pytest.raises(InvalidArgument, match="no such block device: /dev/sda"):
        render(host=host)


def test_limits_the_host_cannot_keep_are_left_out():
    weak = HostFacts(controllers=frozenset(), has_swap_limit=False, has_blkio_weight=False, has_cpu_quota=False)
    host = HostConfig(Memory=1 << 27, PidsLimit=5, BlkioWeight=100, CpuQuota=5000)
    assert spec.resources(host, facts=weak) == {}


def test_seccomp_as_each_runtime_takes_it():
    both = spec.Seccomp(section={"defaultAction": "SCMP_ACT_ERRNO"}, bpf=b"\x01\x02")
    with_crun = render(seccomp=both, host={"Annotations": {"a": "b"}})
    assert base64.b64decode(with_crun["annotations"][spec.BPF_ANNOTATION]) == b"\x01\x02"
    assert with_crun["annotations"]["a"] == "b"
    assert "seccomp" not in with_crun["linux"]
    with_runc = render(seccomp=both, runtime="runc")
    assert with_runc["linux"]["seccomp"] == {"defaultAction": "SCMP_ACT_ERRNO"}
    assert with_runc["annotations"] == {}


def test_cgroup_v2():
    facts = msgspec.structs.replace(FACTS, cgroup_mode=CgroupMode.V2)
    rendered = render(facts=facts, host={"OomKillDisable": True, "Memory": 1 << 27})
    assert mounts(rendered)["/sys/fs/cgroup"]["type"] == "cgroup2"
    assert {"type": "cgroup"} in rendered["linux"]["namespaces"]
    assert "disableOOMKiller" not in rendered["linux"]["resources"]["memory"]


def test_ipc_modes():
    assert mounts(render(host={"IpcMode": "host"}))["/dev/shm"]["source"] == "/dev/shm"
    assert "/dev/shm" not in mounts(render(host={"IpcMode": "none"}))
    assert mounts(render(shm_path="/run/shm"))["/dev/shm"]["source"] == "/run/shm"


def test_no_new_privileges_own_word_first():
    host = HostConfig(SecurityOpt=["no-new-privileges=false"])
    assert not spec.has_no_new_privileges(host, default=True)
    assert spec.has_no_new_privileges(HostConfig(), default=True)
    assert render(host={"SecurityOpt": ["no-new-privileges"]})["process"]["noNewPrivileges"]


def test_an_annotation_of_the_user_cannot_replace_the_filter():
    bpf = spec.Seccomp(bpf=b"real")
    rendered = render(seccomp=bpf, host={"Annotations": {spec.BPF_ANNOTATION: "Zm9v"}})
    assert base64.b64decode(rendered["annotations"][spec.BPF_ANNOTATION]) == b"real"
    assert spec.BPF_ANNOTATION not in render(host={"Annotations": {spec.BPF_ANNOTATION: "Zm9v"}})["annotations"]


def test_a_user_namespace_is_joined_before_the_others():
    space = spec.UserNamespace(path="/proc/1/fd/9", uids=((1000, 5), (3000, 10)), gids=((2000, 7),))
    linux = render(user_namespace=space)["linux"]
    assert linux["namespaces"][0] == {"type": "user", "path": "/proc/1/fd/9"}
    assert linux["uidMappings"] == [
        {"containerID": 0, "hostID": 1000, "size": 5},
        {"containerID": 5, "hostID": 3000, "size": 10},
    ]
    assert linux["gidMappings"] == [{"containerID": 0, "hostID": 2000, "size": 7}]
    assert "uidMappings" not in render()["linux"]
