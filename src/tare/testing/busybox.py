"""A small root file system without a registry: the host's static busybox."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path


def busybox_tar() -> bytes:
    """A root file system made of the host's static busybox, the same bytes every time."""
    program = Path(shutil.which("busybox") or "/bin/busybox")
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:

        def add(name: str, kind: bytes, mode: int, *, data: bytes = b"", link: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.size, info.linkname = kind, mode, len(data), link
            tar.addfile(info, BytesIO(data))

        for name in ("bin", "etc", "home", "proc", "root", "sys", "dev", "usr", "usr/bin", "var"):
            add(name, tarfile.DIRTYPE, 0o755)
        add("tmp", tarfile.DIRTYPE, 0o1777)
        add("bin/busybox", tarfile.REGTYPE, 0o755, data=program.read_bytes())
        applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
        for applet in sorted(set(applets) - {"busybox"}):
            add(f"bin/{applet}", tarfile.LNKTYPE, 0o755, link="bin/busybox")
        accounts = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\napp:x:1000:1000::/home:/bin/sh\n"
        add("etc/passwd", tarfile.REGTYPE, 0o644, data=accounts)
        groups = b"root:x:0:\nwheel:x:10:app\nvideo:x:28:app\napp:x:1000:\nnogroup:x:65534:\n"
        add("etc/group", tarfile.REGTYPE, 0o644, data=groups)
    return out.getvalue()
