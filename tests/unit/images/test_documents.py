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
    ],
)
def test_platforms(text: str, platform: tuple[str, str, str] | None) -> None:
    assert parse_platform(text) == platform


@pytest.mark.parametrize("text", ["windows/amd64", "linux/", "a/b/c/d", "linux/../x"])
def test_platforms_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_platform(text)
