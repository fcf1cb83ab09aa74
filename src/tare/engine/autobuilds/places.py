"""What autobuilds have on the disk beside their records: what is secret, and the logs of their runs.

<data-root>/autobuilds/<id>/secrets         the hook's secret and the credentials for pushing; nobody else reads it
<data-root>/autobuilds/<id>/<number>.log    what a run said
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tare.build.autobuild import Autobuild
from tare.drivers import trees
from tare.engine.engine import Engine
from tare.registry.credentials import Credentials, from_document
from tare.store.blobs import fsync_directory


class Secrets(msgspec.Struct, frozen=True):
    """`auth` is Docker's AuthConfig, empty for nobody."""

    hook: str
    auth: Mapping[str, str]

    def __repr__(self) -> str:
        return "Secrets()"

    @property
    def credentials(self) -> Credentials:
        """Who the engine is at the registry of the tags."""
        return from_document(self.auth)


def secrets_of(hook: str, known: Credentials) -> Secrets:
    """What is kept."""
    auth = {
        "username": known.username,
        "password": known.password,
        "identitytoken": known.identity_token,
        "registrytoken": known.registry_token,
        "serveraddress": known.server,
    }
    return Secrets(hook, {key: value for key, value in auth.items() if value})


def place(engine: Engine, key: str) -> Path:
    """The directory of an autobuild, by its id."""
    return engine.settings.data_root / "autobuilds" / key


def log_path(engine: Engine, key: str, number: int) -> Path:
    """Where the log of a run is."""
    return place(engine, key) / f"{number}.log"


def make(engine: Engine, key: str, secrets: Secrets) -> None:
    """The directory of a new autobuild; it survives a power cut when this returns."""
    directory = place(engine, key)
    directory.parent.mkdir(mode=0o700, exist_ok=True)
    directory.mkdir(mode=0o700)
    fd = os.open(directory / "secrets", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(msgspec.json.encode(secrets))
        file.flush()
        os.fsync(fd)
    fsync_directory(directory)
    fsync_directory(directory.parent)


def secrets(engine: Engine, item: Autobuild) -> Secrets:
    """What is secret about it."""
    return msgspec.json.decode((place(engine, item.id) / "secrets").read_bytes(), type=Secrets)


def discard(engine: Engine, key: str) -> None:
    """Remove the directory. Idempotent."""
    trees.discard(place(engine, key))


__all__ = ["Secrets", "discard", "log_path", "make", "place", "secrets", "secrets_of"]
