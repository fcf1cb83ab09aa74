"""Credentials for registries, in Docker's own config.json so that both programs know them."""

from __future__ import annotations

import base64
import binascii
import os

from tare.client import gojson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HUB = "https://index.docker.io/v1/"


def registry_of(reference: str) -> str:
    """The key under which credentials for the reference's registry are kept."""
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return HUB if first in ("docker.io", "index.docker.io") else first
    return HUB


def read_config(directory: str) -> dict[str, Any]:
    """config.json; {} when there is none. Raises ValueError when it is damaged."""
    path = f"{directory}/config.json"
    try:
        with open(path, "rb") as file:
            document = gojson.loads(file.read())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return document if isinstance(document, dict) else {}


def write_config(directory: str, config: dict[str, Any]) -> None:
    """Replace config.json in one step, readable by its owner only."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    temporary = f"{directory}/config.json.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(gojson.dumps(config, indent="\t", html=False))
        os.replace(temporary, f"{directory}/config.json")
    except BaseException:
        os.unlink(temporary)
        raise


def credentials(directory: str, registry: str) -> dict[str, str]:
    """What to send to the engine for `registry`; {} when nothing is stored."""
    entry = (read_config(directory).get("auths") or {}).get(registry) or {}
    found = {"serveraddress": registry}
    if entry.get("identitytoken"):
        found["identitytoken"] = str(entry["identitytoken"])
    if entry.get("auth"):
        try:
            user, _, password = base64.b64decode(str(entry["auth"])).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError(f"the stored credentials for {registry} are damaged: log in again") from None
        found |= {"username": user, "password": password.rstrip("\0")}
    return found if len(found) > 1 else {}


def header(directory: str, reference: str) -> dict[str, str]:
    """The X-Registry-Auth header for an operation on `reference`."""
    document = gojson.dumps(credentials(directory, registry_of(reference)))
    return {"X-Registry-Auth": base64.urlsafe_b64encode(document.encode()).decode()}
