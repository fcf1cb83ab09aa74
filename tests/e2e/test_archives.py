"""Archives of other tools, both ways: the same image by its ID, its diffIDs and its blobs, and the same bytes twice."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tare.testing.daemon import Daemon
from tare.testing.stockclient import out

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SOURCE = Path(__file__).resolve().parents[2] / "src"
NAME = "localhost/other/tool:1"
Convert = Callable[[Path, Path, Path], Path]


def run(*argv: str | Path) -> str:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout.strip()


def packed(directory: Path, target: Path) -> Path:
    """An OCI layout as a tar."""
    with tarfile.open(target, "w") as tar:
        for path in sorted(directory.rglob("*")):
            tar.add(path, path.relative_to(directory), recursive=False)
    return target


def skopeo(kind: str) -> Convert:
    def convert(source: Path, work: Path, target: Path) -> Path:
        ours = f"docker-archive:{source}" if kind == "docker-archive" else f"oci-archive:{source}:1"
        run("skopeo", "--tmpdir", work, "copy", ours, f"{kind}:{target}:{NAME}")
        return target

    return convert


def skopeo_directory(source: Path, work: Path, target: Path) -> Path:
    run("skopeo", "--tmpdir", work, "copy", f"oci-archive:{source}:1", f"oci:{work / 'layout'}:{NAME}")
    return packed(work / "layout", target)


def containers_tool(program: str, kind: str) -> Convert:
    """podman and buildah, with storage of their own."""

    def convert(source: Path, work: Path, target: Path) -> Path:
        store = ["--root", work / "store", "--runroot", work / "run", "--storage-driver", "vfs"]
        try:
            if program == "podman":
                run("podman", *store, "load", "-i", source)
                run("podman", *store, "save", "--format", kind, "-o", target, NAME)
            else:
                run("buildah", *store, "pull", f"docker-archive:{source}")
                run("buildah", *store, "push", NAME, f"{kind}:{target}:{NAME}")
        finally:
            shutil.rmtree(work / "store", ignore_errors=True)
            shutil.rmtree(work / "run", ignore_errors=True)
        return target

    return convert


def umoci(source: Path, work: Path, target: Path) -> Path:
    """What umoci reads and writes again: another name in the layout."""
    run("skopeo", "--tmpdir", work, "copy", f"oci-archive:{source}:1", f"oci:{work / 'layout'}:first")
    run("umoci", "tag", "--image", f"{work / 'layout'}:first", "second")
    run("umoci", "rm", "--image", f"{work / 'layout'}:first")
    return packed(work / "layout", target)


def containerd(source: Path, work: Path, target: Path) -> Path:
    """In and out of a containerd of our own, with its content store and no snapshots."""
    settings = work / "config.toml"
    settings.write_text(
        f'version = 2\nroot = "{work}/root"\nstate = "{work}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{work}/s"\n'
    )
    daemon = subprocess.Popen(["containerd", "--config", settings], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        assert daemon.stderr is not None
        assert any(b"containerd successfully booted" in line for line in daemon.stderr)
        drain = threading.Thread(target=daemon.stderr.read, daemon=True)
        drain.start()
        ctr = ("ctr", "--address", f"{work}/s", "images")
        run(*ctr, "import", "--no-unpack", source)
        run(*ctr, "export", target, NAME)
    finally:
        daemon.terminate()
        daemon.wait(20)
    drain.join(20)
    daemon.stderr.close()
    return target


REWRITTEN = {"podman oci-archive", "buildah oci-archive"}
"""These turn a docker-archive into an OCI image, which has another config document: the same layers, another ID."""

TOOLS: dict[str, tuple[str, Convert]] = {
    "skopeo docker-archive": ("skopeo", skopeo("docker-archive")),
    "skopeo oci-archive": ("skopeo", skopeo("oci-archive")),
    "skopeo oci directory": ("skopeo", skopeo_directory),
    "podman docker-archive": ("podman", containers_tool("podman", "docker-archive")),
    "podman oci-archive": ("podman", containers_tool("podman", "oci-archive")),
    "buildah docker-archive": ("buildah", containers_tool("buildah", "docker-archive")),
    "buildah oci-archive": ("buildah", containers_tool("buildah", "oci-archive")),
    "umoci": ("umoci", umoci),
    "containerd": ("ctr", containerd),
}


@pytest.fixture
def two_layers(daemon: Daemon, tmp_path: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """An image of two layers, as inspect shows it, and its archive. The engine does not have it any more."""
    daemon.clear()
    out(daemon.host, "run", "--name", "maker", "busybox:latest", "sh", "-c", "echo hi >/x; rm /etc/group; ln -s x /y")
    out(daemon.host, "commit", "--change", 'CMD ["cat", "/y"]', "maker", NAME)
    out(daemon.host, "rm", "maker")
    image = daemon.json("GET", f"/images/{NAME}/json")
    archive = tmp_path / "ours.tar"
    out(daemon.host, "save", "-o", str(archive), NAME)
    out(daemon.host, "rmi", NAME)
    yield image, archive
    daemon.request("DELETE", f"/images/{image['Id']}?force=1")


@pytest.mark.parametrize("tool", TOOLS)
def test_what_others_make_of_our_archive_is_the_same_image(
    daemon: Daemon, two_layers: tuple[dict[str, Any], Path], tool: str, tmp_path: Path, scratch: Path
) -> None:
    program, convert = TOOLS[tool]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    image, archive = two_layers
    work = scratch / "tools"  # podman takes no long paths
    work.mkdir()
    try:
        theirs = convert(archive, work, tmp_path / "theirs.tar")
    finally:
        shutil.rmtree(work)
    out(daemon.host, "load", "-i", str(theirs))
    known = [entry["Id"] for entry in daemon.json("GET", "/images/json?all=1")]
    if tool not in REWRITTEN:
        assert image["Id"] in known
    same = [
        one for one in (daemon.json("GET", f"/images/{id_}/json") for id_ in known) if one["RootFS"] == image["RootFS"]
    ]
    assert len(same) == 1
    loaded = same[0]
    try:
        assert loaded["Config"]["Cmd"] == image["Config"]["Cmd"]
        assert out(daemon.host, "run", "--rm", loaded["Id"]) == "hi"
        assert "group" not in out(daemon.host, "run", "--rm", loaded["Id"], "ls", "/etc").split()
    finally:
        daemon.request("DELETE", f"/images/{loaded['Id']}?force=1")


def test_the_same_input_gives_the_same_bytes(daemon: Daemon, tmp_path: Path, rootfs_tar: bytes) -> None:
    daemon.clear()

    def digest(*words: str) -> str:
        file = tmp_path / "out"
        out(daemon.host, words[0], "-o", str(file), *words[1:])
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()

    assert digest("save", "busybox:latest") == digest("save", "busybox:latest")
    out(daemon.host, "create", "--name", "still", "busybox:latest")
    assert digest("export", "still") == digest("export", "still")
    diffs, blobs = set(), set()
    for name in ("twice:1", "twice:2"):
        daemon.import_image(name, rootfs_tar)
        diffs.add(tuple(daemon.json("GET", f"/images/{name}/json")["RootFS"]["Layers"]))
        status, body = daemon.request("GET", f"/images/{name}/get")
        assert status == 200
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            blobs.add(max(tar.getmembers(), key=lambda member: member.size).name)
        out(daemon.host, "rmi", name)
    assert (len(diffs), len(blobs)) == (1, 1)


def test_who_is_refused_early_need_not_end_its_input(daemon: Daemon) -> None:
    """The command line ends with the engine's words while it still waits for bytes (Python would abort)."""
    settings = {**os.environ, "PYTHONPATH": str(SOURCE), "DOCKER_HOST": daemon.host}
    with subprocess.Popen(
        [sys.executable, "-m", "tare.cli", "import", "-c", "FOO bar", "-"],
        env=settings, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.wait(30) == 1
        said = process.stderr.read()
        assert said == "Error response from daemon: dockerfile parse error: unknown instruction: FOO\n"
