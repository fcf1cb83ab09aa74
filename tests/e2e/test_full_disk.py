"""A data root on a small file system that fills up in the middle: a clear error, nothing left behind, the next try works."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tare.testing.daemon import Daemon
from tare.testing.registry import registry
from tare.testing.stockclient import docker, out

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SOURCE = Path(__file__).resolve().parents[2] / "src"
SIZE = 32 * 1024 * 1024
EXT4 = SIZE + 8 * 1024 * 1024  # with what the file system takes for itself


@pytest.fixture(params=["tmpfs", "ext4"])
def small(scratch: Path, rootfs_tar: bytes, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """An engine with 32 MiB for everything: in memory, or on a disk that learns late that it is full."""
    made = Daemon(scratch / "full", bridge=f"tf{os.getpid()}", source=SOURCE)
    made.data_root.mkdir()
    if request.param == "tmpfs":
        kind = ["-t", "tmpfs", "-o", f"size={SIZE}", "none"]
    else:
        disk = scratch / "disk"
        with disk.open("wb") as file:
            file.truncate(EXT4)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", disk], check=True)
        kind = ["-o", "loop", str(disk)]
    subprocess.run(["mount", *kind, made.data_root], check=True)
    try:
        made.start()
        made.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        yield made
        made.clear()
        made.stop()
    finally:
        made.kill()
        subprocess.run(["umount", "-l", made.data_root], check=True)
    made.destroy()


def big(size: int) -> bytes:
    """A tar of one file that does not compress."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        info = tarfile.TarInfo("big")
        info.size = size
        tar.addfile(info, io.BytesIO(random.Random(1).randbytes(size)))
    return made.getvalue()


def stored(engine: Daemon) -> list[str]:
    """Files of the store beside the records."""
    places = ("blobs/sha256", "snapshots", "ingest", "downloads", "containers", "builds")
    return sorted(f"{place}/{name}" for place in places for name in os.listdir(engine.data_root / place))


def findings(engine: Daemon) -> list[str]:
    status, body = engine.request("POST", "/tare/v1/check")
    assert status == 200
    return [line for line in body.decode().splitlines() if "Finding" in json.loads(line)]


def await_room(engine: Daemon) -> None:
    """What was given up is deleted by a thread of its own, which a busy machine may keep waiting."""
    ends = time.monotonic() + 30
    while os.listdir(engine.data_root / "trash"):
        assert time.monotonic() < ends


def test_import_load_pull_and_commit(small: Daemon, tmp_path: Path) -> None:
    before = stored(small)
    file = tmp_path / "big.tar"
    file.write_bytes(big(SIZE))
    done = docker(small.host, "import", str(file), "big:1")
    assert "no space left on device" in done.stderr, done.stdout + done.stderr
    assert stored(small) == before
    with registry() as server:
        server.put_image("big", "1", [big(SIZE)])
        done = docker(small.host, "pull", f"{server.host}/big:1")
        assert done.returncode == 1
        assert "no space left on device" in done.stderr
    assert stored(small) == before
    archive = tmp_path / "archive.tar"
    archive.write_bytes(big(SIZE))
    done = docker(small.host, "load", "-i", str(archive))
    assert "no space left on device" in done.stderr
    assert stored(small) == before
    await_room(small)
    out(
        small.host, "create", "--name", "fills", "busybox:latest", "sh", "-c", "dd if=/dev/urandom of=/x bs=1M count=18"
    )
    out(small.host, "start", "-a", "fills")
    done = docker(small.host, "commit", "fills", "too:big")
    assert done.returncode == 1, done.stdout
    assert "no space left on device" in done.stderr
    out(small.host, "rm", "-f", "fills")
    assert stored(small) == before
    assert findings(small) == []
    small.import_image("next:1", big(100_000))
    assert out(small.host, "run", "--rm", "busybox:latest", "echo", "goes on") == "goes on"
    out(small.host, "rmi", "next:1")
    assert stored(small) == before
