"""Volumes: directories that outlive containers, from whatever keeps them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

Options = Mapping[str, str]
"""The driver's own options, as the client wrote them."""


class VolumeDriver(Protocol):
    """Keeps volumes: names to directories that containers can be given.

    Life of a volume: `check` → `create` → (`mount` by a user → `unmount` by the same user)* → `remove`. A user is a
    container's id; mounting twice as the same user counts once, and the volume stays mounted until its last user has
    gone. Names are checked before they come here. Calls about one volume never overlap (the service sees to that);
    calls about different ones may. Every method may block: `mount` for as long as a remote server takes.
    """

    @property
    def name(self) -> str:
        """What clients call it."""
        ...

    def check(self, options: Options) -> None:
        """Raise InvalidArgument if no volume can be made with these options."""
        ...

    def create(self, name: str, options: Options) -> None:
        """Make it, empty; a volume left half made by a crash is completed. Raises Unavailable."""
        ...

    def remove(self, name: str) -> None:
        """Returning means that it is not there; its bytes are deleted later. Raises Unavailable while it is mounted."""
        ...

    def path(self, name: str) -> Path:
        """Where its content is (while it is mounted)."""
        ...

    def mount(self, name: str, options: Options, user: str) -> Path:
        """Make the content appear at `path` for `user`. Raises InvalidArgument (options), Unavailable (server)."""
        ...

    def unmount(self, name: str, user: str) -> bool:
        """`user` needs it no more. Whether it did. The last one takes the mount away."""
        ...

    def adopt(self, name: str, users: set[str]) -> None:
        """After a restart: these users still have it. Without any, a mount that a crash left goes away."""
        ...

    def users(self, name: str) -> frozenset[str]:
        """Who has it mounted now."""
        ...

    def stage(self, name: str, options: Options) -> Path | None:
        """An empty directory that `commit` makes the content of a volume in one step; None where that is impossible."""
        ...

    def commit(self, name: str) -> bool:
        """The staged directory becomes the content and survives a power cut. False if the volume is not empty or has a user."""
        ...

    def exchange(self, name: str) -> bool:
        """The staged directory and the content change places, as often as wanted. False while it has a user."""
        ...

    def usage(self, name: str) -> int:
        """Bytes of its files."""
        ...

    def lost(self, known: Collection[str]) -> dict[str, int]:
        """Volumes with something in them that are not in `known`: name to time of making (nanoseconds).

        Those without anything in them, which a crash left before they were recorded, are removed.
        """
        ...


__all__ = ["Options", "VolumeDriver"]
