"""Directory trees of our own: removing them, syncing them, counting their bytes."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from pathlib import Path


def discard(path: Path) -> None:
    """Remove a tree; returning means it is not there. Never crosses a mount point that is still mounted."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return


def delete_in_background(path: Path) -> None:
    """Delete a tree nobody can name any more, in a thread that no request waits for. The next start finishes it."""
    threading.Thread(
        target=shutil.rmtree, args=(path,), kwargs={"ignore_errors": True}, name="tare-trash", daemon=True
    ).start()


def usage(path: Path) -> int:
    """Bytes of the files below `path` on its file system, each once however often linked (`du --apparent-size`).

    What disappears meanwhile does not count; a missing `path` counts 0.
    """
    try:
        device = os.stat(path).st_dev
    except FileNotFoundError:
        return 0
    total = 0
    seen: set[int] = set()
    pending = [os.fspath(path)]
    while pending:
        try:
            members = os.scandir(pending.pop())
        except (FileNotFoundError, NotADirectoryError):
            continue
        with members:
            for member in members:
                try:
                    found = member.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if found.st_dev != device:
                    continue
                if stat.S_ISDIR(found.st_mode):
                    pending.append(member.path)
                    continue
                if found.st_nlink > 1:
                    if found.st_ino in seen:
                        continue
                    seen.add(found.st_ino)
                if stat.S_ISREG(found.st_mode):
                    total += found.st_size
    return total
