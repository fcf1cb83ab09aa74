"""`tare cp A:/x B:/y`: from one container straight into another; nothing is written on this machine.

The archive passes as it comes when the thing keeps its name. Otherwise its entries are renamed on the way, one at a
time, so that a big tree needs no memory.
"""

from __future__ import annotations

import os
import tarfile

from tare.cli import exit as exits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Protocol

    class Source(Protocol):
        """Bytes of an archive."""

        def read(self, size: int, /) -> bytes: ...


def renamed(name: str, prefix: str, new: str) -> str:
    """An entry's name with `new` for its first component(s) `prefix`. Raises ValueError when it is not below that."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise ValueError(f"the archive holds a name that leads out of it: {name!r}")
    clean = "/".join(parts)
    if not prefix:
        return "/".join([new, clean]) if clean else new
    if clean != prefix and not clean.startswith(f"{prefix}/"):
        raise ValueError(f"the archive holds an entry beside what was asked for: {name!r}")
    return new + clean[len(prefix) :]


def rename(source: Source, sink: IO[bytes], new: str) -> None:
    """Copy an archive of one thing, giving that the name `new`; its first entry is the thing itself."""
    prefix: str | None = None
    with (
        tarfile.open(fileobj=source, mode="r|") as before,  # type: ignore[call-overload]
        tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as after,
    ):
        for entry in before:
            if prefix is None:
                prefix = "/".join(part for part in entry.name.split("/") if part not in ("", "."))
            entry.name = renamed(entry.name, prefix, new)
            entry.pax_headers = {key: value for key, value in entry.pax_headers.items() if key not in _NAMES}
            if entry.islnk():
                entry.linkname = renamed(entry.linkname, prefix, new)
            after.addfile(entry, before.extractfile(entry) if entry.isreg() else None)
            before.members = []  # tarfile remembers every entry it ever saw
            after.members = []  # type: ignore[attr-defined]


_NAMES = ("path", "linkpath")


def place(path: str, *, is_directory: bool, there: bool, into: bool) -> tuple[str, str]:
    """(directory to unpack in, name in it) for a target path; the name is "" when the thing keeps its own.

    there, into: whether the target exists, and is a directory. Raises Exit with docker's sentences.
    """
    if not there and path.endswith("/") and not is_directory:
        raise exits.Exit(exits.FAILED, "no such directory")
    if there and not into and is_directory:
        raise exits.Exit(exits.FAILED, "cannot copy directory")
    if into:
        return path, ""
    return os.path.dirname(path.rstrip("/")) or "/", os.path.basename(path.rstrip("/"))


def is_inside(path: str, of: str) -> bool:
    """Whether `path` is `of` or lies below it, both in one container."""
    inner, outer = (os.path.normpath(f"/{text}").lstrip("/") for text in (path, of))
    return inner == outer or not outer or inner.startswith(f"{outer}/")
