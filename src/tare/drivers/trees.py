"""Removing directory trees of our own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def discard(path: Path) -> None:
    """Remove a tree; returning means it is not there. Never crosses a mount point that is still mounted."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return


def sync_directory(path: Path) -> None:
    """Make the directory's entries survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
