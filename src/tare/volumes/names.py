"""Names of volumes: what may be used as a file name (pure).

Source: moby volume/local/local.go, volume/mounts/linux_parser.go.
"""

from __future__ import annotations

import re

from tare.base.errors import InvalidArgument

MAX_LENGTH = 255
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")


def check_name(name: str) -> None:
    """Raise InvalidArgument, in dockerd's words, for a name no volume can have."""
    if len(name) == 1 and _NAME.match(name):
        raise InvalidArgument("volume name is too short, names should be at least two alphanumeric characters")
    if len(name) > MAX_LENGTH:
        raise InvalidArgument(f"volume name is too long: {len(name)} characters, at most {MAX_LENGTH}")
    if not _NAME.match(name):
        raise InvalidArgument(
            f'"{name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are '
            "allowed. If you intended to pass a host directory, use absolute path"
        )
