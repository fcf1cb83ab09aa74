"""Volumes through the stock docker command line and the docker SDK, on a real engine.

Proves `api/volumes`, `engine/volumes`, `engine/df` on a real engine.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tare.drivers import linux
from tare.testing.daemon import Daemon
from tare.testing.stockclient import docker, out

docker_sdk = pytest.importorskip("docker", reason="the docker SDK is not installed")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
]

ANONYMOUS = "com.docker.volume.anonymous"
VOLUMES_IMAGE = "volumes:1"


def refused(host: str, *argv: str) -> str:
    done = docker(host, *argv)
    assert done.returncode != 0, done.stdout
    return done.stderr


def mounts(host: str, name: str) -> dict[str, dict[str, Any]]:
    """The container's `Mounts` by destination."""
    return {m["Destination"]: m for m in json.loads(out(host, "inspect", "-f", "{{json .Mounts}}", name))}


@pytest.fixture
def source_image(daemon: Daemon, engine_host: str, rootfs_tar: bytes) -> Iterator[str]:
    """An image with content of every kind at /data, a link /outside to the host's /etc, and VOLUME /data."""
    extra = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(rootfs_tar)) as base, tarfile.open(fileobj=extra, mode="w") as tar:
        for member in base:
            tar.addfile(member, base.extractfile(member) if member.isreg() else None)

        def add(name: str, kind: bytes, mode: int, data: bytes = b"", link: str = "", owner: int = 0) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.size, info.linkname = kind, mode, len(data), link
            info.uid = info.gid = owner
            info.mtime = 1_000_000_000
            if name == "data/file":
                info.pax_headers = {"SCHILY.xattr.user.colour": "blue"}
            tar.addfile(info, io.BytesIO(data))

        add("data", tarfile.DIRTYPE, 0o2750, owner=1000)
        add("data/file", tarfile.REGTYPE, 0o4755, b"content", owner=1000)
        add("data/again", tarfile.LNKTYPE, 0o644, link="data/file")
        add("data/link", tarfile.SYMTYPE, 0o777, link="/etc/shadow")
        add("data/sub", tarfile.DIRTYPE, 0o700, owner=65534)
        add("data/sub/deep", tarfile.REGTYPE, 0o600, b"deep", owner=65534)
        add("outside", tarfile.SYMTYPE, 0o777, link="../../../etc")
    daemon.import_image(
        VOLUMES_IMAGE, extra.getvalue(), changes=['CMD ["sh"]', "ENV PATH=/usr/bin:/bin", "VOLUME /data"]
    )
    yield VOLUMES_IMAGE
    daemon.clear()
    daemon.request("DELETE", f"/images/{VOLUMES_IMAGE}?force=1")


def test_a_volumes_life(engine_host: str, daemon: Daemon) -> None:
    assert out(engine_host, "volume", "create", "--label", "a=b", "one") == "one"
    assert out(engine_host, "volume", "create", "one") == "one"
    (body,) = json.loads(out(engine_host, "volume", "inspect", "one"))
    assert body.pop("CreatedAt").endswith("Z")
    assert body == {
        "Driver": "local",
        "Labels": {"a": "b"},
        "Mountpoint": str(daemon.data_root / "volumes/one/_data"),
        "Name": "one",
        "Options": None,
        "Scope": "local",
    }
    anonymous = out(engine_host, "volume", "create")
    assert len(anonymous) == 64
    out(engine_host, "run", "--rm", "-v", "one:/x", "busybox", "sh", "-c", "echo kept > /x/f")
    assert out(engine_host, "run", "--rm", "-v", "one:/y:ro", "busybox", "cat", "/y/f") == "kept"
    assert out(engine_host, "volume", "ls", "-q", "-f", "label=a") == "one"
    assert out(engine_host, "volume", "ls", "-q", "-f", f"label={ANONYMOUS}") == anonymous
    assert out(engine_host, "volume", "ls", "-q", "-f", "name=on", "-f", "driver=local") == "one"
    assert out(engine_host, "volume", "ls", "-q", "-f", "driver=nope") == ""
    assert out(engine_host, "volume", "rm", "one", anonymous) == f"one\n{anonymous}"
    assert out(engine_host, "volume", "ls", "-q") == ""


