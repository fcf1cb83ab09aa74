"""The log of a run: its beginning as it comes, and when that is long, its end."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

from tare.build.autobuild import MAX_LOG

TAIL = 64 * 1024
CUT = "\n[… {} bytes are left out here …]\n"


class RunLog:
    """Writes one log. `close` in any case; what was written then survives a power cut."""

    def __init__(self, path: Path, *, limit: int = MAX_LOG, tail: int = TAIL) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._room = limit
        self._tail: deque[bytes] = deque()
        self._tail_limit = tail
        self._tail_bytes = self._left_out = 0
        self.size = 0

    def write(self, text: str) -> None:
        """Add to it. Raises OSError (disk full)."""
        data = text.encode("utf-8", "replace")
        head, rest = data[: self._room], data[self._room :]
        if head:
            self._room -= len(head)
            self._put(head)
        if rest:
            self._tail.append(rest)
            self._tail_bytes += len(rest)
            while self._tail_bytes > self._tail_limit:
                first = self._tail.popleft()
                over = min(len(first), self._tail_bytes - self._tail_limit)
                if over < len(first):
                    self._tail.appendleft(first[over:])
                self._tail_bytes -= over
                self._left_out += over

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view)
            view = view[written:]
            self.size += written

    def close(self) -> None:
        """Write the end and give the file back. Idempotent. Raises OSError (disk full)."""
        if self._fd < 0:
            return
        try:
            if self._left_out:
                self._put(CUT.format(self._left_out).encode())
            self._put(b"".join(self._tail))
            os.fsync(self._fd)
        finally:
            os.close(self._fd)
            self._fd = -1


__all__ = ["CUT", "TAIL", "RunLog"]
