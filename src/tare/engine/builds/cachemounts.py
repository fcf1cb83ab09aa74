"""The directories of cache mounts: which of them steps have now, so that nothing takes them away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

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


__all__ = ["in_use", "is_in_use"]