def test_refusals_are_dockers(engine_host: str, daemon: Daemon) -> None:
    out(engine_host, "volume", "create", "two")
    for body, status, text in (
        ({"Name": "a b"}, 400, 'create a b: "a b" includes invalid characters for a local volume name'),
        ({"Name": "../x"}, 400, "includes invalid characters"),
        ({"Name": "a"}, 400, "create a: volume name is too short, names should be at least two"),
        ({"Name": "x" * 256}, 400, "too long"),
        ({"Name": "aa", "DriverOpts": {"foo": "x"}}, 400, 'create aa: invalid option: "foo"'),
        ({"Name": "aa", "DriverOpts": {"o": "bind"}}, 400, 'create aa: missing required option: "device"'),
        ({"Name": "aa", "DriverOpts": {"size": "1m"}}, 400, "quota size requested but no quota support"),
        (
            {"Name": "aa", "Driver": "nope"},
            404,
            'create aa: error looking up volume plugin nope: plugin "nope" not found',
        ),
        ({"Name": "two", "Driver": "nope"}, 409, "volume name must be unique"),
    ):
        got, raw = daemon.request(
            "POST", "/volumes/create", body=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        )
        assert (got, text in json.loads(raw)["message"]) == (status, True), raw
    assert daemon.request("PUT", "/v1.44/volumes/two", body=b"")[0] == 503
    assert "get nosuch: no such volume" in refused(engine_host, "volume", "inspect", "nosuch")
    assert "get nosuch: no such volume" in refused(engine_host, "volume", "rm", "nosuch")
    assert out(engine_host, "volume", "rm", "-f", "nosuch") == "nosuch"
    identity = out(engine_host, "create", "-v", "two:/x", "busybox", "true")
    assert f"remove two: volume is in use - [{identity}]" in refused(engine_host, "volume", "rm", "two")
    assert out(engine_host, "volume", "ls", "-q", "-f", "dangling=true") == ""
    assert out(engine_host, "volume", "ls", "-q", "-f", "dangling=false") == "two"
    out(engine_host, "rm", "-v", identity)
    assert out(engine_host, "volume", "rm", "two") == "two"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["-v", "vv:/x:xx"], "invalid mode: xx"),
        (["-v", "vv:/x", "-v", "ww:/x"], "Duplicate mount point: /x"),
        (["-v", "vv:/x:rshared"], "field BindOptions must not be specified"),
        (["--volumes-from", "nosuch"], "No such container: nosuch"),
        (["--mount", "type=bind,src=/no/such/place,dst=/x"], "bind source path does not exist: /no/such/place"),
        (["--mount", "type=volume,src=vv,dst=/x,volume-driver=nope"], 'plugin "nope" not found'),
        (["--mount", "type=volume,src=vv,dst=/x,volume-subpath=../y"], "relative path within the volume"),
        (["-v", "/bin/sh"], "cannot mount volume over existing file, file exists /bin/sh"),
    ],
)
def test_what_cannot_be_mounted_leaves_no_container_and_no_anonymous_volume(
    engine_host: str, argv: list[str], text: str
) -> None:
    assert text in refused(engine_host, "run", "--rm", *argv, "busybox", "true")
    assert out(engine_host, "ps", "-aq") == ""
    assert out(engine_host, "volume", "ls", "-q", "-f", f"label={ANONYMOUS}") == ""


