"""Which engine this is, and which API it speaks."""

from __future__ import annotations

from tare import __version__

API_NEWEST = (1, 51)
API_OLDEST = (1, 24)
DOCKER_LEVEL = "28.2.2"
"""The Docker Engine whose behaviour is served: scripts compare it with their minimum."""

ENGINE_VERSION = f"{DOCKER_LEVEL}+tare.{__version__}"


def text(version: tuple[int, int]) -> str:
    """`1.51`."""
    return f"{version[0]}.{version[1]}"
