"""The directories of cache mounts: which of them steps have now, so that nothing takes them away."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tare.base.errors import InvalidArgument

_NAME = re.compile(r"[0-9a-f]{64}\Z")
_used: Counter[str] = Counter()


@contextmanager
def in_use(name: str) -> Iterator[None]:
    """Inside the block the directory `name` is a step's."""
    _used[name] += 1
    try:
        yield
    finally:
        _used[name] -= 1
        if not _used[name]:
            del _used[name]


def is_in_use(name: str) -> bool:
    """Whether a step has it."""
    return name in _used


def absent(data_root: Path, names: Iterable[str]) -> list[str]:
    """Those names of cache mounts that have no directory. Raises InvalidArgument for what is no such name."""
    found = []
    for name in names:
        if not _NAME.match(name):
            raise InvalidArgument(f"invalid name of a cache mount {name[:100]!r}")
        if not (data_root / "buildcache" / name).is_dir():
            found.append(name)
    return found


__all__ = ["absent", "in_use", "is_in_use"]
