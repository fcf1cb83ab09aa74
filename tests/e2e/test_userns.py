"""User namespaces: what is root inside is nobody outside, and nothing on disk is shifted.

Proves `engine/userns` on a real engine, with crun and runc.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tare.testing.daemon import Daemon

REPOSITORY = Path(__file__).resolve().parents[2]
FIRST = 231072
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
    pytest.mark.skipif(
        tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 15), reason="needs Linux 6.15"
    ),
]


@pytest.fixture(scope="module")
def engine(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    scratch.chmod(0o711)  # who is root inside must be able to get to its own files
    daemon = Daemon(
        scratch / "un", bridge=f"tu{os.getpid()}", source=REPOSITORY / "src",
        arguments=["--bip", "10.213.8.1/24", "--userns-remap", f"ids={FIRST}:65536"],
    )  # fmt: skip
    daemon.start()
    try:
        daemon.import_image("busybox:latest", rootfs_tar, changes=["ENV PATH=/bin"])
        yield daemon
    finally:
        daemon.destroy()
        scratch.chmod(0o700)


@pytest.fixture(autouse=True)
def nothing_stays(engine: Daemon) -> Iterator[None]:
    yield
    engine.clear()


def docker(engine: Daemon, *argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["docker", "-H", engine.host, *argv],
        input=stdin,
        capture_output=True,
        timeout=60,
        env={**os.environ, "DOCKER_CONFIG": "/nonexistent"},
        check=False,
    )


def raw(engine: Daemon, *argv: str, stdin: bytes = b"") -> bytes:
    done = docker(engine, *argv, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def out(engine: Daemon, *argv: str, stdin: bytes = b"") -> str:
    return raw(engine, *argv, stdin=stdin).decode()


def owners(archive: bytes) -> dict[str, tuple[int, int]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {member.name: (member.uid, member.gid) for member in tar}


def owner(path: Path | str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_uid, found.st_gid


def numbers(engine: Daemon, container: str, *paths: str) -> list[tuple[int, int]]:
    """Owners as the container sees them."""
    lines = out(engine, "exec", container, "stat", "-c", "%u %g", *paths).splitlines()
    return [(int(uid), int(gid)) for uid, gid in (line.split() for line in lines)]


def box(engine: Daemon, *options: str) -> int:
    """A container that has made files; its pid."""
    out(engine, "run", "-d", "--name", "box", *options, "busybox", "sh", "-c",
        "touch /mine /theirs; chown 1000:10 /theirs; mkfifo /ready; cat /ready; exec sleep 1000")  # fmt: skip
    out(engine, "exec", "box", "sh", "-c", "until [ -p /ready ]; do :; done; echo >/ready")
    return int(engine.json("GET", "/containers/box/json")["State"]["Pid"])


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_root_inside_is_nobody_outside(engine: Daemon, runtime: str) -> None:
    if shutil.which(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    pid = box(engine, "--runtime", runtime)
    assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", str(FIRST), "65536"]
    assert Path(f"/proc/{pid}/gid_map").read_text().split() == ["0", str(FIRST), "65536"]
    assert owner(f"/proc/{pid}") == (FIRST, FIRST)
    assert owner(f"/proc/{pid}/root/mine") == (FIRST, FIRST)
    assert owner(f"/proc/{pid}/root/theirs") == (FIRST + 1000, FIRST + 10)
    assert owner(f"/proc/{pid}/root/bin/busybox") == (FIRST, FIRST)
    assert numbers(engine, "box", "/mine", "/theirs", "/bin/busybox", "/etc/hosts") == [
        (0, 0),
        (1000, 10),
        (0, 0),
        (0, 0),
    ]
    assert out(engine, "exec", "-u", "app", "box", "id", "-u").strip() == "1000"
    assert "name=userns" in engine.json("GET", "/info")["SecurityOptions"]


def test_nothing_on_disk_is_shifted(engine: Daemon) -> None:
    box(engine)
    identity = engine.json("GET", "/containers/box/json")["Id"]
    upper = engine.data_root / "snapshots" / identity / "fs"
    assert (owner(upper / "mine"), owner(upper / "theirs")) == ((0, 0), (1000, 10))
    out(engine, "commit", "box", "committed:1")
    assert out(engine, "run", "--rm", "committed:1", "stat", "-c", "%u %g", "/theirs").strip() == "1000 10"
    same = out(engine, "run", "--rm", "--userns", "host", "committed:1", "stat", "-c", "%u %g", "/theirs")
    assert same.strip() == "1000 10"
    found = owners(raw(engine, "export", "box"))
    assert (found["mine"], found["theirs"], found["bin/busybox"]) == ((0, 0), (1000, 10), (0, 0))
    assert sorted(line.split()[1] for line in out(engine, "diff", "box").splitlines()) == ["/mine", "/ready", "/theirs"]
    engine.json("DELETE", "/images/committed:1")


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_files_keep_the_containers_ids_both_ways(engine: Daemon, state: str) -> None:
    box(engine)
    if state == "stopped":
        out(engine, "kill", "box")
    assert owners(raw(engine, "cp", "box:/theirs", "-")) == {"theirs": (1000, 10)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("given")
        entry.uid, entry.gid = 55, 66
        tar.addfile(entry)
    out(engine, "cp", "-", "box:/", stdin=buffer.getvalue())
    if state == "stopped":
        out(engine, "start", "box")
        out(engine, "exec", "box", "sh", "-c", "until [ -p /ready ]; do :; done; echo >/ready")
    assert numbers(engine, "box", "/given") == [(55, 66)]


def test_volumes_are_the_containers_binds_the_hosts(engine: Daemon, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "roots").touch()
    out(engine, "run", "--name", "first", "-v", "vol:/var", "-v", f"{tmp_path}:/bound", "-v", f"{tmp_path}/new:/new",
        "busybox", "sh", "-c", "touch /var/v && chown 7:8 /var/v && touch /new/n && ! touch /bound/refused")  # fmt: skip
    data = engine.data_root / "volumes" / "vol" / "_data"
    assert owner(data / "v") == (7, 8)
    assert owner(tmp_path / "new") == owner(tmp_path / "new" / "n") == (FIRST, FIRST)
    for mode in ((), ("--userns", "host")):
        assert (
            out(engine, "run", "--rm", *mode, "-v", "vol:/var", "busybox", "stat", "-c", "%u %g", "/var/v") == "7 8\n"
        )
    seen = out(engine, "run", "--rm", "-v", f"{tmp_path}:/bound", "busybox", "stat", "-c", "%u", "/bound/roots")
    assert seen == "65534\n"


def test_its_network_is_its_own(engine: Daemon) -> None:
    assert "10.213.8." in out(engine, "run", "--rm", "busybox", "ip", "addr")
    out(engine, "run", "--rm", "--cap-add", "NET_ADMIN", "busybox", "ip", "link", "set", "eth0", "mtu", "1400")
    assert out(engine, "run", "--rm", "busybox", "ping", "-c", "1", "10.213.8.1").count("1 packets received") == 1
    box(engine)
    joined = out(engine, "run", "--rm", "--pid", "container:box", "--network", "container:box", "busybox", "ps")
    assert "sleep 1000" in joined


def test_streams_can_be_opened_again(engine: Daemon) -> None:
    assert out(engine, "run", "--rm", "-u", "1000", "busybox", "sh", "-c", "echo hi >/dev/stdout") == "hi\n"
    box(engine)
    for _ in range(5):  # also by one that is quick
        assert out(engine, "exec", "-u", "1000", "box", "sh", "-c", "echo hi >/dev/stdout") == "hi\n"
    assert docker(engine, "run", "--rm", "-u", "1000", "busybox", "touch", "/refused").returncode == 1


def test_what_needs_the_hosts_ids_is_refused(engine: Daemon) -> None:
    for option, text in (
        (["--privileged"], b"privileged mode is incompatible with user namespaces"),
        (["--network", "host"], b"cannot share the host's network namespace when user namespaces are enabled"),
        (["--pid", "host"], b"cannot share the host PID namespace when user namespaces are enabled"),
    ):
        assert text in docker(engine, "create", *option, "busybox", "true").stderr
        out(engine, "run", "--rm", "--userns", "host", *option, "busybox", "true")
    box(engine)
    assert (
        docker(engine, "run", "--rm", "--userns", "host", "--pid", "container:box", "busybox", "true").returncode == 125
    )
    assert docker(engine, "create", "--userns", "private", "busybox", "true").returncode == 125


def test_it_goes_on_with_the_next_engine(engine: Daemon) -> None:
    box(engine)
    engine.kill()
    engine.start()
    assert numbers(engine, "box", "/theirs") == [(1000, 10)]
    assert owners(raw(engine, "cp", "box:/theirs", "-")) == {"theirs": (1000, 10)}


def test_bad_mappings_stop_the_engine(engine: Daemon, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tare.daemon.app", "--data-root", str(tmp_path / "d"), "--exec-root", str(tmp_path / "r"),
         "-H", f"unix://{tmp_path}/s", "--userns-remap", "no-such-user", "--bridge", "ttnever0"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, "Invalid username in userns-remap: no user no-such-user" in done.stderr) == (1, True)
    assert not Path("/sys/class/net/ttnever0").exists(), "it refuses before it makes anything"
    assert json.loads(engine.request("GET", "/info")[1])["Containers"] == 0


def test_a_build_has_mapped_ids_and_its_image_does_not(engine: Daemon, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "a").chmod(0o600)
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\n"
        "COPY --chown=5:6 a /a\n"
        "RUN --mount=type=cache,target=/c --mount=type=bind,target=/ctx,rw"
        " cp /ctx/a /c/b && touch /ctx/new && cp /c/b /made && cat /proc/self/uid_map\n"
        "RUN --mount=type=bind,from=busybox,target=/b,rw touch /b/x && stat -c %u:%g /b/bin\n"
    )
    built = docker(engine, "build", "--no-cache", "-t", "mapped", str(tmp_path))
    assert built.returncode == 0, built.stderr
    assert str(FIRST).encode() in built.stdout
    assert b"\n0:0\n" in built.stdout
    seen = docker(engine, "run", "--rm", "--userns", "host", "mapped", "stat", "-c", "%u:%g %a", "/a", "/made")
    assert seen.stdout == b"5:6 600\n0:0 600\n"
    docker(engine, "rmi", "mapped")
    docker(engine, "builder", "prune", "-af")
