"""Docker's JSON about registries: login, distribution inspect, search."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType


class AuthBody(msgspec.Struct):
    """`POST /auth`."""

    username: str = ""
    password: str = ""
    auth: str = ""
    email: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class AuthAnswer(msgspec.Struct):
    """What a login came to; the token is kept by the client instead of the password."""

    Status: str
    IdentityToken: str = ""


class DescriptorBody(msgspec.Struct):
    """Content at a registry, in OCI's spelling."""

    mediaType: str
    digest: str
    size: int


class PlatformBody(msgspec.Struct):
    """One platform of an image, in OCI's spelling."""

    architecture: str
    os: str
    variant: str | UnsetType = UNSET


class DistributionInspect(msgspec.Struct):
    """`GET /distribution/{name}/json`."""

    Descriptor: DescriptorBody
    Platforms: list[PlatformBody]


class SearchResult(msgspec.Struct):
    """One line of `docker search`."""

    star_count: int = 0
    is_official: bool = False
    name: str = ""
    is_automated: bool = False
    description: str = ""


class ArtifactBody(msgspec.Struct):
    """`GET /tare/v1/artifacts`: something from a registry that is no image. Subject: digest of what it is about."""

    Digest: str
    Type: str
    Names: list[str]
    Subject: str
    Size: int
    Annotations: dict[str, str]


class RepositoryTags(msgspec.Struct):
    """`GET /tare/v1/tags`: the tags a repository has at its registry."""

    Name: str
    Tags: list[str]


class PushedBody(msgspec.Struct):
    """The aux message at the end of a push."""

    Tag: str
    Digest: str
    Size: int


class InsteadOfIndexBody(msgspec.Struct):
    """The aux message after a push that sent one manifest of an index. Source: moby api/types/auxprogress/push.go."""

    originalIndex: DescriptorBody
    selectedManifest: DescriptorBody
    manifestPushedInsteadOfIndex: bool = True


def plain(value: msgspec.Struct) -> Any:
    """The struct as the JSON library wants it inside a message."""
    return msgspec.to_builtins(value)
