"""`tare system check` on a real engine: engine/check/facts, engine/check/kernel, engine/check/contents, engine/check/mend,
engine/check/check, engine/check/findings, api/check.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tare.testing.audit import findings, until
from tare.testing.daemon import Daemon
from tare.testing.exchange import TAR, tar_of
from tare.testing.registry import Registry, registry
from tare.testing.stockclient import docker, out

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def own(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    """An engine whose store may be harmed."""
    made = Daemon(scratch / "check", bridge=f"tk{os.getpid()}", source=SOURCE)
    made.start()
    try:
        made.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        yield made
    finally:
        made.destroy()


def check(engine: Daemon, query: str = "") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The findings and the summary."""
    status, body = engine.request("POST", f"/tare/v1/check?{query}")
    assert status == 200, body
    lines = [json.loads(line) for line in body.splitlines()]
    assert "Summary" in lines[-1], lines[-1]
    return [line["Finding"] for line in lines if "Finding" in line], lines[-1]["Summary"]


def kinds(found: list[dict[str, Any]]) -> list[str]:
    return sorted(finding["Kind"] for finding in found)


def made_by_hand(engine: Daemon) -> str:
    """A committed image: its layer is packed from the files it was unpacked into. Returns the layer's blob."""
    out(engine.host, "run", "--name", "one", "busybox:latest", "sh", "-c", "echo hi >/x; chmod 640 /x; rm /etc/group")
    out(engine.host, "commit", "one", "web:1")
    before = {entry.name for entry in (engine.data_root / "blobs" / "sha256").iterdir()}
    out(engine.host, "run", "--rm", "web:1", "true")
    out(engine.host, "rm", "one")
    return sorted(before, key=lambda name: (engine.data_root / "blobs" / "sha256" / name).stat().st_size)[0]


def test_a_store_in_order_and_all_that_an_engine_does(own: Daemon) -> None:
    made_by_hand(own)
    out(own.host, "volume", "create", "data")
    out(own.host, "run", "-d", "--name", "two", "-v", "data:/d", "web:1", "sleep", "1000")
    found, summary = check(own)
    assert found == []
    assert (summary["Layers"], summary["Blobs"], summary["Containers"]) == (2, 2, 1)
    assert summary["BytesRead"] > 0
    own.kill()
    own.start()
    assert check(own, "quick=1")[0] == []


def test_flipped_bytes_are_found_and_rebuilt(own: Daemon) -> None:
    blob = own.data_root / "blobs" / "sha256" / made_by_hand(own)
    whole = blob.read_bytes()
    for harm in (whole[:60] + bytes([whole[60] ^ 1]) + whole[61:], whole[:-5], None):
        blob.write_bytes(harm) if harm is not None else blob.unlink()
        found, _ = check(own)
        assert kinds(found) == ["blob-damaged" if harm is not None else "blob-missing"]
        found, summary = check(own, "fix=1")
        assert [finding["Mended"] for finding in found] == [True]
        assert summary["Left"] == 0
        assert blob.read_bytes() == whole
    assert check(own)[0] == []


def test_changed_files_are_found_and_unpacked_again(own: Daemon) -> None:
    blob = made_by_hand(own)
    image = own.json("GET", "/images/web:1/json")
    upper = Path(image["GraphDriver"]["Data"]["UpperDir"])
    (upper / "x").write_text("HI")
    (upper / "added").touch()
    found, _ = check(own)
    assert kinds(found) == ["snapshot-damaged"]
    assert "/added: is not of the layer" in found[0]["Text"]
    out(own.host, "run", "-d", "--name", "busy", "web:1", "sleep", "1000")
    found, summary = check(own, "fix=1")
    assert "stop busy" in found[0]["Note"]
    assert summary["Left"] == 1
    out(own.host, "rm", "-f", "busy")
    found, summary = check(own, "fix=1")
    assert found[0]["Mended"] is True
    assert out(own.host, "run", "--rm", "web:1", "cat", "/x") == "hi"
    assert out(own.host, "run", "--rm", "web:1", "stat", "-c", "%a", "/x") == "640"
    shutil.rmtree(upper.parent)
    assert kinds(check(own, "fix=1")[0]) == ["snapshot-damaged"]
    assert out(own.host, "run", "--rm", "web:1", "cat", "/x") == "hi"
    assert check(own)[0] == []
    assert (own.data_root / "blobs" / "sha256" / blob).exists()


