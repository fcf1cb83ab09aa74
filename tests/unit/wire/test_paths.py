"""File modes as Go numbers them, and the header."""

from __future__ import annotations

import base64
import json
import stat

import pytest

from tare.wire.paths import PathStat, go_mode, header_value


@pytest.mark.parametrize(
    ("mode", "go"),
    [
        (stat.S_IFREG | 0o644, 0o644),
        (stat.S_IFREG | 0o4755, 1 << 23 | 0o755),
        (stat.S_IFREG | 0o2755, 1 << 22 | 0o755),
        (stat.S_IFDIR | 0o1777, 1 << 31 | 1 << 20 | 0o777),
        (stat.S_IFLNK | 0o777, 134218239),  # seen from dockerd
        (stat.S_IFIFO | 0o600, 1 << 25 | 0o600),
        (stat.S_IFSOCK | 0o600, 1 << 24 | 0o600),
        (stat.S_IFBLK | 0o660, 1 << 26 | 0o660),
        (stat.S_IFCHR | 0o666, 1 << 26 | 1 << 21 | 0o666),
    ],
)
def test_go_mode(mode: int, go: int) -> None:
    assert go_mode(mode) == go


def test_header() -> None:
    found = PathStat(name="f", size=3, mode=420, mtime="2024-01-01T00:00:00Z")
    assert json.loads(base64.b64decode(header_value(found))) == {
        "name": "f", "size": 3, "mode": 420, "mtime": "2024-01-01T00:00:00Z", "linkTarget": "",
    }  # fmt: skip
