"""Config documents: written, read back, refused."""

from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument
from tare.images.documents import config_document, config_of_image, host_architecture, parse_platform
from tare.oci.image import parse_config
from tare.wire.config import ContainerConfig


def test_a_config_document_reads_back() -> None:
    config = ContainerConfig(Cmd=["x"], Env=["A=b"], Labels={"l": "1"})
    raw = config_document(config, created="2024-01-01T00:00:00Z", layers=(), history=[], author="me")
    document = parse_config(raw)
    assert config_of_image(document) == config
    assert (document.os, document.architecture, document.author) == ("linux", host_architecture(), "me")


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("", None),
        ("linux/arm64", ("linux", "arm64", "")),
        ("linux/arm/v7", ("linux", "arm", "v7")),
        ("linux", ("linux", host_architecture(), "")),
        ("LINUX", ("linux", host_architecture(), "")),
        ("arm64", ("linux", "arm64", "")),
        ("aarch64", ("linux", "arm64", "")),
        ("armhf", ("linux", "arm", "")),
        ("linux/x86_64", ("linux", "amd64", "")),
        ("linux/sparc64", ("linux", "sparc64", "")),
    ],
)
def test_platforms(text: str, platform: tuple[str, str, str] | None) -> None:
    assert parse_platform(text) == platform


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("windows/amd64", "operating system is not supported"),
        ("macos", "operating system is not supported"),
        ("windows(10.0.17763)/amd64", "operating system is not supported"),
        ("nintendo64", "unknown operating system or architecture"),
        ("   ", "is an invalid OS component"),
        ("/", "is an invalid OS component"),
        ("linux/", "is an invalid component"),
        ("linux/../x", "is an invalid component"),
        ("a/b/c/d", "cannot parse platform specifier"),
    ],
)
def test_platforms_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        parse_platform(text)