def test_what_nobody_owns_is_removed(own: Daemon) -> None:
    stray = "e" * 64
    data = own.data_root
    (data / "blobs" / "sha256" / stray).write_bytes(b"x")
    (data / "snapshots" / stray / "fs").mkdir(parents=True)
    (data / "containers" / stray).mkdir()
    (own.exec_root / "exits" / stray).write_text("0")
    (data / "ingest" / "half").mkdir()
    os.utime(data / "ingest" / "half", (0, 0))  # young all the same: its inode changed just now
    out(own.host, "volume", "create", "lost")
    shutil.rmtree(data / "volumes" / "lost")
    expected = [
        "blob-orphan",
        "container-orphan",
        "container-orphan",
        "snapshot-orphan",
        "volume-missing",
    ]
    assert kinds(check(own, "quick=1")[0]) == expected
    assert kinds(check(own, "quick=1&fix=1")[0]) == expected
    assert check(own)[0] == []
    assert not (data / "blobs" / "sha256" / stray).exists()
    assert (data / "ingest" / "half").exists()


def test_a_pulled_blob_is_fetched_again(own: Daemon, rootfs_tar: bytes) -> None:
    with registry() as server:
        name = f"{server.host}/base"
        server.put_image("base", "1", [rootfs_tar])
        out(own.host, "rmi", "busybox:latest")
        out(own.host, "pull", f"{name}:1")
        digest = blob_of(server)
        blob = own.data_root / "blobs" / "sha256" / digest
        whole = blob.read_bytes()
        blob.write_bytes(whole[:1000])
        assert kinds(check(own)[0]) == ["blob-damaged"]
        found, summary = check(own, "fix=1")
        assert [finding["Mended"] for finding in found] == [True], found
        assert blob.read_bytes() == whole
        assert summary["Left"] == 0
        del server.blobs[f"sha256:{digest}"]
        blob.write_bytes(whole[:1000])
        found, _ = check(own, "fix=1")
        assert "no registry gives it again" in found[0]["Note"], found


def blob_of(server: Registry) -> str:
    """The largest blob the registry has: the layer."""
    return max(server.blobs, key=lambda key: len(server.blobs[key])).removeprefix("sha256:")


