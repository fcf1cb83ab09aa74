"""Which image of an index a machine gets."""

from __future__ import annotations

import pytest

from tare.oci.image import OCI_MANIFEST, Descriptor, Platform
from tare.oci.platform import choose, host_platform, is_attestation, normalized, runs_on, text_of


def entry(text: str, **more: object) -> Descriptor:
    system, architecture, variant = (*text.split("/"), "", "")[:3]
    return Descriptor(OCI_MANIFEST, text, 1, platform=Platform(architecture, system, variant), **more)  # type: ignore[arg-type]


def asked(text: str) -> Platform:
    system, architecture, variant = (*text.split("/"), "", "")[:3]
    return Platform(architecture, system, variant)


@pytest.mark.parametrize(
    ("entries", "wanted", "chosen"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", "linux/amd64"),
        (["linux/arm64/v8"], "linux/arm64", "linux/arm64/v8"),
        (["linux/arm/v6", "linux/arm/v7"], "linux/arm", "linux/arm/v7"),
        (["linux/arm/v6", "linux/arm/v5"], "linux/arm/v7", "linux/arm/v6"),
        (["linux/arm/v7"], "linux/arm/v6", None),
        (["linux/amd64/v2", "linux/amd64"], "linux/amd64/v3", "linux/amd64/v2"),
        (["linux/amd64/v2"], "linux/amd64", None),
        (["windows/amd64", "linux/arm64"], "linux/amd64", None),
        (["linux/aarch64"], "linux/arm64", "linux/aarch64"),
    ],
)
def test_choice(entries: list[str], wanted: str, chosen: str | None) -> None:
    found = choose([entry(text) for text in entries], asked(wanted), is_asked=True)
    assert (found.digest if found else None) == chosen


def test_an_arm64_machine_runs_arm_unless_somebody_asked_for_arm64() -> None:
    entries = [entry("linux/arm/v7")]
    assert choose(entries, asked("linux/arm64"), is_asked=False) is entries[0]
    assert choose(entries, asked("linux/arm64"), is_asked=True) is None


def test_attestations_are_no_images() -> None:
    about = entry("linux/amd64", annotations={"vnd.docker.reference.type": "attestation-manifest"})
    unknown = entry("unknown/unknown")
    assert is_attestation(about)
    assert is_attestation(unknown)
    assert choose([about, unknown], asked("linux/amd64"), is_asked=False) is None


def test_names() -> None:
    assert normalized(Platform("x86_64", "Linux", "")) == Platform("amd64", "linux", "")
    assert text_of(Platform("arm", "linux", "v7")) == "linux/arm/v7"
    assert runs_on(Platform(), asked("linux/amd64"))
    assert runs_on(asked("linux/amd64"), asked("linux/amd64/v1"))
    assert not runs_on(asked("linux/arm64"), asked("linux/amd64"))
    assert host_platform().os == "linux"
