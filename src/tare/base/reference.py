"""References: the names of images, normalised as Docker's clients expect (`nginx` is `docker.io/library/nginx`).

Source: distribution/reference, `normalize.go` and `regexp.go` (grammar), ENGINE-API W78.
"""

from __future__ import annotations

import re

from msgspec import Struct
from msgspec.structs import replace

from tare.base.digest import Digest, parse_digest
from tare.base.errors import InvalidArgument

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_MAX_PATH = 255

_PATH_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PATH_COMPONENT}(?:/{_PATH_COMPONENT})*\Z")
_DOMAIN_COMPONENT = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_COMPONENT}(?:\.{_DOMAIN_COMPONENT})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?\Z")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}\Z")
_HEX64 = re.compile(r"[a-f0-9]{64}\Z")

_INVALID = "invalid reference format"


class Reference(Struct, frozen=True):
    """A repository with a tag, a digest, both or neither. Made by `parse_reference`, so every part is valid."""

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """`docker.io/library/nginx`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """`nginx`: what people write."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        rest = self.path.removeprefix(_OFFICIAL)
        return rest if "/" not in rest else self.path

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def familiar(self) -> str:
        """`nginx:1.27`, `quay.io/a/b@sha256:…`: as lists and messages show it."""
        return self.familiar_name + self._suffix()

    def canonical(self) -> str:
        """`docker.io/library/nginx:1.27`: as records keep it."""
        return self.name + self._suffix()

    def with_default_tag(self) -> Reference:
        """The same with tag `latest` if it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> Reference:
        """The same repository with `tag`. Raises InvalidArgument (`invalid tag format`)."""
        if not _TAG.match(tag):
            raise InvalidArgument("invalid tag format")
        return Reference(self.domain, self.path, tag)

    def with_digest(self, digest: Digest) -> Reference:
        """The same repository named by `digest` alone."""
        return Reference(self.domain, self.path, None, digest)

    def __str__(self) -> str:
        return self.familiar()


def parse_reference(text: str) -> Reference:
    """Read what a person or client wrote. Raises InvalidArgument with Docker's texts. No default tag is added."""
    if _HEX64.match(text):
        raise InvalidArgument(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, remainder = _split_domain(text)
    rest, at, digest_text = remainder.partition("@")
    path, colon, tag = rest.partition(":")
    if path.lower() != path:
        raise InvalidArgument(f"{_INVALID}: repository name ({path[:_MAX_PATH]}) must be lowercase")
    if not _PATH.match(path) or not _DOMAIN.match(domain) or (colon and not _TAG.match(tag)):
        raise InvalidArgument(_INVALID)
    if len(domain) + 1 + len(path) > _MAX_PATH:
        raise InvalidArgument(f"{_INVALID}: repository name must not be more than {_MAX_PATH} characters")
    digest = None
    if at:
        try:
            digest = parse_digest(digest_text)
        except InvalidArgument:
            raise InvalidArgument(_INVALID) from None
    return Reference(domain, path, tag or None, digest)


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first)
    domain, remainder = (first, rest) if named else (DEFAULT_DOMAIN, text)
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = _OFFICIAL + remainder
    return domain, remainder
