"""Which image of an index is the one for a machine. Pure.

Source: image-spec image-index.md; containerd's order of variants (an arm64 machine runs arm/v8 and below, an amd64/v3
one v2 and v1).
"""

from __future__ import annotations

import platform as host
from collections.abc import Sequence

from tare.oci.image import Descriptor, Platform

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv8l": "arm",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
}
_VARIANTS = {"armv8l": "v8", "armv7l": "v7", "armv6l": "v6"}
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm"}
_ATTESTATION = "vnd.docker.reference.type"
_ATTESTED = "vnd.docker.reference.digest"


def host_platform() -> Platform:
    """What this machine runs."""
    machine = host.machine()
    return Platform(_ARCHITECTURES.get(machine, machine), "linux", _VARIANTS.get(machine, ""))


def go_name(architecture: str) -> str:
    """Go's name of a processor: `amd64` for `x86_64`."""
    architecture = architecture.lower()
    return _ALIASES.get(architecture, architecture)


def normalized(platform: Platform) -> Platform:
    """With Go's names, and without the variants that go without saying (`arm64/v8`, `amd64/v1`); `arm` means v7."""
    architecture = go_name(platform.architecture)
    variant = platform.variant.lower()
    if architecture == "arm64" and variant in ("8", "v8"):
        variant = ""
    if architecture == "amd64" and variant == "v1":
        variant = ""
    if architecture == "arm":
        variant = f"v{variant.removeprefix('v') or '7'}"
    return Platform(architecture, platform.os.lower(), variant)


def ranked(wanted: Platform) -> list[Platform]:
    """What a machine of the platform can run, best first."""
    want = normalized(wanted)
    found = [want]
    if want.architecture in ("arm", "amd64") and want.variant[1:].isdigit():
        lowest = 5 if want.architecture == "arm" else 1
        for number in range(int(want.variant[1:]) - 1, lowest - 1, -1):
            found.append(normalized(Platform(want.architecture, want.os, f"v{number}")))
    if want.architecture == "arm64" and want.variant:
        found.append(Platform("arm64", want.os, ""))
    if want.architecture == "arm64":
        found += [Platform("arm", want.os, f"v{number}") for number in (8, 7, 6, 5)]
    return found


def choose(entries: Sequence[Descriptor], wanted: Platform, *, is_asked: bool) -> Descriptor | None:
    """The entry for the platform, or None. Attestations are never chosen.

    is_asked: somebody named the platform, so that an arm64 machine's taste for arm images does not count.
    """
    order = ranked(wanted)
    if is_asked:
        order = [platform for platform in order if platform.architecture == order[0].architecture]
    known = [(entry, normalized(entry.platform)) for entry in entries if entry.platform and not is_attestation(entry)]
    for candidate in order:
        for entry, platform in known:
            if platform == candidate:
                return entry
    return None


def runs_on(image: Platform, wanted: Platform) -> bool:
    """Whether an image made for `image` is what `wanted` asks for; an image that says nothing is taken."""
    if not image.architecture:
        return True
    return normalized(image) in ranked(wanted)


def is_attestation(entry: Descriptor) -> bool:
    """Whether the entry is about another entry (provenance, signatures) and no image."""
    return _ATTESTATION in (entry.annotations or {}) or (
        entry.platform is not None and entry.platform.os == "unknown" and entry.platform.architecture == "unknown"
    )


def subject_of(entry: Descriptor) -> str:
    """The digest of the manifest that an attestation is about, "" where it does not say."""
    return (entry.annotations or {}).get(_ATTESTED, "")


def text_of(platform: Platform) -> str:
    """`linux/arm/v7`."""
    return "/".join(part for part in (platform.os, platform.architecture, platform.variant) if part)


__all__ = [
    "choose",
    "go_name",
    "host_platform",
    "is_attestation",
    "normalized",
    "ranked",
    "runs_on",
    "subject_of",
    "text_of",
]
