"""Versions of file systems on a real engine, by the stock docker and by `tare`.

Proves `engine/versions`, `engine/difference`, `engine/blame`, `engine/checkout`, `engine/imagemount`, `api/versions` and
what `engine/commit` promises about doing it twice.
"""

from __future__ import annotations

import base64
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tare.testing.daemon import Daemon
from tare.testing.stockclient import docker
from tare.testing.stockclient import out as stock

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.root


def tare(host: str, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tare.cli", "-H", host, *argv],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), **environment},
        check=False,
    )


def out(host: str, *argv: str, **environment: str) -> str:
    done = tare(host, *argv, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(host: str, *argv: str) -> str:
    done = tare(host, *argv)
    assert done.returncode == 1
    return done.stderr.removeprefix("Error response from daemon: ").strip()


def layer(host: str, image: str, script: str, name: str) -> None:
    """A new image of one more layer; what made it stands in its history."""
    stock(host, "run", "--name", "step", image, "sh", "-ec", script)
    stock(host, "commit", "-m", f"step {name}", "-a", "Ada", "step", name)
    stock(host, "rm", "step")


@pytest.fixture
def images(engine_host: str) -> Iterator[str]:
    """v:1 to v:3 on busybox, each a layer; w:2 beside v:2."""
    layer(engine_host, "busybox", "mkdir -p /srv/a /usr/lib; echo one >/srv/text; echo two >>/srv/text; "
          "echo x >/srv/a/x; ln -s /srv /usr/lib/link", "v:1")  # fmt: skip
    layer(engine_host, "v:1", "echo three >>/srv/text; rm -r /srv/a; mkdir /srv/a; echo y >/srv/a/y", "v:2")
    layer(engine_host, "v:2", "sed -i s/two/TWO/ /srv/text; chmod 4755 /srv/text; mknod /srv/null c 1 3", "v:3")
    layer(engine_host, "v:1", "head -c 100000 /dev/zero >/srv/zeros", "w:2")
    yield engine_host
    stock(engine_host, "rmi", "-f", "v:1", "v:2", "v:3", "w:2")


def test_differences(images: str) -> None:
    assert out(images, "diff", "v:1", "v:3").splitlines() == [
        "D /srv/a/x  -2B",
        "A /srv/a/y  +2B",
        "A /srv/null",
        "C /srv/text  8B → 14B, mode 0644 → 4755",
    ]
    assert out(images, "diff", "v:3", "v:1@1").splitlines()[0] == "D /srv/"
    assert out(images, "diff", "v:1", "v:3@3", "--", "/usr/lib/link/a").splitlines() == [
        "D /srv/a/x  -2B",
        "A /srv/a/y  +2B",
    ]
    assert out(images, "diff", "--stat", "v:2", "w:2") == "2 added, 1 changed, 1 deleted; +100kB -8B\n"
    assert out(images, "diff", "v:2", "v:2") == ""
    patch = out(images, "diff", "-p", "v:2", "v:3", "--", "/srv/text")
    assert patch == (
        "diff --git a/srv/text b/srv/text\nold mode 100644\nnew mode 100755\n--- a/srv/text\n+++ b/srv/text\n"
        "@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n"
    )
    (row,) = out(images, "diff", "--format", "json", "v:2", "v:3", "--", "/srv/null").splitlines()
    assert json.loads(row)["New"]["Device"] == "1:3"
    times = out(images, "diff", "--times", "v:1", "v:2").splitlines()
    assert ("C /srv/a/  time" in times, "A /srv/a/y  +2B" in times) == (True, True)
    assert refused(images, "diff", "v:1", "v:9") == "No such image or container: v:9"
    assert refused(images, "diff", "v:1@7", "v:2") == "v:1 has 2 layers, not 7"


def test_a_container_is_compared_while_it_runs(images: str) -> None:
    stock(
        images, "run", "-d", "--name", "run", "v:1", "sh", "-c", "echo more >>/srv/text; rm /srv/a/x; exec sleep 1000"
    )
    docker(images, "exec", "run", "sh", "-c", "until test ! -e /srv/a/x; do :; done")
    assert stock(images, "diff", "run").splitlines() == out(images, "diff", "run").splitlines()
    assert out(images, "diff", "v:1", "run").splitlines() == ["D /srv/a/x  -2B", "C /srv/text  8B → 13B"]
    assert "+more\n" in out(images, "diff", "--patch", "run")
    assert out(images, "log", "run", "/srv/text").splitlines()[1].split()[:2] == ["3", "(container)"]
    assert out(images, "blame", "run", "/srv/text").splitlines()[2].endswith(" 3) more")


def test_a_container_whose_image_is_gone(daemon: Daemon, images: str) -> None:
    daemon.import_image("lone:1", hostile_tar(("etc/motd", tarfile.REGTYPE, b"old\n")))
    made = daemon.json("POST", "/containers/create?name=lone", {"Image": "lone:1", "Cmd": ["x"]}, expect=201)["Id"]
    archive = hostile_tar(("motd", tarfile.REGTYPE, b"old\nnew\n"))
    daemon.request(
        "PUT", f"/containers/{made}/archive?path=/etc", body=archive, headers={"Content-Type": "application/x-tar"}
    )
    diff_id = daemon.json("GET", "/images/lone:1/json")["RootFS"]["Layers"][0]
    stock(images, "rmi", "-f", "lone:1")
    found = json.loads(out(images, "log", "--format", "json", "lone", "/etc/motd"))["Entries"]
    assert [(e["Origin"]["Layer"], e["Origin"]["DiffID"]) for e in found] == [(2, ""), (1, diff_id)]
    assert out(images, "diff", f"lone@{diff_id[7:19]}", "lone") == "C /etc/motd  4B → 8B\n"


def test_log_and_blame(images: str) -> None:
    found = json.loads(out(images, "log", "--format", "json", "v:3", "/usr/lib/link/text"))
    assert found["Path"] == "/srv/text"
    entries = found["Entries"]
    assert [(e["Kind"], e["File"]["Size"], e["Origin"]["Layer"]) for e in entries] == [
        (0, 14, 4),
        (0, 14, 3),
        (1, 8, 2),
    ]
    assert entries[0]["Origin"]["CreatedBy"].startswith("sh -ec sed -i")
    assert (entries[0]["Origin"]["Comment"], entries[0]["Origin"]["Author"]) == ("step v:3", "Ada")
    kinds = [line.split() for line in out(images, "log", "v:3", "/srv/a/x").splitlines()[1:]]
    assert [row[0] for row in kinds] == ["3", "2"]
    assert "removed" in kinds[0]
    lines = out(images, "blame", "v:3", "/srv/text").splitlines()
    assert [(line.split()[0], line.rpartition(") ")[2]) for line in lines] == [
        ("2", "one"),
        ("4", "TWO"),
        ("3", "three"),
    ]
    members = out(images, "blame", "v:3", "/usr/lib/link").splitlines()
    assert [(line.split()[0], line.rpartition(") ")[2]) for line in members] == [
        ("3", "a/"),
        ("4", "null"),
        ("4", "text"),
    ]
    assert refused(images, "blame", "v:3", "/srv/null") == "/srv/null is neither a file nor a directory"
    assert refused(images, "blame", "v:3", "/bin/busybox").startswith("/bin/busybox is not text")
    assert refused(images, "log", "v:3", "/nowhere") == "/nowhere was never in v:3"
    assert refused(images, "blame", "v:3@0", "/srv") == "/srv is not in v:3@0"


def test_the_graph(images: str) -> None:
    every = out(images, "history", "--graph", "v:2")
    rows = every.splitlines()
    tops = {
        name: next(row for row in rows if name in row) for name in ("v:1)", "v:2)", "v:3)", "w:2)", "busybox:latest")
    }
    assert len({row.index("*") for row in tops.values()}) == 2
    assert tops["v:1)"].index("*") == 0
    assert rows.index(tops["v:3)"]) < rows.index(tops["v:2)"]) < rows.index(tops["v:1)"])
    assert "|/" in rows
    assert set(rows) <= set(out(images, "history", "--graph").splitlines())


def test_checkout(images: str, tmp_path: Path) -> None:
    out(images, "checkout", "v:3", str(tmp_path / "new"))
    new = tmp_path / "new"
    assert (new / "srv/text").read_text() == "one\nTWO\nthree\n"
    assert stat.S_IMODE((new / "srv/text").stat().st_mode) == 0o4755
    assert (new / "srv/null").lstat().st_rdev == os.makedev(1, 3)
    assert os.readlink(new / "usr/lib/link") == "/srv"
    assert (new / "bin/busybox").stat().st_ino == (new / "bin/sh").stat().st_ino
    assert (new / "tmp").stat().st_mode & 0o7777 == 0o1777
    out(images, "checkout", "--path", "/usr/lib/link/", "v:3@-1", str(tmp_path / "part"))
    assert sorted(os.listdir(tmp_path / "part")) == ["a", "text"]
    assert "is not empty" in refused(images, "checkout", "v:1", str(new))
    assert refused(images, "checkout", "v:1@0", str(tmp_path / "none")) == "v:1@0 has no files"
    assert refused(images, "checkout", "--path", "/nope", "v:1", str(tmp_path / "none")) == "/nope is not in v:1"
    assert not (tmp_path / "none").exists()
    stock(images, "run", "-d", "--name", "live", "v:1", "sh", "-c", "echo live >/srv/text; exec sleep 1000")
    docker(images, "exec", "live", "sh", "-c", "until grep -q live /srv/text; do :; done")
    for number in range(2):
        out(images, "checkout", "--path", "/srv/text", "live", str(tmp_path / f"one{number}"))
        assert (tmp_path / f"one{number}" / "text").read_text() == "live\n"
        if not number:
            stock(images, "kill", "live")
            stock(images, "wait", "live")


def test_a_commit_can_be_repeated(daemon: Daemon, images: str) -> None:
    stock(images, "run", "--name", "done", "v:1", "true")
    for name in ("same:1", "same:2"):
        stock(images, "commit", "done", name)
    layers = [daemon.json("GET", f"/images/{name}/json")["RootFS"]["Layers"] for name in ("v:1", "same:1", "same:2")]
    assert layers[0] == layers[1] == layers[2]
    assert daemon.json("GET", "/images/same:1/history")[0]["Size"] == 0
    stock(images, "run", "--name", "made", "v:1", "sh", "-c", "mkdir /d; echo x >/d/f; rm -r /srv/a; mkdir /srv/a")
    one = out(images, "commit", "-m", "m", "--timestamp", "1700000000", "made", "same:3")
    two = out(images, "commit", "-m", "m", "made", "same:4", SOURCE_DATE_EPOCH="1700000000")
    assert one == two != out(images, "commit", "-m", "other", "--timestamp", "2023-11-14T22:13:20Z", "made", "same:5")
    assert daemon.json("GET", "/images/same:3/json")["Created"] == "2023-11-14T22:13:20Z"
    stock(images, "run", "--name", "again", "v:1", "sh", "-c", "mkdir /d; echo x >/d/f; rm -r /srv/a; mkdir /srv/a")
    ids = [
        daemon.json("GET", f"/images/{out(images, 'commit', '--timestamp', '1700000000', name).strip()}/json")
        for name in ("made", "again")
    ]
    assert ids[0]["RootFS"] == ids[1]["RootFS"]
    assert "neither a time" in refused(images, "commit", "--timestamp", "soon", "made")
    stock(images, "rm", "done", "made", "again")
    stock(images, "rmi", "-f", "same:1", "same:2", "same:3", "same:5", ids[0]["Id"])


def test_an_image_is_mounted(daemon: Daemon, images: str, tmp_path: Path) -> None:
    place = out(images, "image", "mount", "v:3").strip()
    assert Path(place, "srv/text").read_text() == "one\nTWO\nthree\n"
    with pytest.raises(OSError, match="Read-only"):
        Path(place, "srv/text").write_text("no")
    out(images, "image", "mount", "busybox", str(tmp_path))
    assert (tmp_path / "bin/sh").exists()
    assert "is not empty" in refused(images, "image", "mount", "v:1", str(tmp_path))
    assert "must be an absolute path" in _message(daemon, "POST", "/tare/v1/mounts", {"Image": "v:1", "Target": "x"})
    assert "belongs to the engine" in refused(images, "image", "mount", "v:1", str(daemon.data_root))
    assert docker(images, "rmi", "v:3").stderr.strip().endswith(f"image is mounted at {place}")
    daemon.kill()
    daemon.start()
    shown = [line.split()[-1] for line in out(images, "image", "mount").splitlines()[1:]]
    assert sorted(shown) == sorted([place, str(tmp_path)])
    inside = os.open(place, os.O_RDONLY)
    try:
        assert "is in use" in refused(images, "image", "unmount", place)
        assert out(images, "image", "unmount", "--force", "v:3") == f"{place}\n"
    finally:
        os.close(inside)
    assert not Path(place).exists()
    assert out(images, "image", "umount", str(tmp_path)) == f"{tmp_path}\n"
    assert os.listdir(tmp_path) == []
    assert refused(images, "image", "unmount", "busybox") == "image busybox is not mounted"
    assert out(images, "image", "mount").splitlines()[1:] == []
    stock(images, "rmi", "v:3")
    stock(images, "tag", "v:2", "v:3")


def _message(daemon: Daemon, method: str, path: str, body: object = None) -> str:
    raw = b"" if body is None else json.dumps(body).encode()
    status, answer = daemon.request(method, path, body=raw, headers={"Content-Type": "application/json"})
    assert 400 <= status < 500, answer
    return str(json.loads(answer)["message"])


def hostile_tar(*members: tuple[str, bytes, Any]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for name, kind, what in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o755
            if isinstance(what, bytes):
                info.size = len(what)
            else:
                info.linkname = what
            tar.addfile(info, io.BytesIO(what) if isinstance(what, bytes) else None)
    return made.getvalue()


def test_hostile_images(daemon: Daemon, images: str) -> None:
    members = [("etc", tarfile.SYMTYPE, "/../../../../root"), ("up", tarfile.SYMTYPE, "../.."), ("loop", tarfile.SYMTYPE, "loop"),
               ("abs", tarfile.SYMTYPE, str(daemon.data_root)), ("odd\udcff\n", tarfile.REGTYPE, b"x\xff\n"),
               ("pipe", tarfile.FIFOTYPE, ""), ("é", tarfile.REGTYPE, b"\0")]  # fmt: skip
    daemon.import_image("evil:1", hostile_tar(*members))
    daemon.import_image("evil:2", hostile_tar(("x", tarfile.REGTYPE, b"")))
    try:
        for path in ("/etc/passwd", "/up/etc/passwd", "/abs/state.db", "/pipe/x"):
            assert refused(images, "blame", "evil:1", path) == f"{path} is not in evil:1"
            assert refused(images, "log", "evil:1", path) == f"{path} was never in evil:1"
        assert "symbolic links" in refused(images, "blame", "evil:1", "/loop/x")
        assert refused(images, "blame", "evil:1", "/pipe") == "/pipe is neither a file nor a directory"
        assert "NUL" in _message(daemon, "GET", "/tare/v1/log?of=evil:1&path=a%00b")
        rows = [json.loads(line) for line in out(images, "diff", "--format", "json", "evil:2", "evil:1").splitlines()]
        odd = next(row for row in rows if "RawPath" in row)
        assert (odd["Path"], base64.b64decode(odd["RawPath"])) == ("/odd\\xff\n", b"/odd\xff\n")
        raw = daemon.request("GET", "/tare/v1/diff?from=evil:2&to=evil:1&patch=1")[1]
        assert b'+++ "b/odd\\377\\n"\n@@ -0,0 +1 @@\n+x\xff\n' in raw
        assert b'Binary files /dev/null and "b/\\303\\251" differ' in raw
        assert _message(daemon, "GET", "/tare/v1/diff?from=evil:1") == "bad parameter: to is needed"
    finally:
        stock(images, "rmi", "-f", "evil:1", "evil:2")


def test_a_container_that_exchanges_its_files_meanwhile(daemon: Daemon, images: str) -> None:
    """Links that come and go lead nowhere on the host, and what vanishes is no failure of the engine."""
    script = (
        "mkdir /d; echo mine >/d/passwd; while :; do mv /d /e; ln -s /etc /d; rm /d; mv /e /d; "
        "mv /d/passwd /p; ln -s /etc/passwd /d/passwd; rm /d/passwd; mkfifo /d/passwd; rm /d/passwd; mv /p /d/passwd; done"
    )
    stock(images, "run", "-d", "--name", "swap", "v:1", "sh", "-c", script)
    foreign = next(line for line in Path("/etc/passwd").read_bytes().splitlines() if line.startswith(b"daemon:"))
    seen: set[int] = set()
    logged = daemon.log.stat().st_size
    for _ in range(40):
        for query in (
            "diff?from=v:1&to=swap&patch=1",
            "diff?from=v:1&to=swap&times=1",
            "blame?of=swap&path=/d/passwd",
            "log?of=swap&path=/d/passwd",
        ):
            status, answer = daemon.request("GET", f"/tare/v1/{query}")
            assert foreign not in answer
            assert status in (200, 400, 404, 409), answer
            seen.add(status)
    assert 200 in seen
    assert b"Traceback" not in daemon.log.read_bytes()[logged:]


def test_a_shared_base_is_not_read(daemon: Daemon, images: str) -> None:
    """The base has 5,000 files more than what is different; looking at them would take longer than this."""
    files = [(f"d{n % 50}/f{n}", tarfile.REGTYPE, b"x" * 100) for n in range(5000)]
    daemon.import_image("big:1", hostile_tar(*files))
    try:
        for name in ("one", "two"):
            body = hostile_tar((f"d1/{name}", tarfile.REGTYPE, b"y"))
            made = daemon.json("POST", f"/containers/create?name={name}", {"Image": "big:1", "Cmd": ["x"]}, expect=201)
            assert daemon.request("PUT", f"/containers/{made['Id']}/archive?path=/", body=body,
                                  headers={"Content-Type": "application/x-tar"})[0] == 200  # fmt: skip
            stock(images, "commit", name, f"big:{name}")
        query = "/tare/v1/diff?from=big:one&to=big:two"
        wanted = [{"Path": "/d1/one", "Kind": 2}, {"Path": "/d1/two", "Kind": 1}]
        best = 1.0
        for _ in range(5):
            before = time.monotonic()
            rows = [json.loads(line) for line in daemon.request("GET", query)[1].splitlines()]
            best = min(best, time.monotonic() - before)
            assert [{"Path": row["Path"], "Kind": row["Kind"]} for row in rows] == wanted
        assert best < 0.030
        whole = daemon.request("GET", "/tare/v1/diff?from=big:one@0&to=big:one")[1].splitlines()
        assert len(whole) == 5000 + 50 + 1 + 1
    finally:
        stock(images, "rm", "one", "two")
        stock(images, "rmi", "big:one", "big:two", "big:1")
