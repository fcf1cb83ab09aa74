"""`--storage-opt size`: enforced where the file system counts projects, refused in words elsewhere.

Exercises drivers/quota through the engine, on an ext4 of its own with project quotas where this kernel has them.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tare.drivers.quota import Quotas
from tare.testing.daemon import Daemon

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.root


def create(engine: Daemon, options: dict[str, str], *cmd: str) -> tuple[int, dict[str, str]]:
    body = {"Image": "busybox", "Cmd": list(cmd), "HostConfig": {"StorageOpt": options}}
    status, answer = engine.request(
        "POST", "/containers/create", body=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    return status, json.loads(answer)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": "ten"}, "storage option size: invalid size: 'ten'"),
        ({"colour": "red"}, "Unknown option colour"),
        ({"size": "10M"}, "only for overlay over xfs with 'pquota' mount option"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(daemon: Daemon, options: dict[str, str], words: str) -> None:
    if options == {"size": "10M"} and Quotas(daemon.data_root / "snapshots").is_served():
        pytest.skip("the disk of this machine serves project quotas")
    before = sorted(path.name for path in (daemon.data_root / "snapshots").iterdir())
    status, answer = create(daemon, options, "true")
    assert status == 400
    assert words in answer["message"]
    assert sorted(path.name for path in (daemon.data_root / "snapshots").iterdir()) == before


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    image, place = tmp_path / "disk", tmp_path / "mnt"
    with image.open("wb") as file:
        file.truncate(128 << 20)
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-O", "project,quota", "-E", "quotatype=prjquota", image], check=True)
    done = subprocess.run(["mount", "-o", "loop,prjquota", image, place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this kernel has no project quotas")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_container_cannot_write_more_than_it_was_given(disk: Path, rootfs_tar: bytes) -> None:
    engine = Daemon(disk / "e", bridge="ttquota0", source=REPOSITORY / "src")
    try:
        engine.start()
        engine.import_image("busybox:latest", rootfs_tar)
        fill = ("sh", "-c", "dd if=/dev/zero of=/full bs=1M count=20")
        codes = {}
        for size in ("10M", "40M"):
            status, made = create(engine, {"size": size}, *fill)
            assert status == 201, made
            engine.json("POST", f"/containers/{made['Id']}/start", expect=204)
            codes[size] = engine.json("POST", f"/containers/{made['Id']}/wait")["StatusCode"]
        assert codes == {"10M": 1, "40M": 0}
    finally:
        engine.destroy()
