"""The sandbox as the kernel sees it: a real crun (and runc) runs what `containers.spec` renders."""

from __future__ import annotations

import os
import shutil

import pytest

from tare.containers import capabilities, checks, seccomp_profile, spec
from tare.drivers import devices, seccomp
from tare.testing import bundles as util
from tare.wire.config import ContainerConfig, HostConfig, Ulimit

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="needs crun"),
]

RUNTIMES = [name for name in ("crun", "runc") if shutil.which(name)]


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory):
    return util.make_rootfs(tmp_path_factory.mktemp("root") / "fs")


@pytest.fixture
def run(rootfs, tmp_path):
    def run(script, *, runtime="crun", **options):
        given = util.spec_input(rootfs, ["/bin/sh", "-c", script], runtime=runtime, **options)
        done = util.run(given, tmp_path / "bundle", runtime=runtime)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    return run


def status(text):
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_capabilities_of_root(run, runtime):
    seen = status(run("cat /proc/self/status", runtime=runtime))
    assert {seen["CapBnd"], seen["CapPrm"], seen["CapEff"]} == {"00000000a80425fb"}
    assert {seen["CapInh"], seen["CapAmb"]} == {"0" * 16}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_capabilities_of_another_user(run, runtime):
    user = spec.User(uid=33, gid=33, additional_gids=(33, 29))
    seen = status(run("cat /proc/self/status", runtime=runtime, user=user))
    assert seen["CapBnd"] == "00000000a80425fb"
    assert {seen["CapPrm"], seen["CapEff"], seen["CapInh"], seen["CapAmb"]} == {"0" * 16}
    assert seen["Uid"].split() == ["33"] * 4
    assert set(seen["Groups"].split()) == {"33", "29"}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_only_three_descriptors(run, runtime):
    # The fourth is the directory being listed.
    assert len(run("ls /proc/self/fd", runtime=runtime).split()) == 4


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_masks_and_read_only_paths(run, runtime):
    script = "cat /proc/kcore /proc/keys; ls /proc/acpi /sys/firmware; echo x > /proc/sys/kernel/hostname || echo ro"
    assert run(f"({script}) 2>/dev/null", runtime=runtime).strip().endswith("ro")
    mounts = run("cat /proc/self/mounts", runtime=runtime)
    assert " /sys sysfs ro," in mounts
    assert " /proc/sys proc ro," in mounts


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_devices(run, runtime):
    names = set(run("ls /dev", runtime=runtime).split())
    assert {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "fd", "stdin", "stdout", "stderr"} <= names
    assert not any(name.startswith(("sd", "vd", "mem", "kmsg")) for name in names)
    script = "busybox mknod /tmp/disk b 254 0; cat /tmp/disk > /dev/null || echo refused; busybox rm /tmp/disk"
    assert "refused" in run(f"({script}) 2>/dev/null", runtime=runtime)
    assert run("echo gone > /dev/null; echo kept > /dev/full || echo full", runtime=runtime).strip() == "full"


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs fuse in the kernel")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_device_opens_only_when_it_was_handed_in(run, runtime):
    script = "busybox mknod /tmp/fuse c 10 229; (exec 3<>/tmp/fuse) 2>/dev/null && echo opened; busybox rm /tmp/fuse"
    assert run(script, runtime=runtime) == ""
    [(target, node)] = devices.expand("/dev/fuse", "/dev/other")
    plan = spec.DevicePlan(path=target, kind=node.kind, major=node.major, minor=node.minor)
    assert run("exec 3<>/dev/other && echo opened", runtime=runtime, devices=(plan,)) == "opened\n"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_identity_and_limits(run, runtime):
    config = ContainerConfig(Domainname="example.org")
    host = HostConfig(Memory=64 << 20, PidsLimit=32, NanoCpus=500_000_000, ShmSize=8 << 20, OomScoreAdj=100)
    script = (
        "hostname; cat /proc/sys/kernel/domainname /proc/self/oom_score_adj; umask; grep /dev/shm /proc/self/mounts;"
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max"
        " /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max"
    )
    lines = run(script, runtime=runtime, config=config, host_config=host).split("\n")
    assert lines[:4] == ["box", "example.org", "100", "0022"]
    assert "size=8192k" in lines[4]
    assert lines[5:7] == [str(64 << 20), "32"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_ulimits_are_cut_to_what_the_engine_can_give(run, runtime):
    host = HostConfig(Ulimits=[Ulimit(Name="nofile", Soft=500, Hard=10_000_000)])
    assert run("ulimit -n", runtime=runtime, host_config=host).strip() == "500"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_network_sysctls_in_a_namespace_the_runtime_makes(run, runtime):
    assert run("cat /proc/sys/net/ipv4/ip_unprivileged_port_start", runtime=runtime).strip() == "0"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_privileged(run, runtime):
    host = HostConfig(Privileged=True)
    seen = status(run("cat /proc/self/status", runtime=runtime, host_config=host))
    assert int(seen["CapEff"], 16) == capabilities.to_mask(util.FACTS.capabilities)
    assert " /sys sysfs rw," in run("cat /proc/self/mounts", runtime=runtime, host_config=host)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_read_only_root_tmpfs_and_binds(run, runtime, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "hosts").write_text("127.0.0.1 me\n")
    host = HostConfig(ReadonlyRootfs=True, Tmpfs={"/tmp": "size=1m,exec"})
    mounts = (spec.MountPlan(destination="/data", source=str(tmp_path / "data")),)
    script = "(echo x > /x) 2>/dev/null || echo ro; echo y > /data/y; cat /etc/hosts; grep ' /tmp ' /proc/self/mounts"
    files = spec.HostFiles(hosts=str(tmp_path / "hosts"))
    out = run(script, runtime=runtime, host_config=host, mounts=mounts, files=files)
    assert out.startswith("ro\n127.0.0.1 me\n")
    assert "size=1024k" in out
    assert "nosuid,nodev" in out
    assert "noexec" not in out.splitlines()[-1]
    assert (tmp_path / "data/y").read_text() == "y\n"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_hosts_namespaces(run, runtime):
    host = HostConfig(IpcMode="host", PidMode="host", UTSMode="host", NetworkMode="host")
    script = "for kind in ipc pid uts net; do busybox readlink /proc/self/ns/$kind; done; ls /dev/mqueue > /dev/null"
    out = run(script, runtime=runtime, host_config=host, namespaces=spec.Namespaces(network=None))
    assert out.split() == [os.readlink(f"/proc/self/ns/{kind}") for kind in ("ipc", "pid", "uts", "net")]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_no_new_privileges(run, runtime):
    host = HostConfig(SecurityOpt=["no-new-privileges"])
    assert status(run("cat /proc/self/status", runtime=runtime, host_config=host))["NoNewPrivs"] == "1"


@pytest.mark.skipif(shutil.which("docker-init") is None, reason="needs docker-init")
def test_init_is_the_first_process(run):
    assert "docker-init" in run("cat /proc/1/cmdline", init_path=os.path.realpath(shutil.which("docker-init")))


def test_the_engines_own_checks_accept_what_was_run_here():
    assert checks.validate(ContainerConfig(), HostConfig(), facts=util.FACTS) == []


def filtered(runtime, profile=seccomp_profile.DEFAULT, caps=capabilities.DEFAULT):
    host = seccomp_profile.Host(machine=util.FACTS.machine, kernel=util.FACTS.kernel)
    section = seccomp_profile.resolve(profile, capabilities=caps, host=host)
    return spec.Seccomp(section=section, bpf=seccomp.compile_section(section) if runtime == "crun" else None)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_seccomp_holds(run, runtime):
    script = "grep Seccomp: /proc/self/status; busybox unshare -U true 2>&1; busybox mount -t tmpfs x /tmp 2>&1; true"
    out = run(script, runtime=runtime, seccomp=filtered(runtime))
    assert out.startswith("Seccomp:\t2\n")
    assert "unshare: unshare(0x10000000): Operation not permitted" in out
    assert "Seccomp:\t0" in run(script, runtime=runtime)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_seccomp_of_a_user(run, runtime):
    profile = seccomp_profile.parse(
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}'
    )
    out = run("mkdir /tmp/x 2>&1 || echo refused", runtime=runtime, seccomp=filtered(runtime, profile))
    assert out == "mkdir: can't create directory '/tmp/x': Operation not permitted\nrefused\n"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_exec_is_in_the_same_sandbox(rootfs, tmp_path, runtime):
    host = HostConfig(SecurityOpt=["no-new-privileges"])
    given = util.spec_input(rootfs, ["/bin/sleep", "60"], runtime=runtime, host_config=host, seccomp=filtered(runtime))
    process = spec.render_process(
        argv=["/bin/sh", "-c", "cat /proc/self/status; ls /proc/self/fd"],
        env=["PATH=/bin"],
        cwd="/",
        user=spec.User(uid=33, gid=33, additional_gids=(33,)),
        tty=False,
        host=host,
        facts=util.FACTS,
        no_new_privileges=True,
    )
    done = util.run_exec(given, process, tmp_path / "bundle", runtime=runtime)
    assert done.returncode == 0, done.stderr
    seen = status(done.stdout.decode())
    assert (seen["Seccomp"], seen["NoNewPrivs"]) == ("2", "1")
    assert seen["CapBnd"] == "00000000a80425fb"
    assert {seen["CapPrm"], seen["CapEff"], seen["CapInh"], seen["CapAmb"]} == {"0" * 16}
    assert done.stdout.decode().split("\n")[-5:] == ["0", "1", "2", "3", ""]
