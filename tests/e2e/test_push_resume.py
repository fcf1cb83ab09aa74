"""A push that kill -9 interrupted goes on where it was: registry/uploads on a real engine."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from tare.testing.daemon import Daemon
from tare.testing.registry import Fault, registry
from tare.testing.stockclient import docker, out

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SOURCE = Path(__file__).resolve().parents[2] / "src"


def tar_of(data: bytes) -> bytes:
    import io
    import tarfile

    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        info = tarfile.TarInfo("big")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def test_what_the_registry_has_is_not_sent_again(scratch: Path) -> None:
    engine = Daemon(scratch / "resume", bridge=f"tu{os.getpid()}", source=SOURCE)
    engine.start()
    try:
        with registry() as server:
            name = f"{server.host}/big:1"
            engine.import_image("big:1", tar_of(random.Random(1).randbytes(5_000_000)))
            out(engine.host, "tag", "big:1", name)
            server.faults += [
                Fault(path="uploads/", method="PATCH", cut_at=2_000_000),
                Fault(path="uploads/", method="GET", times=100, status=503),  # it asks how far that is: here it dies
            ]
            client = subprocess.Popen(
                ["docker", "-H", engine.host, "push", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            while not server.requests("GET", "uploads/"):
                assert client.poll() is None
            engine.kill()
            client.wait(20)
            server.faults.clear()
            engine.start()
            done = docker(engine.host, "push", name)
            assert done.returncode == 0, done.stderr
            document = json.loads(server.manifests["big", "1"][1])
            assert all(entry["digest"] in server.blobs for entry in [document["config"], *document["layers"]])
            ranges = [seen.headers.get("Content-Range") for seen in server.requests("PATCH", "uploads/")]
            assert ranges[0] is None
            assert ranges[-1] is not None
            assert int(ranges[-1].partition("-")[0]) >= 1_000_000
            assert os.listdir(engine.data_root / "uploads") == []
            status, body = engine.request("POST", "/tare/v1/check")
            assert (status, b'Finding"' in body) == (200, False), body
    finally:
        engine.destroy()