def test_the_command_line(own: Daemon) -> None:
    def tare(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tare.cli", "-H", own.host, "system", "check", *words],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    done = tare()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(": nothing is wrong\n")
    (own.data_root / "blobs" / "sha256" / ("a" * 64)).write_bytes(b"x")
    done = tare("--quick", "--format", "json")
    assert done.returncode == 1
    assert [set(json.loads(line)) for line in done.stdout.splitlines()] == [{"Finding"}, {"Summary"}]
    done = tare("--fix")
    assert done.returncode == 0
    assert done.stdout.startswith("mended  blob-orphan")
    assert docker(own.host, "version").returncode == 0


def test_a_commit_after_its_image_was_removed_keeps_the_layers(own: Daemon) -> None:
    made_by_hand(own)
    out(own.host, "create", "--name", "orphan", "web:1", "sh")
    out(own.host, "start", "orphan")
    out(own.host, "wait", "orphan")
    out(own.host, "rmi", "-f", "web:1")
    out(own.host, "rmi", "-f", "busybox:latest")
    out(own.host, "commit", "--change", 'CMD ["cat", "/x"]', "orphan", "again:1")
    assert out(own.host, "run", "--rm", "again:1") == "hi"
    assert len(own.json("GET", "/images/again:1/json")["RootFS"]["Layers"]) == 2
    out(own.host, "rm", "orphan")
    assert check(own)[0] == []


def test_others_go_on_while_it_runs(own: Daemon) -> None:
    """Builds, commits and removals beside checks: nothing of theirs is a finding, nothing of theirs is removed."""
    script = "set -e; for i in 1 2 3 4; do docker run --name r$i busybox:latest touch /$i;"
    script += " docker commit r$i r:$i; docker rm r$i; docker rmi r:$i; done"
    with subprocess.Popen(
        ["sh", "-c", script], env={**os.environ, "DOCKER_HOST": own.host}, stdout=subprocess.DEVNULL
    ) as busy:
        rounds = 0
        while busy.poll() is None or not rounds:
            found, _ = check(own, "fix=1")
            assert found == []
            rounds += 1
    assert busy.returncode == 0


def test_what_the_kernel_has_lost_or_kept_is_found(own: Daemon) -> None:
    out(own.host, "run", "-d", "--name", "web", "-p", "80", "busybox:latest", "sleep", "1000")
    out(own.host, "create", "--name", "idle", "busybox:latest")
    assert findings(own) == []
    web, idle = (own.json("GET", f"/containers/{name}/json")["Id"] for name in ("web", "idle"))
    root = own.exec_root / "containers" / web / "rootfs"
    subprocess.run(["umount", "-l", root], check=True)
    stray = own.exec_root / "containers" / idle / "rootfs"
    stray.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", stray], check=True)
    links = [f"tw{os.getpid()}a", f"tw{os.getpid()}b"]
    subprocess.run(["ip", "link", "add", links[0], "type", "veth", "peer", "name", links[1]], check=True)
    subprocess.run(["ip", "link", "set", links[0], "master", own.bridge], check=True)
    try:
        found, _ = check(own, "quick=1&quiet=1")
        assert kinds(found) == ["mount-missing", "mount-orphan", "port-orphan"]
        assert {finding["Subject"] for finding in found} == {web, idle, own.bridge}
    finally:
        subprocess.run(["ip", "link", "del", links[0]], check=True)
        subprocess.run(["umount", "-l", stray], check=True)
    out(own.host, "rm", "-f", "web", "idle")
    assert findings(own) == []


def test_rules_and_ports_are_compared_with_the_records(own: Daemon) -> None:
    """Whatever nft calls things: networks of every kind and ports of every kind are as they must be."""
    options = ([], ["--internal"], ["--ipv6"], ["-o", "com.docker.network.bridge.enable_icc=false"])
    for number, given in enumerate(options):
        out(own.host, "network", "create", *given, f"n{number}")
    ports = ("80", "127.0.0.1::81", "82/udp", "127.0.0.1::83/udp", "[::1]::85")
    published = [word for port in ports for word in ("-p", port)]
    for number in (0, 2):
        out(
            own.host,
            "run",
            "-d",
            "--network",
            f"n{number}",
            "--name",
            f"c{number}",
            *published,
            "busybox:latest",
            "sleep",
            "1000",
        )
    out(own.host, "run", "-d", "--network", "n1", "--name", "c1", "busybox:latest", "sleep", "1000")
    assert findings(own) == []
    own.kill()
    own.start()
    assert findings(own) == []
    web = own.json("GET", "/containers/c0/json")
    address = web["NetworkSettings"]["Networks"]["n0"]["IPAddress"]
    number = web["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    table = f"ip tare-{own.bridge}"
    lost = f"published {{ tcp . {number} : {address} . 80 }}"
    strays = f"published {{ tcp . 1 : {address} . 80 }}", 'bridges { "stray" }'
    for command in (f"delete element {table} {lost}", *(f"add element {table} {stray}" for stray in strays)):
        subprocess.run(["nft", command], check=True)
    subprocess.run(["nft", f'delete element {table} bridges {{ "{own.bridge}" }}'], check=True)
    found, _ = check(own, "quick=1")
    assert [(finding["Kind"], finding["Subject"]) for finding in found] == [
        ("rule-missing", own.bridge),
        ("published-missing", web["Id"]),
        ("rule-orphan", "ip bridges stray"),
        ("published-orphan", f"ip published tcp . 1 : {address} . 80"),
    ]
    own.kill()
    own.start()  # the advice of docs/check.md
    assert findings(own) == []


def test_links_and_rules_of_networks_that_are_gone(own: Daemon) -> None:
    """Known by the alias this engine gave them; those of others, and what is in use, stay."""
    for name in ("gone", "busy", "kept"):
        out(own.host, "network", "create", name)
    ids = {name: own.json("GET", f"/networks/{name}")["Id"] for name in ("gone", "busy", "kept")}
    gone, busy, kept = (f"br-{ids[name][:12]}" for name in ("gone", "busy", "kept"))
    port = f"u{os.getpid()}"
    others = f"br-{os.getpid():012x}", f"o{os.getpid()}"  # named as dockerd names them, and another engine's
    table = f"ip tare-{own.bridge}"
    own.kill()
    with contextlib.closing(sqlite3.connect(own.data_root / "state.db")) as db, db:
        for name in ("gone", "busy"):
            db.execute("DELETE FROM networks WHERE id=?", (ids[name],))
    try:
        for name in others:
            subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
        subprocess.run(["ip", "link", "set", others[1], "alias", "tare another"], check=True)
        subprocess.run(["ip", "link", "add", port, "master", busy, "type", "veth", "peer", f"{port}p"], check=True)
        own.start()
        for stray in (
            f'bridges {{ "{gone}" }}',
            f'within {{ "{gone}" . "{gone}" : accept }}',
            "published { tcp . 1 : 10.9.9.9 . 80 }",
        ):
            subprocess.run(["nft", f"add element {table} {stray}"], check=True)
        expected = [
            ("link-orphan", busy),
            ("link-orphan", gone),
            ("published-orphan", "ip published tcp . 1 : 10.9.9.9 . 80"),
            ("rule-orphan", f"ip bridges {gone}"),
            ("rule-orphan", f"ip within {gone} . {gone} : accept"),
        ]
        found, _ = check(own, "quick=1&fix=1")
        assert sorted((finding["Kind"], finding["Subject"]) for finding in found) == sorted(expected)
        found, _ = check(own, "quick=1")
        assert [(finding["Kind"], finding["Subject"]) for finding in found] == [("link-orphan", busy)]
        subprocess.run(["ip", "link", "delete", port], check=True)
        assert check(own, "quick=1&fix=1")[1]["Left"] == 0
        assert findings(own) == []
        there = set(os.listdir("/sys/class/net"))
        assert there & {gone, busy} == set()
        assert there >= {kept, own.bridge, *others}
    finally:
        for name in (*others, port, gone, busy):
            subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)


def test_mounts_that_nobody_has_are_found(own: Daemon, tmp_path: Path) -> None:
    place = tmp_path / "looked-at"
    place.mkdir()
    own.call("POST", "/tare/v1/mounts", {"Image": "busybox:latest", "Target": str(place)})
    assert findings(own) == []
    subprocess.run(["umount", place], check=True)
    stray = own.exec_root / "images" / "stray"
    stray.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", stray], check=True)
    found, _ = check(own, "quick=1")
    assert [(finding["Kind"], finding["Subject"]) for finding in found] == [
        ("image-mount-missing", str(place)),
        ("mount-orphan", "run/images/stray"),
    ]
    own.kill()
    own.start()
    assert findings(own) == []


def test_what_an_export_had_mounted_goes_with_the_next_start(own: Daemon) -> None:
    out(own.host, "create", "--name", "one", "busybox:latest", "true")
    own.call("PUT", "/containers/one/archive?path=/", tar_of({"big": bytes(1 << 24)}), TAR)

    def mounted() -> list[Path]:
        return [path for path in own.exec_root.glob("export-*") if path.is_mount()]

    with socket.socket(socket.AF_UNIX) as client:  # reads nothing, so that the export goes on
        client.connect(own.host.removeprefix("unix://"))
        client.sendall(b"GET /containers/one/export HTTP/1.1\r\nHost: x\r\n\r\n")
        until("the export has begun", lambda: bool(mounted()))
        own.kill()
    assert mounted()
    own.start()
    assert findings(own) == []
    assert not list(own.exec_root.glob("export-*"))


def test_df_is_what_du_says(own: Daemon) -> None:
    made_by_hand(own)
    out(own.host, "volume", "create", "data")
    out(
        own.host,
        "run",
        "--name",
        "writer",
        "-v",
        "data:/d",
        "web:1",
        "sh",
        "-c",
        "yes | head -c 3000000 >/d/x; yes | head -c 500000 >/y",
    )
    df = own.json("GET", "/system/df")

    def du(*below: Path) -> int:
        files = [path for top in below for path in top.rglob("*") if path.is_file() and not path.is_symlink()]
        return sum({path.stat().st_ino: path.stat().st_size for path in files}.values())

    snapshots = own.data_root / "snapshots"
    container = own.json("GET", "/containers/json?all=1&size=1")[0]
    layers = [path / "fs" for path in snapshots.iterdir() if path.name not in ("init", container["Id"])]
    assert df["LayersSize"] == pytest.approx(du(*layers), rel=0.01)
    assert df["Volumes"][0]["UsageData"]["Size"] == pytest.approx(du(own.data_root / "volumes" / "data"), rel=0.01)
    assert container["SizeRw"] == pytest.approx(du(snapshots / container["Id"] / "fs"), rel=0.01)
