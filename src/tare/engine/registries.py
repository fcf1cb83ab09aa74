"""Registries beside pull and push: logging in, looking at an image without pulling it, its tags, search."""

from __future__ import annotations

from tare.base.digest import parse_digest
from tare.base.errors import InvalidArgument, NotFound, Unauthorized, Unavailable
from tare.base.reference import Reference
from tare.engine.engine import Engine
from tare.oci import image as oci
from tare.oci.image import Platform
from tare.oci.platform import is_attestation
from tare.registry import hosts
from tare.registry.challenge import Refusal
from tare.registry.credentials import Credentials
from tare.registry.remote import Remote, RemoteManifest, remote_for
from tare.registry.transport import Unreachable


async def log_in(engine: Engine, credentials: Credentials) -> str:
    """Try the credentials at their registry. Returns the identity token it gave for them, "" for none.

    Raises Unauthorized, Unavailable, InvalidArgument.
    """
    domain = hosts.domain_of(credentials.server or hosts.HUB_ADDRESS)
    if not (credentials.username or credentials.identity_token):
        raise Unauthorized("no credentials were given")
    remote = Remote(engine.transport, domain=domain, path="", credentials=credentials, push=True)
    try:
        await remote.ping()
    except Refusal as error:
        if error.status in (401, 403):
            raise Unauthorized(f"login attempt to {domain} failed: {error.message}") from None
        raise Unavailable(f"login attempt to {domain} failed: {error.message}") from None
    except Unreachable as error:
        raise Unavailable(f"login attempt to {domain} failed: {error.message}") from None
    return remote.authorizer.refresh_token


async def look(engine: Engine, reference: Reference, credentials: Credentials) -> tuple[RemoteManifest, list[Platform]]:
    """The manifest or index behind a reference, and the platforms it is for. Raises NotFound, Unauthorized, …"""
    remote = remote_for(engine.transport, reference, credentials)
    try:
        found = await remote.manifest(reference.digest or reference.tag or "latest")
        document = oci.parse_manifest(found.raw, found.media_type)
        if isinstance(document, oci.Index):
            return found, [
                entry.platform for entry in document.manifests if entry.platform and not is_attestation(entry)
            ]
        parse_digest(document.config.digest)
        if document.config.mediaType not in (oci.OCI_CONFIG, oci.DOCKER_CONFIG):
            return found, []
        config = oci.parse_config(await remote.document(document.config, limit=oci.MAX_CONFIG))
        return found, [Platform(config.architecture, config.os, config.variant)]
    except Refusal as error:
        raise _in_words(error, reference) from None


async def tags(engine: Engine, reference: Reference, credentials: Credentials) -> list[str]:
    """The tags the repository has at its registry, sorted. Raises NotFound, InvalidArgument, Unauthorized, …"""
    if reference.tag or reference.digest:
        raise InvalidArgument("name a repository, without tag and digest")
    try:
        return sorted(await remote_for(engine.transport, reference, credentials).tags())
    except Refusal as error:
        raise _in_words(error, reference) from None


def _in_words(error: Refusal, reference: Reference) -> Exception:
    if error.status in (401, 403):
        return Unauthorized(error.message)
    if error.status == 404:
        return NotFound(f"{reference.familiar()}: {error.message}")
    return error


__all__ = ["log_in", "look", "tags"]
