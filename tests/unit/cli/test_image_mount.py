from __future__ import annotations

import os
from typing import Any

MOUNT = {"Image": "web:1", "ImageID": "sha256:" + "a" * 64, "Target": "/mnt/x", "MountedAt": "2020-01-02T03:04:05Z"}


def test_mount_list_unmount(engine: Any, tare: Any) -> None:
    engine.answers["POST /tare/v1/mounts"] = (201, MOUNT)
    assert tare("image", "mount", "web:1") == (0, "/mnt/x\n", "")
    assert engine.requests[-1][2] == {"Image": "web:1", "Target": ""}
    assert tare("image", "mount", "web:1", "here")[0] == 0
    assert engine.requests[-1][2] == {"Image": "web:1", "Target": os.path.abspath("here")}
    engine.answers["GET /tare/v1/mounts"] = (200, [MOUNT])
    heading, row = tare("image", "mount")[1].splitlines()
    assert heading.split() == ["IMAGE", "IMAGE", "ID", "MOUNTED", "TARGET"]
    assert (row.split()[:2], row.split()[-1]) == (["web:1", "a" * 12], "/mnt/x")
    engine.answers["DELETE /tare/v1/mounts"] = (200, [MOUNT, MOUNT])
    assert tare("image", "unmount", "web:1") == (0, "/mnt/x\n/mnt/x\n", "")
    assert tare("image", "umount", "-f", "./here")[0] == 0
    assert engine.requests[-1][1].startswith("/tare/v1/mounts?force=1&of=%2F")
    engine.answers["DELETE /tare/v1/mounts"] = (409, {"message": "in use"})
    assert tare("image", "unmount", "web:1") == (1, "", "Error response from daemon: in use\n")
