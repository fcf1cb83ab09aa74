"""The flags of `docker run`, each with what the kernel must show of it and what inspect must say.

Words in capitals between @ are put in by the test: @DIR@ a directory, @OTHER@ a running container, @NET@ a network,
@DISK@ a block device.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_CAPS = 0xA80425FB
NET_ADMIN, MKNOD, CHOWN = 1 << 12, 1 << 27, 1 << 0
MEMORY = 64 * 1024 * 1024
BOTH = ("crun", "runc")
ONE: tuple[str, ...] = ("",)
DISK = next(
    (f"/dev/{n}" for n in ("vda", "sda", "nvme0n1", "xvda", "loop0") if Path(f"/dev/{n}").is_block_device()), ""
)
DISK_NUMBER = f"{os.major(os.stat(DISK).st_rdev)}:{os.minor(os.stat(DISK).st_rdev)}" if DISK else ""
CPUS = os.cpu_count() or 1
ROOT_GROUP = Path("/sys/fs/cgroup")

Look = Callable[[Any], object]


@dataclass(frozen=True)
class Case:
    """Flags, what to look at, what must be there. said: dotted paths of inspect. warns: what stderr must contain."""

    words: tuple[str, ...]
    look: Look
    expected: object
    said: Mapping[str, object] = field(default_factory=dict)
    warns: str = ""
    runtimes: Sequence[str] = ONE
    command: tuple[str, ...] = ("sleep", "1000")


def caps(box: Any) -> object:
    """Inheritable, permitted, effective, bounding, ambient."""
    return tuple(int(value, 16) for value in box.status("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))


def root_caps(mask: int) -> object:
    return (0, mask, mask, mask, 0)


def group(controller: str, *files: str) -> Look:
    return lambda box: tuple(box.cgroup(controller, file) for file in files)


def env(*names: str) -> Look:
    def look(box: Any) -> object:
        found = dict(item.partition("=")[::2] for item in box.words("environ"))
        return tuple(found.get(name) for name in names)

    return look


def text(path: str, pattern: str) -> Look:
    """Lines of a file inside that match, blanks made one."""
    return lambda box: [
        " ".join(line.split()) for line in box.root(path).read_text().splitlines() if re.search(pattern, line)
    ]


def sysctl(name: str) -> Look:
    return lambda box: " ".join(box.inside("cat", "/proc/sys/" + name.replace(".", "/")).split())


def masked(box: Any) -> list[str]:
    """Which of the hidden places of this kernel are hidden."""
    places = ("/proc/acpi", "/proc/interrupts", "/proc/keys", "/proc/timer_list", "/sys/firmware")
    return [place for place in places if Path(place).exists() and place not in box.mounts()]


def rules(pattern: str) -> Look:
    """Lines of devices.list that match."""
    return lambda box: sorted(re.findall(f"^{pattern}$", box.cgroup("devices", "devices.list"), re.MULTILINE))


def addresses(box: Any) -> str:
    return str(box.inside("ip", "-o", "addr", "show", "dev", "eth0"))


def has_swap() -> bool:
    return (ROOT_GROUP / "memory/memory.memsw.limit_in_bytes").exists()


def reachable(box: Any, port: str) -> bool:
    """Whether the port that inspect names answers on the host."""
    binding = box.shown("NetworkSettings.Ports")[port][0]
    with socket.create_connection(("127.0.0.1", int(binding["HostPort"])), timeout=10):
        return True


def case(words: str | list[str], look: Look, expected: object, **more: Any) -> Case:
    return Case(tuple(words.split() if isinstance(words, str) else words), look, expected, **more)


CASES: list[Case] = [
    # --- names and texts
    case("--name @NAME@", lambda b: b.inspect["Name"], "/@NAME@"),
    case(
        "--hostname box --domainname example.com",
        lambda b: (sysctl("kernel.hostname")(b), sysctl("kernel.domainname")(b), text("/etc/hosts", " box")(b) != []),
        ("box", "example.com", True),
        said={"Config.Hostname": "box", "Config.Domainname": "example.com"},
        runtimes=BOTH,
    ),
    case(
        "--add-host a:1.2.3.4 --add-host b=::1",
        text("/etc/hosts", "[ \t][ab]$"),
        ["1.2.3.4 a", "::1 b"],
        said={"HostConfig.ExtraHosts": ["a:1.2.3.4", "b:::1"]},
    ),
    case(
        "--dns 192.0.2.1 --dns-option ndots:3 --dns-search corp.test",
        text("/etc/resolv.conf", "^[a-z]"),
        ["nameserver 192.0.2.1", "search corp.test", "options ndots:3"],
        said={
            "HostConfig.Dns": ["192.0.2.1"],
            "HostConfig.DnsOptions": ["ndots:3"],
            "HostConfig.DnsSearch": ["corp.test"],
        },
    ),
    case(
        "--annotation tare.test=yes",
        lambda b: b.bundle()["annotations"]["tare.test"],
        "yes",
        said={"HostConfig.Annotations": {"tare.test": "yes"}},
    ),
    case(
        "--label a=1 --label-file @DIR@/labels",
        lambda b: b.inspect["Config"]["Labels"],
        {"a": "1", "b": "2"},
    ),
    # --- the process
    case(
        "--entrypoint /bin/sleep",
        lambda b: b.words("cmdline"),
        ["/bin/sleep", "999"],
        said={"Config.Entrypoint": ["/bin/sleep"], "Config.Cmd": ["999"], "Path": "/bin/sleep", "Args": ["999"]},
        command=("999",),
    ),
    case(
        "-e A=1 -e B= --env-file @DIR@/env",
        env("A", "B", "FROM_FILE", "PATH"),
        ("1", "", "file", "/usr/bin:/bin"),
        runtimes=BOTH,
    ),
    case("--workdir /var/new/dir", lambda b: os.readlink(f"/proc/{b.pid}/cwd"), "/var/new/dir", runtimes=BOTH),
    case(
        "--user 1000:28 --group-add 10 --group-add nogroup",
        lambda b: (*b.status("Uid", "Gid"), sorted(b.status("Groups")[0].split()), caps(b)[1:3], caps(b)[4]),
        ("1000 1000 1000 1000", "28 28 28 28", ["10", "28", "65534"], (0, 0), 0),
        said={"Config.User": "1000:28", "HostConfig.GroupAdd": ["10", "nogroup"]},
        runtimes=BOTH,
    ),
    case(
        "-u app",
        lambda b: (*b.status("Uid", "Gid"), sorted(b.status("Groups")[0].split()), env("HOME")(b)),
        ("1000 1000 1000 1000", "1000 1000 1000 1000", ["10", "1000", "28"], ("/home",)),
    ),
    case(
        "--ulimit nofile=100:200 --ulimit core=0 --ulimit nproc=1000:1000",
        lambda b: (b.limit("Max open files"), b.limit("Max core file size"), b.limit("Max processes")),
        (("100", "200"), ("0", "0"), ("1000", "1000")),
        runtimes=BOTH,
    ),
    case("--oom-score-adj 321", lambda b: b.proc("oom_score_adj").strip(), "321", runtimes=BOTH),
    case(
        "--init",
        lambda b: (
            Path(b.words("cmdline")[0]).name,
            b.words("cmdline")[1:],
            b.mounts()["/sbin/docker-init"].type != "",
        ),
        ("docker-init", ["--", "sleep", "1000"], True),
        said={"HostConfig.Init": True},
        runtimes=BOTH,
    ),
    case(
        "-t",
        lambda b: (
            os.readlink(f"/proc/{b.pid}/fd/0"),
            b.proc("stat").rsplit(")", 1)[1].split()[4] != "0",
            env("TERM")(b),
        ),
        ("/dev/pts/0", True, ("xterm",)),
        said={"Config.Tty": True},
        runtimes=BOTH,
    ),
    case(
        "-i",
        lambda b: (os.readlink(f"/proc/{b.pid}/fd/0").split(":")[0], b.proc("status") != ""),
        ("pipe", True),
        said={"Config.OpenStdin": True, "Config.StdinOnce": False, "Config.AttachStdin": False},
        command=("cat",),
    ),
    case("--stop-signal USR1", lambda b: b.inspect["Config"]["StopSignal"], "USR1"),
    # --- capabilities, seccomp, privileges
    case("", caps, root_caps(DEFAULT_CAPS), runtimes=BOTH),
    case("--cap-add NET_ADMIN", caps, root_caps(DEFAULT_CAPS | NET_ADMIN), runtimes=BOTH),
    case("--cap-drop MKNOD", caps, root_caps(DEFAULT_CAPS & ~MKNOD), runtimes=BOTH),
    case(
        "--cap-drop ALL --cap-add CHOWN",
        caps,
        root_caps(CHOWN),
        said={"HostConfig.CapAdd": ["CAP_CHOWN"], "HostConfig.CapDrop": ["ALL"]},
        runtimes=BOTH,
    ),
    case("", lambda b: b.status("Seccomp", "NoNewPrivs"), ("2", "0"), runtimes=BOTH),
    case("--security-opt seccomp=unconfined", lambda b: b.status("Seccomp"), ("0",), runtimes=BOTH),
    case(
        "--security-opt seccomp=@DIR@/seccomp.json --security-opt no-new-privileges",
        lambda b: (*b.status("Seccomp", "NoNewPrivs"), b.inside("sh", "-c", "mkdir /tmp/x 2>&1 || true")),
        ("2", "1", "mkdir: can't create directory '/tmp/x': Operation not permitted"),
        runtimes=BOTH,
    ),
    case(
        "--security-opt label=disable --security-opt apparmor=unconfined",
        lambda b: b.inspect["HostConfig"]["SecurityOpt"],
        ["label=disable", "apparmor=unconfined"],
    ),
    case(
        "--privileged",
        lambda b: (
            caps(b) == root_caps(int(re.findall(r"CapBnd:\s+(\w+)", Path("/proc/self/status").read_text())[0], 16)),
            b.status("Seccomp"),
            rules("a .*")(b),
            masked(b) != [],
            b.mount("/sys", "ro", "rw")[1],
            b.device("/dev/null"),
        ),
        (True, ("0",), ["a *:* rwm"], True, ("rw",), ("c", 1, 3)),
        said={"HostConfig.Privileged": True, "HostConfig.MaskedPaths": None, "HostConfig.ReadonlyPaths": None},
        runtimes=BOTH,
    ),
    case(
        "",
        lambda b: (
            masked(b),
            b.mount("/proc/sys", "ro")[1],
            b.mount("/sys", "ro", "nosuid", "noexec", "nodev"),
            b.mount("/dev/shm", "nosuid", "nodev", "noexec", "size=65536k"),
            rules("a .*")(b),
        ),
        (
            [],
            ("ro",),
            ("sysfs", ("ro", "nosuid", "noexec", "nodev")),
            ("tmpfs", ("nosuid", "nodev", "noexec", "size=65536k")),
            [],
        ),
        runtimes=BOTH,
    ),
    # --- namespaces
    case("--ipc host", lambda b: (b.shares("ipc"), b.mounts()["/dev/shm"].type), (True, "tmpfs"), runtimes=BOTH),
    case("--ipc none", lambda b: (b.shares("ipc"), "/dev/shm" in b.mounts()), (False, False), runtimes=BOTH),
    case("--ipc private", lambda b: b.shares("ipc"), False, said={"HostConfig.IpcMode": "private"}),
    case("--ipc shareable", lambda b: b.shares("ipc"), False, said={"HostConfig.IpcMode": "shareable"}),
    case(
        "--ipc container:@OTHER@",
        lambda b: (b.shares("ipc", b.other.pid), b.root("/dev/shm").stat().st_dev),
        lambda b: (True, b.other.root("/dev/shm").stat().st_dev),
        runtimes=BOTH,
    ),
    case("--pid host", lambda b: b.shares("pid"), True, said={"HostConfig.PidMode": "host"}, runtimes=BOTH),
    case("--pid container:@OTHER@", lambda b: b.shares("pid", b.other.pid), True, runtimes=BOTH),
    case(
        "--uts host",
        lambda b: (b.shares("uts"), sysctl("kernel.hostname")(b)),
        (True, socket.gethostname()),
        said={"HostConfig.UTSMode": "host"},
        runtimes=BOTH,
    ),
    case("--userns host", lambda b: b.shares("user"), True, said={"HostConfig.UsernsMode": "host"}),
    case(
        "--cgroupns host", lambda b: b.shares("cgroup"), True, said={"HostConfig.CgroupnsMode": "host"}, runtimes=BOTH
    ),
    case(
        "--cgroupns private",
        lambda b: (b.shares("cgroup"), {line.split(":")[2] for line in b.inside("cat", "/proc/1/cgroup").split()}),
        (False, {"/"}),
        said={"HostConfig.CgroupnsMode": "private"},
        runtimes=BOTH,
    ),
    case(
        "--cgroup-parent /tare-view",
        lambda b: {b.group(name) for name in ("memory", "cpu", "pids", "devices")},
        lambda b: {f"/tare-view/{b.inspect['Id']}"},
        said={"HostConfig.CgroupParent": "/tare-view"},
        runtimes=BOTH,
    ),
    # --- limits
    case(
        f"--memory {MEMORY} --memory-swap {2 * MEMORY} --memory-reservation {MEMORY // 2} --memory-swappiness 10",
        group("memory", "memory.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.swappiness"),
        (str(MEMORY), str(MEMORY // 2), "10"),
        said={
            "HostConfig.Memory": MEMORY,
            "HostConfig.MemorySwap": 2 * MEMORY,
            "HostConfig.MemoryReservation": MEMORY // 2,
            "HostConfig.MemorySwappiness": 10,
        },
        runtimes=BOTH,
    ),
    case(
        f"-m {MEMORY} --memory-swap {2 * MEMORY}",
        lambda b: b.cgroup("memory", "memory.memsw.limit_in_bytes") if has_swap() else str(2 * MEMORY),
        str(2 * MEMORY),
        runtimes=BOTH,
    ),
    case(
        f"-m {MEMORY} --oom-kill-disable",
        lambda b: b.cgroup("memory", "memory.oom_control").splitlines()[0],
        "oom_kill_disable 1",
        said={"HostConfig.OomKillDisable": True},
        runtimes=BOTH,
    ),
    case(
        f"--kernel-memory {MEMORY}",
        lambda b: "KernelMemory" in b.inspect["HostConfig"],
        False,
    ),
    case("--pids-limit 77", group("pids", "pids.max"), ("77",), said={"HostConfig.PidsLimit": 77}, runtimes=BOTH),
    case("--pids-limit -1", group("pids", "pids.max"), ("max",), said={"HostConfig.PidsLimit": None}, runtimes=BOTH),
    case("--cpu-shares 300", group("cpu", "cpu.shares"), ("300",), said={"HostConfig.CpuShares": 300}, runtimes=BOTH),
    case(
        "--cpu-period 50000 --cpu-quota 20000",
        group("cpu", "cpu.cfs_period_us", "cpu.cfs_quota_us"),
        ("50000", "20000"),
        said={"HostConfig.CpuPeriod": 50000, "HostConfig.CpuQuota": 20000},
        runtimes=BOTH,
    ),
    case(
        "--cpus 0.5",
        group("cpu", "cpu.cfs_period_us", "cpu.cfs_quota_us"),
        ("100000", "50000"),
        said={"HostConfig.NanoCpus": 500_000_000, "HostConfig.CpuQuota": 0},
        runtimes=BOTH,
    ),
    case(
        "--cpuset-cpus 0 --cpuset-mems 0",
        lambda b: (*group("cpuset", "cpuset.cpus", "cpuset.mems")(b), *b.status("Cpus_allowed_list")),
        ("0", "0", "0"),
        said={"HostConfig.CpusetCpus": "0", "HostConfig.CpusetMems": "0"},
        runtimes=BOTH,
    ),
    case(
        f"--device-read-bps {DISK}:1mb --device-write-bps {DISK}:2mb "
        f"--device-read-iops {DISK}:30 --device-write-iops {DISK}:40",
        group("blkio", *(f"blkio.throttle.{n}_device" for n in ("read_bps", "write_bps", "read_iops", "write_iops"))),
        tuple(f"{DISK_NUMBER} {n}" for n in (1048576, 2097152, 30, 40)),
        said={"HostConfig.BlkioDeviceReadBps": [{"Path": DISK, "Rate": 1048576}]},
        runtimes=BOTH,
    ),
    # --- devices and kernel settings
    case(
        "--device /dev/loop-control:/dev/mine:r",
        lambda b: (b.device("/dev/mine"), rules("c 10:237 .*")(b)),
        (("c", 10, 237), ["c 10:237 r"]),
        runtimes=BOTH,
    ),
    case(["--device-cgroup-rule", "c 42:* rw"], rules("c 42:.*"), ["c 42:* rw"], runtimes=BOTH),
    case(
        "--sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=4096",
        lambda b: (sysctl("net.ipv4.ip_forward")(b), sysctl("kernel.msgmax")(b)),
        ("1", "4096"),
        said={"HostConfig.Sysctls": {"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096"}},
        runtimes=BOTH,
    ),
    # --- files
    case(
        "--read-only", lambda b: b.mount("/", "ro")[1], ("ro",), said={"HostConfig.ReadonlyRootfs": True}, runtimes=BOTH
    ),
    case(
        "--shm-size 1m",
        lambda b: (
            b.root("/dev/shm").exists()
            and os.statvfs(b.root("/dev/shm")).f_blocks * os.statvfs(b.root("/dev/shm")).f_frsize
        ),
        1 << 20,
        said={"HostConfig.ShmSize": 1 << 20},
        runtimes=BOTH,
    ),
    case(
        "--tmpfs /cache:size=4m,mode=700,exec --tmpfs /plain",
        lambda b: (
            b.mount("/cache", "size=4096k", "mode=700", "nosuid", "noexec"),
            b.mount("/plain", "noexec", "nodev"),
        ),
        (("tmpfs", ("size=4096k", "mode=700", "nosuid")), ("tmpfs", ("noexec", "nodev"))),
        said={"HostConfig.Tmpfs": {"/cache": "size=4m,mode=700,exec", "/plain": ""}},
        runtimes=BOTH,
    ),
    case(
        "-v @DIR@:/bound:ro -v @NAME@:/named -v /anonymous",
        lambda b: (
            b.mounts()["/bound"].root.endswith(b.directory),
            b.mount("/bound", "ro")[1],
            b.mount("/named", "rw")[1],
            b.mounts()["/named"].root.endswith(f"/{b.name}/_data"),
            b.root("/bound/env").read_text(),
            "/anonymous" in b.mounts(),
        ),
        (True, ("ro",), ("rw",), True, "FROM_FILE=file\n", True),
        runtimes=BOTH,
    ),
    case(
        "--mount type=bind,src=@DIR@,dst=/bound,readonly,bind-propagation=rslave "
        "--mount type=volume,src=@NAME@,dst=/data,volume-nocopy --mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=0700",
        lambda b: (
            b.mount("/bound", "ro")[1],
            "rslave" in next(m for m in b.bundle()["mounts"] if m["destination"] == "/bound")["options"],
            b.mount("/data", "rw")[1],
            b.mount("/t", "size=1024k", "mode=700"),
        ),
        (("ro",), True, ("rw",), ("tmpfs", ("size=1024k", "mode=700"))),
        runtimes=BOTH,
    ),
    case(
        "--volumes-from @OTHER@:ro",
        lambda b: (b.mount("/shared", "ro")[1], b.mounts()["/shared"].root),
        lambda b: (("ro",), b.other.mounts()["/shared"].root),
        said={"HostConfig.VolumesFrom": ["@OTHER@:ro"]},
    ),
    case(
        "--volume-driver local -v @NAME@:/drv",
        lambda b: "/drv" in b.mounts(),
        True,
        said={"HostConfig.VolumeDriver": "local"},
    ),
    # --- networks
    case("--network host", lambda b: b.shares("net"), True, said={"HostConfig.NetworkMode": "host"}),
    case(
        "--network none",
        lambda b: (b.shares("net"), b.inside("ls", "/sys/class/net").split()),
        (False, ["lo"]),
        said={"HostConfig.NetworkMode": "none"},
    ),
    case("--network container:@OTHER@", lambda b: b.shares("net", b.other.pid), True),
    case(
        "--network @NET@ --ip 10.213.7.9 --ip6 fd5e:7a7e::9 --link-local-ip 169.254.9.9 --network-alias nick",
        lambda b: (
            "inet 10.213.7.9/24" in addresses(b),
            "inet6 fd5e:7a7e::9/64" in addresses(b),
            "169.254.9.9" in addresses(b),
            b.inside("nslookup", "nick").count("10.213.7.9") >= 1,
        ),
        (True, True, True, True),
    ),
    case(
        "--mac-address 02:42:ac:11:22:33",
        lambda b: b.inside("cat", "/sys/class/net/eth0/address"),
        "02:42:ac:11:22:33",
        said={"NetworkSettings.MacAddress": "02:42:ac:11:22:33"},
    ),
    case(
        "--link @OTHER@:friend",
        lambda b: (text("/etc/hosts", "friend")(b)[0].split()[1:2], env("FRIEND_NAME")(b)),
        lambda b: (["friend"], (f"/{b.name}/friend",)),
        said={"HostConfig.Links": ["/@OTHER@:/@NAME@/friend"]},
    ),
    case(
        "-p 127.0.0.1::8080 --expose 9000/udp",
        lambda b: (reachable(b, "8080/tcp"), b.shown("NetworkSettings.Ports")["9000/udp"]),
        (True, None),
        said={"Config.ExposedPorts": {"8080/tcp": {}, "9000/udp": {}}},
        command=("httpd", "-f", "-p", "8080"),
    ),
    case(
        "-P --expose 8080",
        lambda b: reachable(b, "8080/tcp"),
        True,
        said={"HostConfig.PublishAllPorts": True},
        command=("httpd", "-f", "-p", "8080"),
    ),
    # --- logs, policies
    case(
        "--log-driver json-file --log-opt max-size=1m --log-opt max-file=2",
        lambda b: b.inspect["HostConfig"]["LogConfig"],
        {"Type": "json-file", "Config": {"max-file": "2", "max-size": "1m"}},
    ),
    case(
        "--restart on-failure:3",
        lambda b: b.inspect["HostConfig"]["RestartPolicy"],
        {"Name": "on-failure", "MaximumRetryCount": 3},
    ),
    case("--runtime runc", lambda b: Path(b.monitor()[b.monitor().index("--runtime") + 1]).name, "runc"),
    case("--platform linux/amd64", lambda b: b.inspect["Platform"], "linux"),
    case("--pull never --quiet", lambda b: b.inspect["State"]["Status"], "running"),
    case("--no-healthcheck", lambda b: b.inspect["Config"]["Healthcheck"], {"Test": ["NONE"]}),
    case("--disable-content-trust=true", lambda b: b.inspect["State"]["Status"], "running"),
]

REFUSED: list[tuple[str, str]] = [
    ("--cpu-count 1", "daemon running on windows"),
    ("--cpu-percent 1", "daemon running on windows"),
    ("--io-maxbandwidth 1m", "daemon running on windows"),
    ("--io-maxiops 1", "daemon running on windows"),
    ("--isolation hyperv", "linux only supports 'default'"),
    ("--storage-opt nosuch=1g", "nknown option"),
    ("--gpus all", "could not select device driver"),
    ("--platform linux/s390x", "Unable to find image"),
    ("--security-opt nonsense=1", "invalid --security-opt"),
    ("--sysctl kernel.panic=1", "kernel.panic"),
    ("--cap-add NOSUCH", "NOSUCH"),
    ("--runtime nosuch", "nosuch"),
    ("--ipc nosuch", "nosuch"),
    ("--pid nosuch", "invalid PID mode"),
    ("--uts nosuch", "invalid UTS mode"),
    ("--userns nosuch", "invalid USER mode"),
    ("--cgroupns nosuch", "invalid CGROUP mode"),
    ("--network nosuch", "nosuch"),
    ("--volume-driver nosuch -v xx:/x", "nosuch"),
    ("--log-driver nosuch", "nosuch"),
    ("--pull always", ""),
    ("--cpus 4096", "Range of CPUs is from 0.01"),
    ("--cpuset-cpus 4095", "Requested CPUs are not available"),
    ("--memory 1m", "Minimum memory limit allowed is 6MB"),
    ("--memory-swappiness 101", "memory swappiness range is 0-100"),
    ("--oom-score-adj 1001", "range for oom score adj is [-1000, 1000]"),
    ("--ulimit nosuch=1", "nosuch"),
    ("--device /dev/nosuch", "/dev/nosuch"),
    ("--group-add nosuch", "nosuch"),
    ("--user nosuch", "nosuch"),
    ("--link nosuch", "nosuch"),
    ("--volumes-from nosuch", "nosuch"),
    ("--restart always --rm", "onflicting options"),
    ("--tmpfs relative", "relative"),
    ("--mac-address nonsense", "nonsense"),
    ("--ip 10.0.0.1", "user"),
    ("--stop-signal NOSUCH", "NOSUCH"),
    ("--device-read-bps /dev/nosuch:1mb", "/dev/nosuch"),
    ("--pids-limit 5 --cgroup-parent a/../../b", "cgroup parent"),
]
"""Flags, or values of flags, that must be refused, and what the refusal must contain."""

SHOWN_BY_TESTS: dict[str, str] = {
    "--attach": "test_attach",
    "--blkio-weight": "test_io_weights",
    "--blkio-weight-device": "test_io_weights",
    "--cidfile": "test_cidfile_and_rm",
    "--cpu-rt-period": "test_realtime",
    "--cpu-rt-runtime": "test_realtime",
    "--detach": "test_detach_and_its_keys",
    "--detach-keys": "test_detach_and_its_keys",
    "--health-cmd": "test_health",
    "--health-interval": "test_health",
    "--health-retries": "test_health",
    "--health-start-interval": "test_health",
    "--health-start-period": "test_health",
    "--health-timeout": "test_health",
    "--rm": "test_cidfile_and_rm",
    "--sig-proxy": "test_sig_proxy",
    "--stop-timeout": "test_stop_timeout",
    "--use-api-socket": "test_api_socket",
}
"""Flags that need more than a table's row, and the test that shows them."""
