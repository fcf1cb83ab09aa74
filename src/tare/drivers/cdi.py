"""Reading the files of the Container Device Interface: JSON and YAML, below directories that only root writes to."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from tare.base.errors import InvalidArgument

_MAX_BYTES = 1024 * 1024
_SUFFIXES = (".json", ".yaml", ".yml")


class Document(Struct, frozen=True, kw_only=True):
    """One file as it was read: its value, or why there is none. priority: the place of its directory."""

    path: str
    priority: int
    value: object = None
    problem: str = ""


def read(directories: Sequence[Path]) -> list[Document]:
    """Every file that is there now."""
    found: list[Document] = []
    for priority, directory in enumerate(directories):
        try:
            names = sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            path = directory / name
            if path.suffix not in _SUFFIXES or name.startswith("."):
                continue
            try:
                found.append(Document(path=str(path), priority=priority, value=_document(path)))
            except InvalidArgument as error:
                found.append(Document(path=str(path), priority=priority, problem=error.message))
            except OSError as error:
                found.append(Document(path=str(path), priority=priority, problem=(error.strerror or "").lower()))
    return found


def _document(path: Path) -> object:
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise InvalidArgument(f"larger than {_MAX_BYTES} bytes")
    try:
        if path.suffix == ".json":
            return json.loads(data)
        return _yaml(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"cannot be read: {error}") from None


def _yaml(data: bytes) -> object:
    """Loaded where such a file is: most machines have none."""
    import yaml  # type: ignore[import-untyped]

    try:
        return yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise InvalidArgument(f"cannot be read: {' '.join(str(error).split())}") from None