def test_inspect_reads_as_dockerds(engine_host: str, daemon: Daemon, tmp_path: Path) -> None:
    out(
        engine_host, "create", "--name", "all", "-v", "nn:/b:ro", "-v", "zz:/z", "-v", "nc:/nc:nocopy", "-v", "/anon",
        "-v", f"{tmp_path}:/host:ro,rshared", "--tmpfs", "/tt", "--mount", "type=volume,src=mm,dst=/m,volume-nocopy",
        "--mount", "type=volume,dst=/m2", "--mount", f"type=bind,src={tmp_path},dst=/m3,readonly",
        "--mount", "type=tmpfs,dst=/t2,tmpfs-size=1m,readonly", "busybox", "true",
    )  # fmt: skip
    found = mounts(engine_host, "all")
    root = str(daemon.data_root / "volumes")

    def volume(name: str, destination: str, mode: str, *, rw: bool = True) -> dict[str, Any]:
        return {
            "Type": "volume", "Name": name, "Source": f"{root}/{name}/_data", "Destination": destination,
            "Driver": "local", "Mode": mode, "RW": rw, "Propagation": "",
        }  # fmt: skip

    def bind(destination: str, mode: str, propagation: str) -> dict[str, Any]:
        return {
            "Type": "bind", "Source": str(tmp_path), "Destination": destination, "Mode": mode, "RW": False,
            "Propagation": propagation,
        }  # fmt: skip

    assert found == {
        "/b": volume("nn", "/b", "ro", rw=False),
        "/z": volume("zz", "/z", "z"),
        "/nc": volume("nc", "/nc", "nocopy"),
        "/anon": volume(found["/anon"]["Name"], "/anon", ""),
        "/m": volume("mm", "/m", "z"),
        "/m2": volume(found["/m2"]["Name"], "/m2", "z"),
        "/host": bind("/host", "ro,rshared", "rshared"),
        "/m3": bind("/m3", "", "rprivate"),
        "/t2": {"Type": "tmpfs", "Source": "", "Destination": "/t2", "Mode": "", "RW": False, "Propagation": ""},
    }
    assert len(found["/anon"]["Name"]) == len(found["/m2"]["Name"]) == 64
    out(engine_host, "create", "--name", "heir", "--volumes-from", "all:ro", "-v", "own:/z", "busybox", "true")
    heir = mounts(engine_host, "heir")
    assert heir["/z"]["Name"] == "own"
    assert heir["/anon"] == {**found["/anon"], "RW": False}
    assert heir["/m"] == {**found["/m"], "Mode": "", "RW": False}
    assert heir["/host"] == {**found["/host"], "Mode": ""}


def test_the_images_content_comes_into_an_empty_volume_as_it_is(
    engine_host: str, daemon: Daemon, source_image: str
) -> None:
    out(engine_host, "create", "--name", "src", "-v", "copied:/data", source_image, "true")
    data = daemon.data_root / "volumes/copied/_data"
    assert sorted(os.listdir(data)) == ["again", "file", "link", "sub"]
    root, file, deep = os.stat(data), os.stat(data / "file"), os.stat(data / "sub/deep")
    assert (root.st_mode & 0o7777, root.st_uid) == (0o2750, 1000)
    assert (file.st_mode & 0o7777, file.st_uid, file.st_nlink) == (0o4755, 1000, 2)
    assert file.st_ino == os.stat(data / "again").st_ino
    assert os.getxattr(data / "file", "user.colour") == b"blue"
    assert (deep.st_mode & 0o7777, deep.st_uid, int(deep.st_mtime)) == (0o600, 65534, 1_000_000_000)
    assert os.readlink(data / "link") == "/etc/shadow"
    (data / "file").unlink()
    out(engine_host, "create", "-v", "copied:/data", source_image, "true")
    assert not (data / "file").exists()
    out(engine_host, "create", "-v", "bare:/data:nocopy", source_image, "true")
    assert os.listdir(daemon.data_root / "volumes/bare/_data") == []
    (daemon.data_root / "volumes/bare/_data/mine").touch()
    out(engine_host, "create", "-v", "bare:/data", source_image, "true")
    assert os.listdir(daemon.data_root / "volumes/bare/_data") == ["mine"]


def test_a_link_in_the_image_does_not_lead_out(engine_host: str, daemon: Daemon, source_image: str) -> None:
    out(engine_host, "create", "-v", "inside:/outside", source_image, "true")
    copied = daemon.data_root / "volumes/inside/_data"
    assert (copied / "passwd").read_text().startswith("root:x:0:0:root:/root:/bin/sh\nnobody")
    assert not (copied / "shadow").exists()


