"""Who we are at a registry: `X-Registry-Auth` and `X-Registry-Config` as clients send them.

Source: ENGINE-API W49, W55; moby api/pkg/authconfig.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import msgspec
from msgspec import Struct

_MAX_HEADER = 32 * 1024


class Credentials(Struct, frozen=True):
    """User and password, or an identity (refresh) token, or a bearer token used as it is. Secrets are not in repr."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, server={self.server!r})"

    @property
    def has_secret(self) -> bool:
        """Whether there is anything to authenticate with."""
        return bool(self.identity_token or self.registry_token or (self.username and self.password))

    def basic(self) -> str:
        """The Authorization header of basic authentication."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


ANONYMOUS = Credentials()


def from_document(found: object) -> Credentials:
    """Docker's AuthConfig object; whatever is not text in it does not count."""
    if not isinstance(found, Mapping):
        return ANONYMOUS

    def text(key: str) -> str:
        value = found.get(key)
        return value if isinstance(value, str) else ""

    user, password = text("username"), text("password")
    if not user and (packed := text("auth")):
        try:
            user, _, password = base64.b64decode(packed, validate=True).decode().rstrip("\0").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            user = password = ""
    return Credentials(user, password, text("identitytoken"), text("registrytoken"), text("serveraddress"))


def from_header(value: str) -> Credentials:
    """The credentials of a request; what cannot be decoded is nobody (W55: never an error)."""
    if not value or len(value) > _MAX_HEADER:
        return ANONYMOUS
    try:
        raw = base64.b64decode(
            value.replace("-", "+").replace("_", "/").rstrip("=") + "=" * (-len(value.rstrip("=")) % 4)
        )
        return from_document(msgspec.json.decode(raw))
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return ANONYMOUS


__all__ = ["ANONYMOUS", "Credentials", "from_document", "from_header"]
