"""Devices by name on a real engine: nodes, mounts, variables, groups and hooks, with crun and runc; GPUs; refusals.

Proves `engine/cdi`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tare.testing.daemon import Daemon

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
]


@pytest.fixture(scope="module")
def engine(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    directory = scratch / "cdispecs"
    directory.mkdir()
    daemon = Daemon(
        scratch / "cdi", bridge=f"tc{os.getpid()}", source=REPOSITORY / "src",
        arguments=["--bip", "10.213.9.1/24", "--cdi-spec-dir", str(directory)],
    )  # fmt: skip
    daemon.start()
    try:
        daemon.import_image("busybox:latest", rootfs_tar, changes=["ENV PATH=/bin"])
        yield daemon
    finally:
        daemon.destroy()


@pytest.fixture
def specs(engine: Daemon, scratch: Path) -> Iterator[Path]:
    directory = scratch / "cdispecs"
    yield directory
    for path in directory.iterdir():
        path.unlink()
    engine.clear()


def docker(engine: Daemon, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", "-H", engine.host, *argv],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "DOCKER_CONFIG": "/nonexistent"},
        check=False,
    )


def out(engine: Daemon, *argv: str) -> str:
    done = docker(engine, *argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write(path: Path, kind: str, **devices: dict[str, Any]) -> None:
    entries = [{"name": name, "containerEdits": edits} for name, edits in devices.items()]
    path.write_text(json.dumps({"cdiVersion": "0.6.0", "kind": kind, "devices": entries}))


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_device_brings_what_its_file_says(engine: Daemon, specs: Path, tmp_path: Path, runtime: str) -> None:
    if shutil.which(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    (tmp_path / "library").write_text("from the host")
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat >>{tmp_path}/$STAGE"]}
    edits = {
        "env": ["VENDOR=yes"],
        "deviceNodes": [{"path": "/dev/vendor0", "hostPath": "/dev/zero", "permissions": "rw"}],
        "mounts": [{"hostPath": f"{tmp_path}/library", "containerPath": "/usr/lib/v", "options": ["ro", "bind"]}],
        "hooks": [
            {"hookName": name, "env": [f"STAGE={name}"], **hook} for name in ("createRuntime", "poststart", "poststop")
        ],
        "additionalGids": [4242],
    }
    write(specs / "v.json", "vendor.com/class", one=edits)
    script = "echo $VENDOR; head -c 3 /dev/vendor0 | od -An -tx1; cat /usr/lib/v; echo; id -G; ! echo x >/usr/lib/v"
    argv = [
        "run",
        "--name",
        "box",
        "--runtime",
        runtime,
        "--device",
        "vendor.com/class=one",
        "busybox",
        "sh",
        "-c",
        script,
    ]
    lines = [line.strip() for line in out(engine, *argv).splitlines()]
    assert lines[:3] == ["yes", "00 00 00", "from the host"]
    assert "4242" in lines[3].split()
    asked = engine.json("GET", "/containers/box/json")["HostConfig"]["DeviceRequests"]
    assert (asked[0]["Driver"], asked[0]["DeviceIDs"]) == ("cdi", ["vendor.com/class=one"])
    out(engine, "rm", "box")  # after its end has been dealt with whole
    identity = [json.loads((tmp_path / name).read_text())["id"] for name in ("createRuntime", "poststart", "poststop")]
    assert len(set(identity)) == 1


def test_yaml_and_gpus(engine: Daemon, specs: Path) -> None:
    pytest.importorskip("yaml")
    (specs / "nvidia.yaml").write_text(
        "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ncontainerEdits:\n  env: [COMMON=1]\ndevices:\n"
        + "".join(f"- name: '{name}'\n  containerEdits:\n    env: [GPU_{name}=1]\n" for name in ("0", "1", "all"))
    )

    def seen(*gpus: str) -> list[str]:
        lines = out(engine, "run", "--rm", *gpus, "busybox", "env").splitlines()
        return sorted(line for line in lines if line.startswith(("GPU_", "COMMON")))

    assert seen("--gpus", "all") == ["COMMON=1", "GPU_all=1"]
    assert seen("--gpus", "2") == ["COMMON=1", "GPU_0=1", "GPU_1=1"]
    assert seen("--gpus", "device=1") == ["COMMON=1", "GPU_1=1"]
    info = engine.json("GET", "/info")
    assert info["CDISpecDirs"] == [str(specs)]
    assert {"Source": "cdi", "ID": "nvidia.com/gpu=0"} in info["DiscoveredDevices"]


def test_what_is_not_there_is_refused(engine: Daemon, specs: Path) -> None:
    done = docker(engine, "create", "--gpus", "all", "busybox", "true")
    assert 'could not select device driver "" with capabilities: [[gpu]]' in done.stderr
    write(specs / "v.json", "vendor.com/class", one={})
    (specs / "bad.json").write_text("{")
    done = docker(engine, "create", "--device", "vendor.com/class=two", "busybox", "true")
    assert "CDI device injection failed: unresolvable CDI devices vendor.com/class=two" in done.stderr
    assert "known devices: vendor.com/class=one" in done.stderr
    assert "bad.json: cannot be read" in done.stderr
    out(engine, "create", "--name", "later", "--device", "vendor.com/class=one", "busybox", "true")
    (specs / "v.json").unlink()
    assert "unresolvable CDI devices vendor.com/class=one" in docker(engine, "start", "later").stderr
    write(specs / "v.json", "vendor.com/class", one={"deviceNodes": [{"path": "/dev/nothing"}]})
    assert "/dev/nothing" in docker(engine, "start", "later").stderr
