"""docker cp both ways, on running, stopped and created containers: paths, kinds, owners, mounts, and containers that cheat.

Proves `api/archive` and `engine/copy` on a real engine.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import http.client
import io
import json
import lzma
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tare.testing.daemon import Daemon

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
]


def docker(host: str, *argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the stock client against the engine."""
    return subprocess.run(
        ["docker", "-H", host, *argv],
        input=stdin,
        capture_output=True,
        timeout=60,
        env={**os.environ, "DOCKER_CONFIG": "/nonexistent"},
        check=False,
    )


def out(host: str, *argv: str, stdin: bytes = b"") -> str:
    done = docker(host, *argv, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def make_tar(*members: tuple[str, bytes, bytes | str], uid: int = 0) -> bytes:
    """name, type, data of a file or target of a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.uid, info.gid, info.mode = kind, uid, uid, 0o755 if kind == tarfile.DIRTYPE else 0o644
            if isinstance(data, str):
                info.linkname = data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def stat_of(daemon: Daemon, path: str, name: str = "box") -> dict[str, Any]:
    """The decoded header of HEAD."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(daemon.socket))
        connection.sendall(
            f"HEAD /containers/{name}/archive?path={path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".encode()
        )
        head = b""
        while piece := connection.recv(65536):
            head += piece
    status = int(head.split()[1])
    if status != 200:
        return {"status": status}
    line = next(x for x in head.decode().split("\r\n") if x.lower().startswith("x-docker-container-path-stat:"))
    return dict(json.loads(base64.b64decode(line.partition(":")[2])))


def names_of(daemon: Daemon, path: str) -> list[str]:
    status, body = daemon.request("GET", f"/containers/box/archive?path={path}")
    assert status == 200, body
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        return [member.name for member in tar]


def put(daemon: Daemon, path: str, tar: bytes, query: str = "", name: str = "box") -> tuple[int, str]:
    status, body = daemon.request(
        "PUT", f"/containers/{name}/archive?path={path}{query}", body=tar, headers={"Content-Type": "application/x-tar"}
    )
    return status, json.loads(body)["message"] if body else ""


@pytest.fixture(params=["running", "stopped"])
def box(daemon: Daemon, engine_host: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Daemon]:
    """A container with a bind, a read-only bind and some files, running or not."""
    (tmp_path / "rw").mkdir()
    (tmp_path / "ro").mkdir()
    (tmp_path / "ro" / "seen").write_text("bound")
    script = (
        "mkdir -p /d/sub; echo data >/d/f; echo x >/d/sub/g; ln -s f /d/link; ln -s /d /abs; ln -s /nowhere /dangling;"
        "chown 7:8 /d/f; chmod 4755 /d/f; mkfifo /d/fifo; echo ready; exec sleep 1000"
    )
    out(engine_host, "run", "-d", "--name", "box", "-u", "0", "-v", f"{tmp_path}/rw:/rw", "-v", f"{tmp_path}/ro:/ro:ro",
        "busybox", "sh", "-c", script)  # fmt: skip
    with subprocess.Popen(["docker", "-H", engine_host, "logs", "-f", "box"], stdout=subprocess.PIPE) as log:
        assert log.stdout is not None
        assert log.stdout.readline() == b"ready\n"
        log.kill()
    if request.param == "stopped":
        out(engine_host, "kill", "box")
        out(engine_host, "wait", "box")
    yield daemon
    out(engine_host, "rm", "-f", "box")


def test_stat(box: Daemon) -> None:
    found = stat_of(box, "/d/f")
    assert (found["name"], found["size"], found["mode"], found["linkTarget"]) == ("f", 5, 1 << 23 | 0o755, "")
    assert found["mtime"].endswith("Z")
    assert (stat_of(box, "/d")["name"], stat_of(box, "d/")["name"], stat_of(box, "/d/.")["name"]) == ("d", "d", ".")
    assert stat_of(box, "/")["name"] == "/"
    assert stat_of(box, "/d")["mode"] == 1 << 31 | 0o755
    assert stat_of(box, "/d/link")["mode"] & (1 << 27)
    assert stat_of(box, "/d/link")["linkTarget"] == "/d/f"
    assert stat_of(box, "/abs")["linkTarget"] == "/d"
    assert stat_of(box, "/abs/")["mode"] == 1 << 31 | 0o755
    assert stat_of(box, "/dangling")["linkTarget"] == "/nowhere"
    assert stat_of(box, "/d/fifo")["mode"] & (1 << 25)
    assert stat_of(box, "/tmp")["mode"] == 1 << 31 | 1 << 20 | 0o777
    assert stat_of(box, "/d/../../../d/./f")["name"] == "f"
    assert stat_of(box, "/nope") == {"status": 404}
    assert stat_of(box, "/d/f/") == {"status": 400}
    assert stat_of(box, "") == {"status": 400}


def test_a_time_of_zero_is_1970(box: Daemon) -> None:
    assert put(box, "/tmp", make_tar(("old", tarfile.REGTYPE, b"x"))) == (200, "")
    assert stat_of(box, "/tmp/old")["mtime"] == "1970-01-01T00:00:00Z"


def test_names_in_the_archive(box: Daemon) -> None:
    inner = ["f", "fifo", "link", "sub", "sub/g"]
    assert names_of(box, "/d") == ["d", *(f"d/{name}" for name in inner)]
    assert names_of(box, "/d/.") == [".", *(f"./{name}" for name in inner)]
    assert names_of(box, "/d/f") == ["f"]
    assert names_of(box, "/d/link") == ["link"]
    everything = names_of(box, "/")
    assert "/d/f" in everything
    assert not [name for name in everything if name.startswith(("/proc/", "/sys/"))]
    status, body = box.request("GET", "/containers/box/archive?path=/nope")
    assert (status, json.loads(body)["message"]) == (404, "Could not find the file /nope in container box")


def test_out_and_in_by_the_command_line(box: Daemon, tmp_path: Path) -> None:
    out(box.host, "cp", "box:/d", str(tmp_path / "copy"))
    assert (tmp_path / "copy/sub/g").read_text() == "x\n"
    assert os.readlink(tmp_path / "copy/link") == "f"
    out(box.host, "cp", "-L", "box:/d/link", str(tmp_path / "followed"))
    assert (tmp_path / "followed").read_text() == "data\n"
    out(box.host, "cp", str(tmp_path / "copy"), "box:/back")
    out(box.host, "cp", str(tmp_path / "copy/sub/g"), "box:/d/renamed")
    out(box.host, "cp", f"{tmp_path}/copy/.", "box:/tmp")
    assert {"back/f", "back/sub/g"} <= set(names_of(box, "/back"))
    assert "tmp/sub/g" in names_of(box, "/tmp")
    assert out(box.host, "cp", "box:/d/renamed", "-") != ""
    missing = docker(box.host, "cp", "box:/none", str(tmp_path))
    assert b"Could not find the file /none in container box" in missing.stderr


def test_owners_and_modes_are_the_archives(box: Daemon) -> None:
    assert put(box, "/d", make_tar(("o", tarfile.REGTYPE, b"1"), ("sub", tarfile.DIRTYPE, b""), uid=77)) == (200, "")
    _, body = box.request("GET", "/containers/box/archive?path=/d")
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        assert (tar.getmember("d/o").uid, tar.getmember("d/sub").uid, tar.getmember("d/sub/g").uid) == (77, 77, 0)
        assert (tar.getmember("d/f").uid, tar.getmember("d/f").gid, tar.getmember("d/f").mode) == (7, 8, 0o4755)


def test_binds_are_seen_and_kept_read_only(box: Daemon, tmp_path: Path) -> None:
    assert names_of(box, "/ro/seen") == ["seen"]
    assert put(box, "/rw", make_tar(("new", tarfile.REGTYPE, b"n"))) == (200, "")
    assert (tmp_path / "rw/new").read_text() == "n"
    assert put(box, "/ro", make_tar(("new", tarfile.REGTYPE, b"n"))) == (400, "mounted volume is marked read-only")
    assert not (tmp_path / "ro/new").exists()


def test_where_it_cannot_be_extracted(box: Daemon) -> None:
    small = make_tar(("f", tarfile.REGTYPE, b"x"))
    assert put(box, "/d/f", small) == (400, "extraction point is not a directory")
    assert put(box, "/nope", small) == (404, "Could not find the file /nope in container box")
    assert put(box, "/d", make_tar(("f", tarfile.DIRTYPE, b"")), "&noOverwriteDirNonDir=1")[0] == 400
    assert put(box, "/d", make_tar(("sub", tarfile.REGTYPE, b"x")), "&noOverwriteDirNonDir=1")[0] == 400
    assert put(box, "/d", b"this is no tar")[0] == 400
    assert put(box, "/d", b"") == (200, "")
    assert put(box, "/d", make_tar(("null", tarfile.CHRTYPE, b"")))[0] == 400
    assert stat_of(box, "/d/sub/g")["size"] == 2


def test_links_lead_where_the_container_sees_them(box: Daemon, tmp_path: Path) -> None:
    """The target and the parents of members are resolved in the container's root, never in the host's."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for link in (str(outside), "../../../../../../.." + str(outside)):
        assert put(box, "/d", make_tar(("evil", tarfile.SYMTYPE, link))) == (200, "")
        assert put(box, "/d", make_tar(("evil/in", tarfile.REGTYPE, b"x")))[0] == 400
        assert put(box, "/d/evil", make_tar(("in", tarfile.REGTYPE, b"x")))[0] == 404
    assert put(box, "/d", make_tar(("../../up", tarfile.REGTYPE, b"x")))[0] == 400
    assert put(box, "/", make_tar(("abs/through", tarfile.REGTYPE, b"x"))) == (200, "")
    assert stat_of(box, "/abs")["mode"] & (1 << 27), "the link itself stays"
    assert stat_of(box, "/d/through")["size"] == 1
    assert put(box, "/d", make_tar(("hard", tarfile.LNKTYPE, "/../../../../etc/shadow")))[0] == 400
    assert list(outside.iterdir()) == []
    assert not Path("/up").exists()


def test_a_created_container_takes_files_before_it_starts(engine_host: str, daemon: Daemon, tmp_path: Path) -> None:
    out(engine_host, "create", "--name", "new", "-v", f"{tmp_path}:/v/deep", "busybox", "cat", "/config", "/v/deep/c")
    assert put(daemon, "/", make_tar(("config", tarfile.REGTYPE, b"given ")), name="new") == (200, "")
    assert put(daemon, "/v/deep", make_tar(("c", tarfile.REGTYPE, b"volume")), name="new") == (200, "")
    assert out(engine_host, "start", "-a", "new") == "given volume"


def test_a_read_only_root(engine_host: str, daemon: Daemon, tmp_path: Path) -> None:
    small = make_tar(("f", tarfile.REGTYPE, b"x"))
    out(engine_host, "run", "-d", "--read-only", "--name", "ro", "-v", f"{tmp_path}:/v", "busybox", "sleep", "99")
    for _ in range(2):
        assert put(daemon, "/etc", small, name="ro") == (400, "container rootfs is marked read-only")
        assert put(daemon, "/v", small, name="ro") == (200, "")
        docker(engine_host, "kill", "ro")
        docker(engine_host, "wait", "ro")


def test_copy_as_the_containers_user(engine_host: str, daemon: Daemon) -> None:
    out(engine_host, "create", "-u", "app", "--name", "own", "busybox")
    assert put(daemon, "/tmp", make_tar(("f", tarfile.REGTYPE, b"x"), uid=5), "&copyUIDGID=1", name="own") == (200, "")
    _, body = daemon.request("GET", "/containers/own/archive?path=/tmp/f")
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        assert (tar.getmember("f").uid, tar.getmember("f").gid) == (1000, 1000)


def test_a_container_that_swaps_links_leads_nowhere(engine_host: str, daemon: Daemon, tmp_path: Path) -> None:
    """It turns a directory into a link to a host path and back, as fast as it can, while we copy in and out."""
    secret = tmp_path / "host"
    secret.mkdir()
    (secret / "secret").write_text("secret")
    script = f"mkdir /real; echo own >/real/secret; echo up; while :; do ln -sfn {secret} /t; ln -sfn /real /t; done"
    out(engine_host, "run", "-d", "--name", "swap", "busybox", "sh", "-c", script)
    for _ in range(60):
        status, body = daemon.request("GET", "/containers/swap/archive?path=/t/secret")
        assert status in (200, 404)
        if status == 200:
            with tarfile.open(fileobj=io.BytesIO(body)) as tar:
                member = tar.extractfile("secret")
                assert member is not None
                assert member.read() == b"own\n"
        put(daemon, "/t", make_tar(("in", tarfile.REGTYPE, b"x")), name="swap")
        put(daemon, "/", make_tar(("t/in", tarfile.REGTYPE, b"x")), name="swap")
    assert [p.name for p in secret.iterdir()] == ["secret"]


def test_nothing_is_mounted_afterwards(engine_host: str, daemon: Daemon) -> None:
    out(engine_host, "create", "--name", "quiet", "busybox")
    before = Path(f"/proc/{daemon.pid}/mountinfo").read_text()
    assert stat_of(daemon, "/etc", "quiet")["name"] == "etc"
    assert put(daemon, "/tmp", make_tar(("f", tarfile.REGTYPE, b"x")), name="quiet") == (200, "")
    assert Path(f"/proc/{daemon.pid}/mountinfo").read_text() == before
    namespaces = {
        os.readlink(f"/proc/{daemon.pid}/task/{task}/ns/mnt") for task in os.listdir(f"/proc/{daemon.pid}/task")
    }
    assert len(namespaces) == 1


def test_a_stopped_container_has_its_volumes_and_images(daemon: Daemon, engine_host: str) -> None:
    """Parts of volumes, volumes that have to be mounted, and image mounts, as a start would show them."""
    out(engine_host, "volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "memory")
    out(engine_host, "run", "--rm", "-v", "tree:/t", "busybox", "sh", "-c", "mkdir -p /t/a/b; echo part >/t/a/b/f")
    out(
        engine_host, "create", "--name", "box", "-v", "memory:/memory",
        "--mount", "type=volume,src=tree,dst=/part,volume-subpath=a/b",
        "--mount", "type=image,src=busybox,dst=/image,image-subpath=bin", "busybox", "true",
    )  # fmt: skip
    start = time.time()
    assert [name.rstrip("/") for name in names_of(daemon, "/part")] == ["part", "part/f"]
    assert stat_of(daemon, "/image/busybox")["size"] > 100_000
    assert put(daemon, "/part", make_tar(("new", tarfile.REGTYPE, b"x"))) == (200, "")
    assert put(daemon, "/memory", make_tar(("gone", tarfile.REGTYPE, b"x"))) == (200, "")
    assert put(daemon, "/image", make_tar(("no", tarfile.REGTYPE, b"x")))[0] == 400
    assert not list((daemon.exec_root / "mounts").iterdir())
    status, body = daemon.request("GET", f"/events?since={start:.9f}&until={time.time():.9f}")
    assert (status, b'"volume"' in body) == (200, False), "looking is no mounting"
    assert out(engine_host, "run", "--rm", "-v", "tree:/t", "busybox", "cat", "/t/a/b/new") == "x"
    out(engine_host, "start", "-a", "box")
    out(engine_host, "rm", "box")
    out(engine_host, "volume", "rm", "memory", "tree")


def tare(host: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tare.cli", "-H", host, *argv], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("coding", ["", "gzip", "deflate"])
def test_out_is_packed_for_who_takes_that(box: Daemon, coding: str) -> None:
    plain = box.request("GET", "/containers/box/archive?path=/d")[1]
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(30)
    connection.sock.connect(str(box.socket))
    connection.request("GET", "/containers/box/archive?path=/d", headers={"Accept-Encoding": coding or "identity"})
    answer = connection.getresponse()
    headers, body = {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    assert answer.status == 200
    assert headers["content-type"] == "application/x-tar"
    assert headers.get("content-encoding", "") == coding
    assert "x-docker-container-path-stat" in headers
    assert (zlib.decompress(body, {"gzip": 31, "deflate": -15}[coding]) if coding else body) == plain


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd"])
def test_in_is_unpacked_whatever_packs_it(box: Daemon, kind: str) -> None:
    packers = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstandard.compress}
    tar = packers[kind](make_tar((f"from-{kind}", tarfile.REGTYPE, b"packed")))
    assert put(box, "/d", tar) == (200, "")
    assert stat_of(box, f"/d/from-{kind}")["size"] == 6


def test_between_containers_and_many_sources(box: Daemon, engine_host: str, tmp_path: Path) -> None:
    out(engine_host, "create", "--name", "other", "busybox", "true")
    assert tare(engine_host, "cp", "box:/d", "other:/new").stderr == ""
    assert stat_of(box, "/new/f", "other")["mode"] == 1 << 23 | 0o755
    assert stat_of(box, "/new/link", "other")["linkTarget"] == "/new/f"
    assert tare(engine_host, "cp", "box:/d/.", "other:/tmp").returncode == 0
    assert stat_of(box, "/tmp/sub/g", "other")["size"] == 2
    (tmp_path / "one").write_text("1")
    assert tare(engine_host, "cp", str(tmp_path / "one"), "box:/d/f", "other:/home").returncode == 0
    assert [stat_of(box, f"/home/{name}", "other")["size"] for name in ("one", "f")] == [1, 5]
    (tmp_path / "into").mkdir()
    assert tare(engine_host, "cp", "other:/new/f", "box:/d/sub", str(tmp_path / "into")).returncode == 0
    assert (tmp_path / "into/f").read_text() == "data\n"
    assert (tmp_path / "into/sub/g").read_text() == "x\n"
    assert tare(engine_host, "cp", "box:/d", "box:/d/sub").returncode == 1
    done = tare(engine_host, "cp", "box:/nope", "other:/")
    assert (done.returncode, "Could not find the file /nope in container box" in done.stderr) == (1, True)
    out(engine_host, "rm", "other")
