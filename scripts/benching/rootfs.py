"""The root file system that is measured with."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from benching.bench import Size
from benching.engines import MIB, Missing, run
from tare.testing.mirror import NoMirror, debian_mirror


def make_rootfs(work: Path, size: Size, *, is_quick: bool) -> tuple[Path, str]:
    """A tar of a root file system: Debian by debootstrap where that works, else busybox; filled up to the size wanted."""
    root = work / "rootfs"
    what = "debootstrap minbase" if not is_quick and debootstrap(root) else "busybox"
    if what == "busybox":
        shutil.rmtree(root, ignore_errors=True)
        busybox = shutil.which("busybox")
        if busybox is None:
            raise Missing("busybox is not installed: apt-get install busybox-static")
        (root / "bin").mkdir(parents=True)
        shutil.copy(busybox, root / "bin" / "busybox")
        for applet in ("sh", "true", "mkdir", "yes", "head", "sleep", "cat"):
            (root / "bin" / applet).symlink_to("busybox")
    have = [path.lstat() for path in root.rglob("*")]
    files, missing = len(have), size.image_mib * MIB - sum(found.st_blocks * 512 for found in have)
    wanted = max(1, size.files - files)
    text = os.urandom(1 << 12) + b"the same text again and again, as in most files\n" * 100
    for number in range(wanted):
        place = root / "fill" / f"d{number // 100}"
        place.mkdir(parents=True, exist_ok=True)
        each = max(0, missing // wanted)
        (place / f"f{number}").write_bytes((text * (each // len(text) + 1))[:each])
    tar = work / "rootfs.tar"
    run("tar", "-C", root, "-cf", tar, ".")
    shutil.rmtree(root)
    return tar, f"{what}, filled to {tar.stat().st_size // MIB} MiB and {max(files, size.files)} entries"


def debootstrap(root: Path) -> bool:
    """Whether a minimal system could be made with the machine's own package mirror."""
    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    if shutil.which("debootstrap") is None or not release:
        return False
    try:
        mirror = debian_mirror(release)
    except NoMirror:
        return False
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", release, root, mirror],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return done.returncode == 0