def test_anonymous_volumes_go_with_their_container_and_named_ones_stay(engine_host: str, source_image: str) -> None:
    assert out(engine_host, "run", "--rm", "-v", "named:/n", source_image, "cat", "/data/file") == "content"
    assert out(engine_host, "volume", "ls", "-q") == "named"
    out(engine_host, "run", "--name", "keeps", source_image, "true")
    (anonymous,) = out(engine_host, "volume", "ls", "-q", "-f", f"label={ANONYMOUS}").split()
    out(engine_host, "run", "--name", "shares", "--volumes-from", "keeps", "busybox", "test", "-f", "/data/file")
    out(engine_host, "rm", "-v", "keeps")
    assert anonymous in out(engine_host, "volume", "ls", "-q")
    out(engine_host, "rm", "-v", "shares")
    assert out(engine_host, "volume", "ls", "-q") == "named"
    out(engine_host, "run", "--name", "leaves", source_image, "true")
    out(engine_host, "rm", "leaves")
    assert len(out(engine_host, "volume", "ls", "-q").split()) == 2
    assert "named" not in out(engine_host, "volume", "prune", "-f")
    assert out(engine_host, "volume", "ls", "-q") == "named"
    assert "named" in out(engine_host, "volume", "prune", "-af")
    assert out(engine_host, "volume", "ls", "-q") == ""


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_read_only_subpath_and_volumes_from(engine_host: str, daemon: Daemon, runtime: str) -> None:
    out(
        engine_host,
        "run",
        "--rm",
        "-v",
        "tree:/t",
        "busybox",
        "sh",
        "-c",
        "mkdir -p /t/a/b; echo in > /t/a/b/f; ln -s /etc /t/bad",
    )
    run = ["run", "--rm", "--runtime", runtime]
    for readonly in (["-v", "tree:/t:ro"], ["--mount", "type=volume,src=tree,dst=/t,readonly"]):
        assert "Read-only file system" in refused(engine_host, *run, *readonly, "busybox", "touch", "/t/x")
    sub = "type=volume,src=tree,dst=/t,volume-subpath="
    assert out(engine_host, *run, "--mount", f"{sub}a/b", "busybox", "ls", "/t") == "f"
    assert out(engine_host, *run, "--mount", f"{sub}a/b/f", "busybox", "cat", "/t") == "in"
    assert "escapes the base directory" in refused(engine_host, *run, "--mount", f"{sub}bad", "busybox", "ls", "/t")
    assert "no such file" in refused(engine_host, *run, "--mount", f"{sub}none", "busybox", "ls", "/t")
    out(engine_host, "create", "--name", "owner", "-v", "tree:/t", "busybox")
    assert out(engine_host, *run, "--volumes-from", "owner", "busybox", "cat", "/t/a/b/f") == "in"
    assert "Read-only" in refused(engine_host, *run, "--volumes-from", "owner:ro", "busybox", "touch", "/t/x")
    assert os.listdir(daemon.exec_root / "mounts") == []


def test_an_empty_part_of_a_volume_is_filled(engine_host: str) -> None:
    out(
        engine_host, "run", "--rm", "-v", "parts:/p", "busybox", "sh", "-c", "mkdir /p/bin /p/used; echo 1 >/p/used/one"
    )
    part = "type=volume,src=parts,dst=/bin,volume-subpath="
    assert out(engine_host, "run", "--rm", "--mount", f"{part}bin", "busybox", "ls", "/bin/busybox") == "/bin/busybox"
    for name in ("used", "none"):
        assert refused(engine_host, "run", "--rm", "--mount", f"{part}{name}", "busybox", "ls")
    look = ["run", "--rm", "-v", "parts:/p:ro", "busybox"]
    assert out(engine_host, *look, "ls", "/p") == "bin\nused"
    assert out(engine_host, *look, "ls", "/p/used") == "one"
    sizes = out(engine_host, *look, "stat", "-c", "%a %u %s", "/bin/busybox", "/p/bin/busybox").split("\n")
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_an_image_as_a_mount(engine_host: str, daemon: Daemon, source_image: str, runtime: str) -> None:
    run = ["run", "--rm", "--runtime", runtime, "--network", "none"]

    def create(name: str, source: str, **options: Any) -> tuple[int, bytes]:
        body = {
            "Image": "busybox",
            "Cmd": ["sh", "-c", "ls /i; cat /i/file; touch /i/x"],
            "HostConfig": {
                "Runtime": runtime,
                "Mounts": [{"Type": "image", "Source": source, "Target": "/i", **options}],
            },
        }
        return daemon.request(
            "POST",
            f"/v1.48/containers/create?name={name}",
            body=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )

    assert create("whole", "nosuch:1")[0] == 400
    assert create("whole", source_image, ImageOptions={"Subpath": "data"})[0] == 201
    done = docker(engine_host, "start", "-a", "whole")
    assert done.stdout == "again\nfile\nlink\nsub\ncontent"
    assert "Read-only file system" in done.stderr
    found = mounts(engine_host, "whole")["/i"]
    assert (found["Type"], found["Name"], found["RW"]) == ("image", source_image, False)
    assert "conflict" in refused(engine_host, "rmi", source_image)
    assert out(engine_host, *run, "busybox", "echo", "on") == "on"
    assert os.listdir(daemon.exec_root / "mounts") == []


