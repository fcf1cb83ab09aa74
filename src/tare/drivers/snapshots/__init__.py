"""Snapshots: file systems that share what they have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from msgspec import Struct

MODIFIED, ADDED, DELETED = 0, 1, 2


class Change(Struct, frozen=True):
    """One line of `docker diff`. `path` is absolute in the container; `kind` is MODIFIED, ADDED or DELETED."""

    path: str
    kind: int


class Usage(Struct, frozen=True):
    """What a snapshot holds by itself, without its parents: bytes of files, number of inodes."""

    size_bytes: int
    inodes: int


class Ids(Struct, frozen=True):
    """Whose ids a mount shows. user_fd: a user namespace; uid, gid: what its root is outside. On disk nothing is shifted."""

    user_fd: int
    uid: int
    gid: int


class Snapshotter(Protocol):
    """Keeps committed snapshots (immutable, named by a chainID) and active ones (writable, keyed by a container id).

    Life of an active snapshot: `prepare` → `mount` → `unmount` → … → `remove`. A committed one appears by
    `commit_from` and goes by `remove`, once nothing has it as parent (the caller counts). Names and keys are 64 hex
    digits. Every method blocks, `prepare`, `mount`, `unmount` and `remove` for a fraction of a millisecond (`remove`
    only moves to the trash); use a thread for `changes` and `usage`.
    """

    def prepare(self, key: str, parent: str | None, *, limit: int = 0) -> None:
        """Make a writable snapshot on top of the committed `parent` (None: empty). Raises Conflict, NotFound.

        limit: bytes that may be written into it, 0 for as many as there are; only where `serves_limits`.
        """
        ...

    def serves_limits(self) -> bool:
        """Whether a writable snapshot can be limited in size."""
        ...

    def syncs(self, key: str) -> list[Path]:
        """What must be synced for a prepared snapshot to survive a power cut, in any order. Raises NotFound."""
        ...

    def mount(self, key: str, target: Path, *, readonly: bool = False, ids: Ids | None = None) -> None:
        """Mount the active snapshot with the init layer at the existing directory `target`. Raises NotFound."""
        ...

    def view(self, name: str, target: Path, *, ids: Ids | None = None) -> None:
        """Mount a committed snapshot as it is, read-only and without the init layer, at `target`. Raises NotFound."""
        ...

    def unmount(self, target: Path) -> None:
        """Detach; returning means that nothing of ours is mounted there."""
        ...

    def remove(self, key: str) -> None:
        """Returning means that it is not there any more. Never raises for something absent."""
        ...

    def seal(self, key: str, name: str) -> None:
        """Let an active snapshot, not mounted any more, be one to stand on, called `name`, until it has its own name.

        It does not survive a restart before `settle`. Raises NotFound.
        """
        ...

    def settle(self, name: str, final: str, parent: str | None) -> bool:
        """Commit a sealed snapshot, already written back, as `final`. Both names lead to it until `forget(name)`.

        False if `final` exists: both names are good then too, and what stands on `name` keeps its files.
        """
        ...

    def forget(self, name: str) -> None:
        """Nothing stands on the sealed snapshot by that name any more. What was not settled is removed."""
        ...

    def begin(self, directory: Path, parent: str | None) -> Path:
        """Make `directory` with an empty tree to unpack a layer into; returns the tree's path (`directory/fs`)."""
        ...

    def inherit_root(self, directory: Path, parent: str) -> None:
        """Give the tree of a `begin` without parent the root attributes of a committed snapshot; synced. Raises NotFound."""
        ...

    def mark_opaque(self, directory: Path, paths: list[str]) -> None:
        """Let directories in a tree made by `begin` hide what lies below them; synced. Relative paths."""
        ...

    def commit_from(self, directory: Path, name: str, parent: str | None) -> bool:
        """Adopt a directory `{fs,…}`, already written back, as the committed snapshot `name`.

        False, with `directory` left alone, if that name exists. After True it survives a power cut.
        """
        ...

    def replace(self, directory: Path, name: str, parent: str | None) -> None:
        """As `commit_from`, in the place of what has the name, if anything has. Nothing of that may be mounted."""
        ...

    def discard(self, directory: Path) -> None:
        """Get rid of a directory tree of the same data root at once; it is deleted in the background."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is a snapshot, active or committed, of that name."""
        ...

    def upper(self, key: str) -> Path:
        """The directory with what the snapshot itself holds (whiteouts in overlayfs form). Raises NotFound."""
        ...

    def lowers(self, key: str) -> list[Path]:
        """The directories below an active snapshot, top first, the init layer included. Raises NotFound."""
        ...

    def changes(self, key: str) -> list[Change]:
        """What an active snapshot changed, sorted by path, as dockerd's diff shows it. Raises NotFound."""
        ...

    def usage(self, key: str) -> Usage:
        """What the snapshot holds by itself. Raises NotFound."""
        ...

    def sweep(self, keep: set[str]) -> list[str]:
        """At start: remove every snapshot not in `keep`, empty the trash. The names removed."""
        ...


__all__ = ["ADDED", "Change", "DELETED", "Ids", "MODIFIED", "Snapshotter", "Usage"]
