"""Identifiers: random container ids, and the checks that let an id be used as a file name."""

from __future__ import annotations

import re
import secrets
from typing import NewType

ContainerId = NewType("ContainerId", str)
"""64 lower-case hex digits."""

SHORT = 12

_HEX64 = re.compile(r"[0-9a-f]{64}\Z")


def random_id() -> str:
    """64 hex digits whose first twelve are not all decimal, so that a short id never reads as a number."""
    while True:
        candidate = secrets.token_hex(32)
        if not candidate[:SHORT].isdecimal():
            return candidate


def is_full_id(text: str) -> bool:
    """Whether `text` is exactly 64 lower-case hex digits."""
    return bool(_HEX64.match(text))


def short_id(full: str) -> str:
    """The twelve digits people see; accepts `sha256:…` too."""
    return full.removeprefix("sha256:")[:SHORT]