def test_a_removed_image_stays_for_who_mounts_it(engine_host: str, daemon: Daemon, source_image: str) -> None:
    """Also when the image that the container itself stands on is removed: neither is lost over the other."""
    layers = daemon.data_root / "snapshots"
    before = set(os.listdir(layers))
    out(engine_host, "create", "--name", "makes", "busybox")
    out(engine_host, "commit", "-c", "ENV A=b", "makes", "own")
    out(engine_host, "cp", "/etc/hostname", "makes:/mark")
    out(engine_host, "commit", "makes", "own")
    out(engine_host, "rm", "makes")
    out(engine_host, "tag", source_image, "second")
    mount = ["--mount", "type=image,src=second,dst=/i"]
    out(engine_host, "create", "--name", "user", *mount, "own", "sh", "-c", "ls /mark; cat /i/data/file")
    for order in (["own", "second", source_image], []):
        for image in order:
            out(engine_host, "rmi", "-f", image)
        done = docker(engine_host, "start", "-a", "user")
        assert (done.stdout, done.stderr) == ("/mark\ncontent", ""), order
        daemon.kill()
        daemon.start()
    out(engine_host, "rm", "user")
    left = set(os.listdir(layers)) - before
    assert not left, left


def mounted_at(place: Path) -> list[str]:
    """What is mounted at a place of the host: file system types."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [fields[fields.index("-") + 1] for fields in lines if fields[4] == str(place)]


def test_mount_options_are_mounted_while_in_use_and_shared(engine_host: str, daemon: Daemon, tmp_path: Path) -> None:
    out(engine_host, "volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=1000", "mem")
    place = daemon.data_root / "volumes/mem/_data"
    assert mounted_at(place) == []
    out(engine_host, "run", "-d", "--name", "one", "-v", "mem:/m", "busybox", "sleep", "1000")
    assert mounted_at(place) == ["tmpfs"]
    out(engine_host, "run", "-d", "--name", "other", "-v", "mem:/m", "busybox", "sh", "-c", "echo x > /m/f; sleep 1000")
    daemon.kill()
    daemon.start()
    out(engine_host, "rm", "-f", "one")
    assert mounted_at(place) == ["tmpfs"]
    assert (
        out(engine_host, "run", "--rm", "-v", "mem:/m", "busybox", "sh", "-c", "cat /m/f; df -k /m | grep -c 1024")
        == "x\n1"
    )
    out(engine_host, "rm", "-f", "other")
    assert mounted_at(place) == []
    (tmp_path / "mine").write_text("precious")
    out(engine_host, "volume", "create", "-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind,ro", "mine")
    assert out(engine_host, "run", "--rm", "-v", "mine:/m", "busybox", "cat", "/m/mine") == "precious"
    assert "Read-only" in refused(engine_host, "run", "--rm", "-v", "mine:/m", "busybox", "touch", "/m/x")
    out(engine_host, "volume", "rm", "mine", "mem")
    assert (tmp_path / "mine").read_text() == "precious"
    out(engine_host, "volume", "create", "-o", "type=none", "-o", "device=/no/such", "-o", "o=bind", "bad")
    assert "failed to mount local volume: mount /no/such:" in refused(
        engine_host, "run", "--rm", "-v", "bad:/m", "busybox", "true"
    )
    assert out(engine_host, "ps", "-aq") == ""


def test_nfs_is_mounted_or_the_kernel_has_none(engine_host: str) -> None:
    """127.0.0.1 serves none: whatever the kernel can do, the start fails in words and leaves nothing."""
    options = ["-o", "type=nfs", "-o", "o=addr=127.0.0.1,vers=4,soft,timeo=1,retrans=0", "-o", "device=:/export"]
    out(engine_host, "volume", "create", *options, "far")
    said = refused(engine_host, "run", "--rm", "-v", "far:/m", "busybox", "true")
    assert "failed to mount local volume: mount :/export:" in said
    assert "data: addr=127.0.0.1,vers=4" in said
    if "no such device" in said:
        assert "this kernel has no file system of type nfs" in said
    assert out(engine_host, "ps", "-aq") == ""
    out(engine_host, "volume", "rm", "far")


def test_a_tmpfs_volume_is_filled_when_it_is_mounted(engine_host: str, source_image: str) -> None:
    out(engine_host, "volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mem")
    assert out(
        engine_host, "run", "--rm", "-v", "mem:/data", source_image, "stat", "-c", "%a %u", "/data", "/data/file"
    ) == ("2750 1000\n4755 1000")


def test_binds_make_their_source_and_pass_events_on(engine_host: str, tmp_path: Path) -> None:
    made = tmp_path / "new/place"
    out(engine_host, "run", "--rm", "-v", f"{made}:/x", "busybox", "touch", "/x/f")
    assert (made / "f").exists()
    out(engine_host, "create", "--name", "later", "--mount", f"type=bind,src={made},dst=/x", "busybox", "true")
    shutil.rmtree(made)
    assert "bind source path does not exist" in refused(engine_host, "start", "later")
    assert not made.exists()


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_read_only_holds_for_what_is_mounted_below(engine_host: str, tmp_path: Path, runtime: str) -> None:
    below = tmp_path / "below"
    below.mkdir()
    run = ["run", "--rm", "--runtime", runtime, "--network", "none"]
    deep = f"type=bind,src={tmp_path},dst=/m,readonly"
    linux.mount("tmpfs", str(below), "tmpfs", linux.MS_NOSUID)
    try:
        assert "Read-only" in refused(engine_host, *run, "-v", f"{tmp_path}:/m:ro", "busybox", "touch", "/m/below/x")
        assert "Read-only" in refused(engine_host, *run, "--mount", deep, "busybox", "touch", "/m/below/x")
        (tmp_path / "file").write_text("words")
        for form in (["-v", f"{tmp_path}/file:/run/f:ro"], ["--mount", f"type=bind,src={tmp_path}/file,dst=/f,ro"]):
            assert "Read-only" in refused(engine_host, *run, *form, "busybox", "sh", "-c", "touch /f /run/f")
        out(engine_host, *run, "--mount", f"{deep},bind-recursive=writable", "busybox", "touch", "/m/below/x")
        out(engine_host, *run, "--mount", f"{deep},bind-recursive=disabled", "busybox", "test", "!", "-e", "/m/below/x")
        options = out(engine_host, *run, "-v", f"{below}:/m", "busybox", "grep", " /m ", "/proc/self/mounts").split()[3]
        assert "nosuid" in options.split(",")
    finally:
        linux.umount(str(below))


def test_events(engine_host: str, daemon: Daemon) -> None:
    out(engine_host, "volume", "create", "ev")
    identity = out(engine_host, "create", "-v", "ev:/x:ro", "busybox", "true")
    out(engine_host, "start", "-a", identity)
    out(engine_host, "rm", identity)
    out(engine_host, "volume", "rm", "ev")
    out(engine_host, "volume", "prune", "-f")
    until = str(int(time.time()) + 1)
    lines = out(engine_host, "events", "--since", "1", "--until", until, "--format", "{{json .}}", "-f", "type=volume")
    told = [json.loads(line) for line in lines.splitlines()]
    ours = [(e["Action"], e["Actor"]["Attributes"]) for e in told if e["Actor"]["ID"] == "ev"]
    used = {"container": identity, "driver": "local"}
    assert ours == [
        ("create", {"driver": "local"}),
        ("mount", {**used, "destination": "/x", "propagation": "", "read/write": "false"}),
        ("unmount", used),
        ("destroy", {"driver": "local"}),
    ]
    assert told[-1]["Action"] == "prune"
    assert told[-1]["Actor"] == {"ID": "", "Attributes": {"reclaimed": "0"}}


def test_two_creates_at_once_share_one_volume(engine_host: str, source_image: str, daemon: Daemon) -> None:
    failures: list[str] = []

    def create(number: int) -> None:
        done = docker(engine_host, "create", "--name", f"c{number}", "-v", "race:/data", source_image, "true")
        if done.returncode:
            failures.append(done.stderr)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    directory = daemon.data_root / "volumes/race"
    assert os.listdir(directory) == ["_data"]
    assert "file" in os.listdir(directory / "_data")


def test_a_daemon_killed_while_it_fills_a_volume_leaves_it_empty_or_whole(
    engine_host: str, daemon: Daemon, rootfs_tar: bytes, tmp_path: Path
) -> None:
    extra = io.BytesIO(rootfs_tar)
    with tarfile.open(fileobj=extra, mode="a") as tar:
        for number in range(3000):
            info = tarfile.TarInfo(f"srv/{number}")
            info.size = 2000
            tar.addfile(info, io.BytesIO(os.urandom(1000) + bytes(1000)))
    daemon.import_image("many:1", extra.getvalue(), changes=['CMD ["true"]'])
    directory = daemon.data_root / "volumes/big"
    client = subprocess.Popen(
        ["docker", "-H", engine_host, "create", "-v", "big:/srv", "many:1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while not (directory / "_stage").exists():
            assert time.monotonic() < deadline
            assert client.poll() is None
        daemon.kill()
    finally:
        client.kill()
        client.wait()
    daemon.start()
    assert os.listdir(directory / "_data") == []
    out(engine_host, "create", "-v", "big:/srv", "many:1")
    assert len(os.listdir(directory / "_data")) == 3000
    assert os.listdir(directory) == ["_data"]
    assert mounted_below(daemon.exec_root) == []
    daemon.clear()
    daemon.request("DELETE", "/images/many:1?force=1")


def mounted_below(directory: Path) -> list[str]:
    """Mount points below a directory."""
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [place for place in places if place.startswith(f"{directory}/")]


def test_df_agrees_with_du(engine_host: str, daemon: Daemon) -> None:
    out(
        engine_host, "run", "--name", "fat", "-v", "big:/v", "busybox", "sh", "-c",
        "dd if=/dev/urandom of=/v/f bs=1M count=8; ln /v/f /v/g; dd if=/dev/urandom of=/w bs=1M count=4",
    )  # fmt: skip
    report = daemon.json("GET", "/system/df")
    assert set(report) == {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"}
    (volume,) = report["Volumes"]
    du = int(out_of(["du", "-sk", str(daemon.data_root / "volumes/big/_data")]).split()[0]) * 1024
    assert abs(volume["UsageData"]["Size"] - du) <= du / 100
    assert volume["UsageData"]["RefCount"] == 1
    (container,) = report["Containers"]
    assert container["SizeRw"] == 4 << 20
    assert report["BuildCache"] == []
    sizes = [(image["Size"], image["SharedSize"]) for image in report["Images"]]  # other tests' images may share layers
    assert sum(size - shared for size, shared in sizes) <= report["LayersSize"] <= sum(size for size, _ in sizes)
    assert set(daemon.json("GET", "/system/df?type=volume")) == set(report)
    assert daemon.json("GET", "/system/df?type=volume")["Images"] is None
    table = out(engine_host, "system", "df")
    assert "Local Volumes   1         1         8.389MB" in table
    assert "big" in out(engine_host, "system", "df", "-v")


def out_of(argv: list[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_the_sdk(engine_host: str) -> None:
    client = docker_sdk.DockerClient(base_url=engine_host)
    try:
        volume = client.volumes.create("sdk", driver="local", labels={"k": "v"})
        assert (volume.name, volume.attrs["Labels"]) == ("sdk", {"k": "v"})
        assert client.volumes.get("sdk").id == "sdk"
        with pytest.raises(docker_sdk.errors.NotFound):
            client.volumes.get("nosuch")
        mount = docker_sdk.types.Mount("/m", "sdk", type="volume", labels={"x": "y"}, no_copy=True)
        assert (
            client.containers.run("busybox", ["sh", "-c", "echo hi > /m/f; cat /m/f"], mounts=[mount], remove=True)
            == b"hi\n"
        )
        assert (
            client.containers.run(
                "busybox", ["cat", "/n/f"], volumes={"sdk": {"bind": "/n", "mode": "ro"}}, remove=True
            )
            == b"hi\n"
        )
        assert [v.name for v in client.volumes.list(filters={"label": "k=v"})] == ["sdk"]
        assert client.df()["Volumes"][0]["UsageData"] == {"RefCount": 0, "Size": 3}
        volume.remove()
        assert client.volumes.prune(filters={"all": True}) == {"VolumesDeleted": [], "SpaceReclaimed": 0}
    finally:
        client.close()


@pytest.mark.parametrize(
    ("options", "kind", "writable", "more"),
    [
        (["-v", "{d}:/m"], "bind", True, "rprivate"),
        (["--volume", "{d}:/m:ro,rslave"], "bind", False, "rslave"),
        (["-v", "{d}:/m:z,shared"], "bind", True, "shared"),
        (["--mount", "type=bind,source={d},target=/m"], "bind", True, "rprivate"),
        (["--mount", "type=bind,src={d},destination=/m,readonly=true"], "bind", False, "rprivate"),
        (["--mount", "type=bind,src={d},dst=/m,ro=1,bind-propagation=rshared"], "bind", False, "rshared"),
        (["-v", "spelled:/m"], "volume", True, "spelled"),
        (["-v", "spelled:/m:rw,nocopy"], "volume", True, "spelled"),
        (["--mount", "source=spelled,target=/m"], "volume", True, "spelled"),
        (["--mount", "type=volume,src=spelled,dst=/m,readonly"], "volume", False, "spelled"),
        (["--tmpfs", "/m:ro,size=64k"], "tmpfs", False, ""),
        (["--mount", "type=tmpfs,target=/m,tmpfs-size=64k,tmpfs-mode=1770"], "tmpfs", True, ""),
    ],
)
def test_every_spelling_of_a_mount(
    engine_host: str, tmp_path: Path, options: list[str], kind: str, writable: bool, more: str
) -> None:
    """What inspect says, and whether the container can write: as its own /proc/self/mountinfo has it."""
    argv = [word.replace("{d}", str(tmp_path)) for word in options]
    script = "touch /m/f 2>/dev/null && echo yes; grep ' /m ' /proc/self/mountinfo"
    out(engine_host, "run", "--name", "box", *argv, "busybox", "sh", "-c", script)
    said = out(engine_host, "logs", "box").splitlines()
    assert (said[0] == "yes") is writable
    fields = said[-1].split()
    assert fields[5].startswith("rw" if writable else "ro")
    if kind == "tmpfs":
        assert "size=64k" in said[-1]
        return
    found = mounts(engine_host, "box")["/m"]
    assert (found["Type"], found["RW"]) == (kind, writable)
    assert (found["Propagation"] if kind == "bind" else found["Name"]) == more


def test_what_is_mounted_later_is_passed_on_as_asked(engine_host: str, tmp_path: Path) -> None:
    """rshared: from the host to the container and back; rslave: to the container alone; rprivate: neither."""
    linux.mount("tmpfs", str(tmp_path), "tmpfs", 0, None)
    try:
        linux.mount("", str(tmp_path), None, linux.MS_SHARED, None)
        (tmp_path / "here").mkdir()
        (tmp_path / "there").mkdir()
        for mode in ("rshared", "rslave", "rprivate"):
            out(
                engine_host, "run", "-d", "--stop-timeout", "0", "--name", mode, "--cap-add", "SYS_ADMIN",
                "--security-opt", "seccomp=unconfined", "-v", f"{tmp_path}:/m:{mode}", "busybox", "sleep", "600",
            )  # fmt: skip
        linux.mount("tmpfs", str(tmp_path / "here"), "tmpfs", 0, None)
        (tmp_path / "here/new").touch()
        seen = {mode: out(engine_host, "exec", mode, "ls", "/m/here") for mode in ("rshared", "rslave", "rprivate")}
        assert seen == {"rshared": "new", "rslave": "new", "rprivate": ""}
        for mode, reaches in (("rprivate", False), ("rslave", False), ("rshared", True)):
            out(engine_host, "exec", mode, "mount", "-t", "tmpfs", "tmpfs", "/m/there")
            assert (mounted_at(tmp_path / "there") == ["tmpfs"]) is reaches
    finally:
        for name in ("rshared", "rslave", "rprivate"):
            docker(engine_host, "rm", "-f", name)
        subprocess.run(["umount", "-R", str(tmp_path)], check=True)
