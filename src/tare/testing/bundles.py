"""A bundle with busybox in it, run by crun or runc directly: what the kernel makes of our specification."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tare.base.ids import random_id
from tare.containers import capabilities, spec
from tare.drivers import cgroups, host
from tare.wire.config import ContainerConfig, HostConfig

FACTS = host.read(capabilities.ALL)
PARENT = "/tare-test"


def make_rootfs(root: Path) -> Path:
    """The least a container needs: busybox and the files it looks at."""
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "sbin"):
        (root / name).mkdir(parents=True)
    shutil.copy("/usr/bin/busybox", root / "bin/busybox")
    for applet in ("sh", "cat", "ls", "id", "mount", "ping", "sleep", "mkdir", "chmod", "grep", "hostname", "true"):
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/var/www:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nweb:x:33:\naudio:x:29:web\n")
    return root


def spec_input(
    rootfs: Path,
    argv: Sequence[str],
    *,
    config: ContainerConfig | None = None,
    host_config: HostConfig | None = None,
    **changes: Any,
) -> spec.SpecInput:
    """A `SpecInput` with everything ordinary."""
    identity = random_id()
    values: dict[str, Any] = {
        "id": identity,
        "config": config or ContainerConfig(),
        "host": host_config or HostConfig(),
        "argv": argv,
        "env": ["PATH=/bin"],
        "cwd": "/",
        "user": spec.User(additional_gids=(0,)),
        "hostname": "box",
        "rootfs": str(rootfs),
        "facts": FACTS,
        "cgroup_path": cgroups.path_for(identity, PARENT),
    }
    return spec.SpecInput(**(values | changes))


def run(
    given: spec.SpecInput, bundle: Path, *, runtime: str = "crun", stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """`crun run`; the state directory and the cgroup are gone afterwards."""
    bundle.mkdir(parents=True, exist_ok=True)
    (bundle / "config.json").write_text(json.dumps(spec.render(given)))
    try:
        return subprocess.run(
            [runtime, "--root", str(bundle / "state"), "run", "--bundle", str(bundle), given.id],
            input=stdin,
            capture_output=True,
            timeout=30,
            check=False,
            env={"PATH": os.environ["PATH"]},
        )
    finally:
        layout = cgroups.read_layout()
        cgroups.remove(layout, given.cgroup_path)
        if not cgroups.owned(layout, PARENT):
            cgroups.remove(layout, PARENT)


def run_exec(
    given: spec.SpecInput, process: dict[str, Any], bundle: Path, *, runtime: str = "crun"
) -> subprocess.CompletedProcess[bytes]:
    """Start `given` detached, execute `process` in it, and remove it."""
    bundle.mkdir(parents=True, exist_ok=True)
    (bundle / "config.json").write_text(json.dumps(spec.render(given)))
    (bundle / "process.json").write_text(json.dumps(process))
    base = [runtime, "--root", str(bundle / "state")]
    environment = {"PATH": os.environ["PATH"]}

    def call(*argv: str, check: bool) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*base, *argv], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=check, env=environment
        )

    layout = cgroups.read_layout()
    try:
        # Its streams must not be our pipes: the container would keep them open.
        with open(os.devnull, "r+b") as nothing:
            subprocess.run(
                [*base, "run", "--detach", "--bundle", str(bundle), given.id],
                stdin=nothing,
                stdout=nothing,
                stderr=nothing,
                timeout=30,
                check=True,
                env=environment,
            )
        return call("exec", "--process", str(bundle / "process.json"), given.id, check=False)
    finally:
        call("delete", "--force", given.id, check=False)
        cgroups.remove(layout, given.cgroup_path)
        if not cgroups.owned(layout, PARENT):
            cgroups.remove(layout, PARENT)
