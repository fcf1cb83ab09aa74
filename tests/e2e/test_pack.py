"""Containers that move between two engines that share nothing: packed, unpacked, sent, and refused.

Exercises engine/pack, engine/unpack, api/moving and their commands.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tare.testing.daemon import Daemon

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.root

# It prints once what it made, then waits. Only the first start makes anything.
PROGRAM = (
    "test -e /x || { mkdir /x; echo 1 > /x/f; ln /x/f /x/g; chown 1000:10 /x/f; rm /bin/wget; rm -r /home; mkdir /home;"
    " chmod 700 /home; echo d > /data/d; chown -R 1000:1000 /data; chmod 2750 /data; echo q > /anon/q; };"
    " echo ready; echo oops >&2; trap 'exit 3' TERM; while :; do sleep 0.1; done"
)
LOOK = (
    "stat -c '%n %a %u %g %h %F' /x/f /x/g /home /data /data/d /anon/q; cat /x/g /data/d /anon/q; ls /bin/wget /home /x"
)


@pytest.fixture(scope="module")
def both(scratch: Path, rootfs_tar: bytes) -> Iterator[tuple[Daemon, Daemon]]:
    """Two engines with data roots of their own; the first has the image base:1."""
    first, second = (
        Daemon(scratch / name, bridge=f"tt{name}0", source=REPOSITORY / "src") for name in ("packA", "packB")
    )
    try:
        first.start()
        second.start()
        first.import_image("base:1", rootfs_tar, changes=['CMD ["sh"]', "VOLUME /anon", "ENV PATH=/usr/bin:/bin"])
        yield first, second
    finally:
        first.destroy()
        second.destroy()


@pytest.fixture
def engines(both: tuple[Daemon, Daemon]) -> Iterator[tuple[Daemon, Daemon]]:
    """The same without containers, volumes and networks; the second without images."""
    yield both
    for engine in both:
        engine.clear()
    for image in both[1].json("GET", "/images/json?all=1"):
        both[1].request("DELETE", f"/images/{image['Id']}?force=1")


def run(engine: Daemon, *words: str, data: bytes | None = None, path: str = "") -> subprocess.CompletedProcess[bytes]:
    """The command line. path: looked through first for programs."""
    return subprocess.run(
        [sys.executable, "-m", "tare.cli", *words],
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY / "src"),
            "DOCKER_HOST": engine.host,
            "PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"],
        },
        input=data,
        stdin=subprocess.DEVNULL if data is None else None,
        capture_output=True,
        timeout=60,
        check=False,
    )


def tare(engine: Daemon, *words: str, data: bytes | None = None, path: str = "") -> str:
    done = run(engine, *words, data=data, path=path)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def pack(engine: Daemon, *words: str) -> bytes:
    done = run(engine, "pack", *words)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def follow_until_ready(engine: Daemon, name: str) -> None:
    """Read the log until the program says so."""
    with subprocess.Popen(
        [sys.executable, "-m", "tare.cli", "logs", "-f", name],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "DOCKER_HOST": engine.host},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"ready\n"
        follower.terminate()


def make_web(engine: Daemon, *words: str) -> str:
    """A container that has everything, running."""
    tare(engine, "network", "create", "--subnet", "10.211.7.0/24", "--label", "net=1", "front")
    tare(engine, "volume", "create", "--label", "vol=1", "data")
    identity = tare(
        engine, "run", "-d", "--name", "web", "--network", "front", "--ip", "10.211.7.9", "--network-alias", "www",
        "-v", "data:/data", "--label", "who=me", "--health-cmd", "test -e /x/g", "--health-interval", "50ms",
        "--restart", "on-failure:2", *words, "base:1", "sh", "-c", PROGRAM,
    ).strip()  # fmt: skip
    follow_until_ready(engine, "web")
    tare(engine, "wait", "--condition", "healthy", "web")
    os.setxattr(engine.exec_root / "containers" / identity / "rootfs" / "x" / "f", "user.colour", b"blue")
    return identity


def inspect(engine: Daemon, name: str) -> Any:
    return engine.json("GET", f"/containers/{name}/json")


def left_of(engine: Daemon) -> dict[str, object]:
    """Everything that a pack could leave."""
    root = engine.data_root
    return {
        "containers": engine.json("GET", "/containers/json?all=1"),
        "images": [image["Id"] for image in engine.json("GET", "/images/json?all=1")],
        "volumes": engine.json("GET", "/volumes")["Volumes"],
        "networks": sorted(network["Name"] for network in engine.json("GET", "/networks")),
        "ingest": os.listdir(root / "ingest"),
        "blobs": sorted(os.listdir(root / "blobs" / "sha256")),
        "snapshots": sorted(name for name in os.listdir(root / "snapshots") if len(name) == 64),
        "directories": [*os.listdir(root / "containers"), *(n for n in os.listdir(root / "volumes") if n[0] != ".")],
    }


def test_a_running_container_arrives_as_it_is(engines: tuple[Daemon, Daemon]) -> None:
    here, there = engines
    make_web(here)
    looked = run(here, "exec", "web", "sh", "-c", LOOK).stdout
    packed = pack(here, "--logs", "web")
    before = inspect(here, "web")
    assert before["State"]["Running"]
    done = run(there, "unpack", data=packed)
    assert done.returncode == 0, done.stderr.decode()
    # The two engines share one kernel, so the subnet is taken there.
    assert b"network front: subnet 10.211.7.0/24 is taken here" in done.stderr
    assert b"network front: 10.211.7.9 is not an address of it here" in done.stderr

    after = inspect(there, "web")
    assert (after["Id"], after["State"]["Status"]) == (done.stdout.decode().strip(), "running")
    assert run(there, "exec", "web", "sh", "-c", LOOK).stdout == looked
    rootfs = there.exec_root / "containers" / after["Id"] / "rootfs"
    assert os.getxattr(rootfs / "x" / "f", "user.colour") == b"blue"
    same = ("Image", "Path", "Args", "Created", "Driver")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    changed = {"Hostname"}
    assert {k: v for k, v in after["Config"].items() if k not in changed} == {
        k: v for k, v in before["Config"].items() if k not in changed
    }
    assert after["HostConfig"] == before["HostConfig"]
    assert [(m["Name"], m["Destination"]) for m in after["Mounts"]] == [
        (m["Name"], m["Destination"]) for m in before["Mounts"]
    ]
    assert "www" in after["NetworkSettings"]["Networks"]["front"]["Aliases"]
    assert there.json("GET", "/networks/front")["Labels"] == {"net": "1"}
    assert there.json("GET", "/volumes/data")["Labels"] == {"vol": "1"}
    assert "ready\n" in tare(there, "logs", "web")
    tare(there, "wait", "--condition", "healthy", "web")
    history = [engine.json("GET", "/images/base:1/history") for engine in engines]
    assert history[0] == history[1]
    assert tare(there, "diff", "web") == tare(here, "diff", "web")


def test_a_stopped_container_keeps_its_id_where_it_came_from(engines: tuple[Daemon, Daemon]) -> None:
    here, _ = engines
    identity = make_web(here)
    assert run(here, "stop", "web").returncode == 0
    before = inspect(here, "web")
    packed, again = pack(here, "web"), pack(here, "web")
    assert packed == again
    tare(here, "rm", "-v", "web")
    tare(here, "volume", "rm", "data")
    tare(here, "network", "rm", "front")
    assert tare(here, "unpack", data=packed).strip() == identity
    after = inspect(here, "web")
    assert after["State"] == before["State"]
    assert after["State"]["ExitCode"] == 3
    assert after["NetworkSettings"]["Networks"]["front"]["IPAMConfig"] == {"IPv4Address": "10.211.7.9"}
    assert here.json("GET", "/networks/front")["IPAM"]["Config"][0]["Subnet"] == "10.211.7.0/24"
    tare(here, "start", "web")
    assert tare(here, "exec", "web", "cat", "/data/d", "/anon/q") == "d\nq\n"
    # A second one takes another name and id, and neither volume nor network again.
    done = run(here, "unpack", "--name", "two", data=packed)
    assert done.returncode == 0
    assert done.stdout.decode().strip() != identity
    assert b"volume data exists here and is kept as it is" in done.stderr
    # What has no name is not shared: the copy has its own, with what was in it.
    one, two = ({m["Destination"]: m["Name"] for m in inspect(here, name)["Mounts"]} for name in ("web", "two"))
    assert one["/data"] == two["/data"] == "data"
    assert one["/anon"] != two["/anon"]
    tare(here, "exec", "web", "sh", "-c", "echo other > /anon/q")
    tare(here, "rm", "-f", "web")  # they ask for the same address
    tare(here, "start", "two")
    assert tare(here, "exec", "two", "cat", "/anon/q") == "q\n"


def test_what_was_frozen_or_shall_not_start(engines: tuple[Daemon, Daemon]) -> None:
    here, there = engines
    tare(here, "run", "-d", "--name", "cold", "base:1", "sleep", "1000")
    tare(here, "pause", "cold")
    packed = pack(here, "cold")
    assert inspect(here, "cold")["State"]["Status"] == "paused"
    tare(there, "unpack", data=packed)
    assert inspect(there, "cold")["State"]["Status"] == "paused"
    tare(there, "unpack", "--name", "later", "--no-start", data=packed)
    assert inspect(there, "later")["State"]["Status"] == "created"


def test_volumes_are_a_choice(engines: tuple[Daemon, Daemon]) -> None:
    here, there = engines
    make_web(here)
    done = run(here, "pack", "--volumes", "dta", "web")
    assert b"the container has no volume dta: it has data, " in done.stderr
    tare(there, "unpack", "--no-start", data=pack(here, "--volumes", "data", "web"))
    tare(there, "start", "web")
    assert tare(there, "exec", "web", "sh", "-c", "ls /anon; cat /data/d") == "d\n"

    tare(here, "exec", "web", "sh", "-c", "echo newer > /data/d")
    packed = pack(here, "web")
    done = run(there, "unpack", "--replace", "--replace-volumes", data=packed)
    assert b"volume data is in use" in done.stderr
    assert tare(there, "exec", "web", "cat", "/data/d") == "d\n"
    tare(there, "stop", "web")
    old = inspect(there, "web")["Id"]
    tare(there, "unpack", "--replace", "--replace-volumes", data=packed)
    assert tare(there, "exec", "web", "cat", "/data/d") == "newer\n"
    assert inspect(there, "web")["Id"] != old
    assert len(there.json("GET", "/containers/json?all=1")) == 1


@pytest.fixture
def ssh(engines: tuple[Daemon, Daemon], tmp_path: Path) -> str:
    """A program of that name which runs the remote command here, at the second engine."""
    script = tmp_path / "ssh"
    script.write_text(
        "#!/bin/sh\n"
        'while [ "$1" != -- ]; do shift; done\n'
        'test "$2 $3" = "two.example tare" || exit 255\n'
        "shift 3\n"
        f'exec {sys.executable} -m tare.cli -H {engines[1].host} "$@"\n'
    )
    script.chmod(0o755)
    return str(tmp_path)


def sent_bytes(text: bytes) -> float:
    words = text.decode().split("sent ")[1].split()[0]
    units = {"kB": 1e3, "MB": 1e6}
    return float(words[:-2]) * units[words[-2:]]


def test_send_sends_no_layer_twice(engines: tuple[Daemon, Daemon], ssh: str) -> None:
    here, there = engines
    make_web(here)
    first = run(here, "send", "web", "ssh://root@two.example", path=ssh)
    assert first.returncode == 0, first.stderr.decode()
    assert b"1 layer, 0 of them there already" in first.stderr
    assert inspect(there, "web")["State"]["Running"]
    second = run(here, "send", "--name", "two", "--no-start", "web", there.host)
    assert second.returncode == 0, second.stderr.decode()
    assert b"1 layer, 1 of them there already" in second.stderr
    assert sent_bytes(first.stderr) > 500_000
    assert sent_bytes(second.stderr) < 50_000
    # The name is taken: nothing is stopped for that.
    refused = run(here, "send", "--remove", "web", "ssh://root@two.example", path=ssh)
    assert refused.returncode == 1
    assert b"--replace puts it in the place of that one" in refused.stderr
    assert inspect(here, "web")["State"]["Running"]
    moved = run(here, "send", "--remove", "--replace", "web", "ssh://root@two.example", path=ssh)
    assert moved.returncode == 0, moved.stderr.decode()
    assert here.json("GET", "/containers/json?all=1") == []
    assert inspect(there, "web")["Id"] == moved.stdout.decode().strip()
    # Every command goes through ssh.
    assert "web" in tare(here, "-H", "ssh://root@two.example", "ps", path=ssh)


def test_a_port_that_is_taken_is_said_before_anything_is_there(engines: tuple[Daemon, Daemon]) -> None:
    here, there = engines
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    tare(here, "run", "-d", "--name", "web", "-p", f"127.0.0.1:{port}:80", "base:1", "sleep", "1000")
    packed = pack(here, "--stop", "web")
    assert inspect(here, "web")["State"]["Status"] == "exited"
    nothing = left_of(there)
    with socket.create_server(("127.0.0.1", port)):
        done = run(there, "unpack", data=packed)
        assert done.returncode == 1
        assert f"port {port}/tcp of this host is taken".encode() in done.stderr
        assert left_of(there) == nothing
        tare(there, "unpack", "--no-start", data=packed)
    tare(there, "start", "web")


def test_stop_would_remove_what_is_run_with_rm(engines: tuple[Daemon, Daemon]) -> None:
    here, there = engines
    tare(here, "run", "-d", "--rm", "--name", "brief", "base:1", "sleep", "1000")
    done = run(here, "pack", "--stop", "brief")
    assert b"is removed when it stops (--rm)" in done.stderr
    assert run(here, "send", "--remove", "brief", there.host).returncode == 0
    assert inspect(there, "brief")["State"]["Running"]
    assert here.json("GET", "/containers/json?all=1") == []


def test_an_image_that_is_gone_is_said(engines: tuple[Daemon, Daemon]) -> None:
    here, _ = engines
    tare(here, "import", "-", "lost:1", data=bytes(10240))
    tare(here, "create", "--name", "web", "lost:1", "true")
    tare(here, "rmi", "-f", "lost:1")
    done = run(here, "pack", "web")
    assert done.returncode == 1
    assert b"the image of container web has been removed" in done.stderr


# --- packs nobody should trust


@pytest.fixture
def packed(engines: tuple[Daemon, Daemon]) -> bytes:
    make_web(engines[0])
    return pack(engines[0], "--logs", "--stop", "web")


def test_what_is_cut_or_flipped_is_refused_and_leaves_nothing(engines: tuple[Daemon, Daemon], packed: bytes) -> None:
    there = engines[1]
    nothing = left_of(there)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = [m for m in archive.getmembers() if m.name.startswith("blobs/sha256/")]
    wrong = [packed[: len(packed) // 2], packed[:-4096], b""]
    for member in members:
        at = member.offset_data + member.size // 2
        wrong.append(packed[:at] + bytes([packed[at] ^ 0x20]) + packed[at + 1 :])
    for data in wrong:
        done = run(there, "unpack", data=data)
        assert done.returncode == 1, done.stderr.decode()
        assert left_of(there) == nothing
    tare(there, "unpack", data=packed)


def rewritten(packed: bytes, change: Callable[[dict[str, Any], dict[str, bytes]], None]) -> bytes:
    """The pack with another document, all digests right. change: gets the document and the blobs by digest."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive.getmembers() if m.isfile()}  # type: ignore[union-attr]
    index = json.loads(files["index.json"])
    manifest = json.loads(files[named(index["annotations"]["vnd.tare.container"])])
    document = json.loads(files[named(manifest["config"]["digest"])])
    added: dict[str, bytes] = {}
    change(document, added)
    for digest, data in added.items():
        files[named(digest)] = data
        manifest["layers"].append({"mediaType": "x/y", "digest": digest, "size": len(data)})
    raw = json.dumps(document).encode()
    manifest["config"] |= {"digest": digest_of(raw), "size": len(raw)}
    about = json.dumps(manifest).encode()
    index["annotations"]["vnd.tare.container"] = digest_of(about)
    files |= {named(digest_of(raw)): raw, named(digest_of(about)): about, "index.json": json.dumps(index).encode()}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def named(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def tar_of(*members: tuple[str, bytes, str]) -> bytes:
    """name, kind, link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            archive.addfile(info)
    return out.getvalue()


def with_blob(key: str, data: bytes) -> Callable[[dict[str, Any], dict[str, bytes]], None]:
    def change(document: dict[str, Any], added: dict[str, bytes]) -> None:
        added[digest_of(data)] = data
        if key == "Volume":
            document["Volumes"][0]["Content"] = digest_of(data)
        else:
            document[key] = digest_of(data)

    return change


OUT = tar_of(("../../../escaped", tarfile.REGTYPE, ""))
HOSTILE: dict[str, tuple[Callable[[dict[str, Any], dict[str, bytes]], None], bytes]] = {
    "layer": (with_blob("Layer", OUT), b"outside of the root"),
    "volume": (with_blob("Volume", OUT), b"outside of the root"),
    "log link": (with_blob("Log", tar_of(("container.log", tarfile.SYMTYPE, "/etc/passwd"))), b"is no log file"),
    "log name": (with_blob("Log", tar_of(("hosts", tarfile.REGTYPE, ""))), b"is no log file"),
    "no layer": (lambda d, _: d.update(Layer=""), b"has no layer"),
    "unknown blob": (lambda d, _: d.update(Log="sha256:" + "0" * 64), b"does not name"),
    "other image": (lambda d, _: d["Image"].update(Id="sha256:" + "0" * 64), b"not the one the container stands on"),
    "mount": (lambda d, _: d["Mounts"][0].update(destination="../x"), b"mount destination"),
    "capability": (lambda d, _: d["HostConfig"].update(CapAdd=["NOSUCH"]), b"NOSUCH"),
    "runtime": (lambda d, _: d["HostConfig"].update(Runtime="/bin/sh"), b"runtime"),
    "name": (lambda d, _: d.update(Name="../x"), b"Invalid container name"),
    "volume name": (
        lambda d, _: (d["Volumes"][0].update(Name="../x"), d["Mounts"][0].update(name="../x")),  # type: ignore[dict-item]
        b"",
    ),
    "network": (lambda d, _: d["Networks"][0]["Definition"].update(Driver="nosuch"), b"nosuch"),
    "format": (lambda d, _: d.update(Format=9), b"newer engine"),
}


def test_hostile_packs_are_refused_and_leave_nothing(engines: tuple[Daemon, Daemon], packed: bytes) -> None:
    there = engines[1]
    nothing = left_of(there)
    for what, (change, said) in HOSTILE.items():
        done = run(there, "unpack", data=rewritten(packed, change))
        assert done.returncode == 1, what
        assert said in done.stderr, (what, done.stderr)
        assert left_of(there) == nothing, what
    tare(there, "unpack", data=rewritten(packed, lambda *_: None))


def test_an_archive_of_an_image_is_no_container(engines: tuple[Daemon, Daemon]) -> None:
    here, there = engines
    done = run(there, "unpack", data=run(here, "save", "base:1").stdout)
    assert b"there is no container in this archive: `tare load` reads archives of images" in done.stderr


def test_an_engine_killed_in_the_middle_leaves_nothing(engines: tuple[Daemon, Daemon]) -> None:
    here, there = engines
    tare(here, "run", "--name", "big", "base:1", "dd", "if=/dev/urandom", "of=/noise", "bs=1M", "count=16")
    packed = pack(here, "big")
    nothing = left_of(there)
    half = packed[: 12 * 1024 * 1024]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(there.socket))
        head = f"POST /tare/v1/containers/unpack HTTP/1.1\r\nHost: x\r\nContent-Length: {len(packed)}\r\n\r\n"
        connection.sendall(head.encode() + half)  # returns once the engine has taken in all but what a socket holds
        assert os.listdir(there.data_root / "ingest") != []
        there.kill()
    there.start()
    assert left_of(there) == nothing
    tare(there, "unpack", data=packed)
    assert tare(there, "diff", "big") == tare(here, "diff", "big")


# --- other programs


def test_other_tools_see_the_image_in_a_pack(engines: tuple[Daemon, Daemon], packed: bytes, tmp_path: Path) -> None:
    there = engines[1]
    file = tmp_path / "web.tar"
    file.write_bytes(packed)
    stock = subprocess.run(
        ["docker", "-H", there.host, "load", "-i", file], capture_output=True, text=True, timeout=60, check=False
    )
    assert stock.returncode == 0, stock.stderr
    assert "Loaded image: base:1" in stock.stdout
    there.request("DELETE", "/images/base:1?force=1")
    tare(there, "unpack", "-i", str(file))
    shown = subprocess.run(
        ["docker", "-H", there.host, "inspect", "-f", "{{.State.Status}} {{.Config.Labels.who}}", "web"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert shown.stdout == "running me\n"
    if shutil.which("skopeo"):
        seen = subprocess.run(
            ["skopeo", "inspect", "--config", f"oci-archive:{file}"], capture_output=True, timeout=60, check=False
        )
        assert seen.returncode == 0, seen.stderr.decode()
        assert json.loads(seen.stdout)["config"]["Volumes"] == {"/anon": {}}
