"""The platforms of an index: which of its images are here, and how one of them is named by platform.

An index somebody pulled by is kept as raw bytes, and so is the manifest of each of its images that is here. An image that is
not the one its tag shows has the reference `repository@digest of its manifest`.
"""

from __future__ import annotations

from msgspec import Struct

from tare.base.digest import Digest
from tare.base.errors import NotFound
from tare.base.reference import Reference
from tare.images.artifacts import Artifact
from tare.images.manifests import Manifests, StoredIndex, StoredManifest
from tare.images.records import Image
from tare.images.service import Images
from tare.oci import image as oci
from tare.oci import platform as platforms
from tare.oci.image import Descriptor, Platform
from tare.oci.platform import is_attestation


class Member(Struct, frozen=True):
    """One entry of an index; image and manifest are None where they are not here. artifact: what an attestation is."""

    descriptor: Descriptor
    manifest: StoredManifest | None = None
    image: Image | None = None
    artifact: Artifact | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it can go out as it came: the manifest's blobs are those of the store."""
        if self.artifact is not None:
            return True
        if self.manifest is None or self.image is None:
            return False
        document = oci.parse_manifest(self.manifest.raw, self.manifest.media_type)
        if not isinstance(document, oci.Manifest):
            return False
        return [layer.digest for layer in document.layers] == [layer.blob for layer in self.image.layers]


class Family(Struct, frozen=True):
    """An index and its entries, in its order."""

    index: StoredIndex
    members: tuple[Member, ...]

    @property
    def is_whole(self) -> bool:
        """Whether every entry is here as it came."""
        return all(member.is_whole for member in self.members)

    @property
    def here(self) -> list[Member]:
        """The entries whose images are here."""
        return [member for member in self.members if member.image is not None]


async def family_of(
    images: Images, manifests: Manifests, image: Image, reference: Reference | None = None
) -> Family | None:
    """The index through which the image came, None if it came by itself. reference: of several indexes, the one this
    repository was pulled by is preferred."""
    digests = {known.led_by for known in await manifests.of_image(image.id) if known.led_by}
    if not digests:
        return None
    named = {known.digest for known in images.references(image.id) if reference and known.name == reference.name}
    for digest in sorted(digests, key=lambda one: (one not in named, one)):
        index = await manifests.index(Digest(digest))
        if index is None:
            continue
        document = oci.parse_manifest(index.raw, index.media_type)
        if not isinstance(document, oci.Index):
            continue
        known = {manifest.digest: manifest for manifest in await manifests.led_by(index.digest)}
        members = []
        for entry in document.manifests:
            manifest = known.get(Digest(entry.digest))
            image_here = images.find(manifest.image) if manifest else None
            artifact = manifests.artifacts.find(entry.digest) if is_attestation(entry) else None
            members.append(Member(entry, manifest, image_here, artifact))
        return Family(index, tuple(members))
    return None


def choose(family: Family | None, image: Image, wanted: Platform, *, name: str) -> Image:
    """The image for the platform: the one at hand, or another of its family. Raises NotFound in dockerd's words."""
    document = image.document
    own = Platform(document.architecture, document.os, document.variant)
    if (own.os, own.architecture) == (wanted.os, wanted.architecture) and (
        not wanted.variant or platforms.runs_on(own, wanted)
    ):
        return image
    if family is not None:
        entries = {id(member.descriptor): member for member in family.here}
        found = platforms.choose([member.descriptor for member in family.here], wanted, is_asked=True)
        if found is not None and (chosen := entries[id(found)].image) is not None:
            return chosen
    raise NotFound(f"image with reference {name} was found but does not match the specified platform")


__all__ = ["Family", "Member", "choose", "family_of"]
