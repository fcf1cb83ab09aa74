"""What a build read and was asked for, as a statement about its image (`--provenance`).

    <data-root>/provenance/<hex of the image's ID>.json     gone at the next start when the image is

The shape is in-toto's statement with SLSA's predicate. No secret's bytes are in it, and no value of an argument whose name
says that it is one. What a RUN fetches by itself nobody knows.
Source: in-toto Statement v1; SLSA provenance v1; BuildKit's modes `min` (no arguments, no names of secrets) and `max`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from tare.base.digest import Digest, hex_of, sha256
from tare.base.errors import NotFound
from tare.base.reference import Reference
from tare.build.lint import is_secret_name

MODES = ("min", "max")
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://slsa.dev/provenance/v1"
_TYPE = "urn:tare:build:dockerfile:v1"


class Told(Struct, frozen=True, kw_only=True):
    """What there is to say. Times as RFC 3339; read: `uri` and `digest` of what was fetched or given."""

    image: Digest
    names: Sequence[Reference]
    build_id: str
    started: str
    finished: str
    platform: str
    file: str
    dockerfile: bytes
    origin: Mapping[str, str]
    read: Sequence[Mapping[str, object]]
    target: str
    arguments: Mapping[str, str]
    labels: Mapping[str, str]
    secrets: Sequence[str]
    agents: Sequence[str]


def statement(told: Told, *, mode: str) -> bytes:
    """The document. mode: see MODES."""
    digest = {"sha256": hex_of(told.image)}
    source: dict[str, Any] = {"path": told.file, "digest": {"sha256": hex_of(sha256(told.dockerfile))}}
    if told.origin:
        source["uri"] = told.origin["uri"]
    request: dict[str, Any] = {"target": told.target}
    if mode == "max":
        request |= {
            "args": {name: value for name, value in sorted(told.arguments.items()) if not is_secret_name(name)},
            "labels": dict(sorted(told.labels.items())),
            "secrets": sorted(told.secrets),
            "ssh": sorted(told.agents),
        }
    document = {
        "_type": _STATEMENT,
        "subject": [{"name": name.canonical(), "digest": digest} for name in told.names] or [{"digest": digest}],
        "predicateType": _PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": _TYPE,
                "externalParameters": {"configSource": source, "request": request},
                "internalParameters": {"builderPlatform": told.platform},
                "resolvedDependencies": sorted(told.read, key=lambda item: str(item["uri"])),
            },
            "runDetails": {
                "builder": {"id": ""},
                "metadata": {
                    "invocationId": told.build_id,
                    "startedOn": told.started,
                    "finishedOn": told.finished,
                },
            },
        },
    }
    return msgspec.json.encode(document)


def _place(data_root: Path, image_id: str) -> Path:
    return data_root / "provenance" / f"{image_id.removeprefix('sha256:')}.json"


def write(data_root: Path, image_id: Digest, document: bytes) -> None:
    """Keep the statement about an image; an older one about it is replaced."""
    path = _place(data_root, image_id)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(document)
    temporary.replace(path)


def read(data_root: Path, image_id: Digest) -> bytes:
    """The statement about an image that is here. Raises NotFound."""
    try:
        return _place(data_root, image_id).read_bytes()
    except FileNotFoundError:
        raise NotFound(
            f"there is no provenance of {image_id}", hint="ask for it when you build: tare build --provenance=true"
        ) from None


def forget(data_root: Path, image_id: Digest) -> None:
    """The image is gone. Idempotent."""
    _place(data_root, image_id).unlink(missing_ok=True)


__all__ = ["MODES", "Told", "forget", "read", "statement", "write"]
