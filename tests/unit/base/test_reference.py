"""Docker's normalisation of image names, as a table."""

from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument
from tare.base.reference import parse_reference

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("nginx", "docker.io/library/nginx", "nginx"),
        ("nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27"),
        ("a/b", "docker.io/a/b", "a/b"),
        ("library/nginx", "docker.io/library/nginx", "nginx"),
        ("index.docker.io/nginx", "docker.io/library/nginx", "nginx"),
        ("docker.io/a/b/c", "docker.io/a/b/c", "a/b/c"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("LOCAL/x", "LOCAL/x", "LOCAL/x"),
        ("host:5000/x:tag", "host:5000/x:tag", "host:5000/x:tag"),
        ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
        (f"q.io/a@sha256:{HEX}", f"q.io/a@sha256:{HEX}", f"q.io/a@sha256:{HEX}"),
        (f"a:t@sha256:{HEX}", f"docker.io/library/a:t@sha256:{HEX}", f"a:t@sha256:{HEX}"),
        ("a__b--c.d", "docker.io/library/a__b--c.d", "a__b--c.d"),
    ],
)
def test_normal_forms(text: str, canonical: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert reference.canonical() == canonical
    assert reference.familiar() == familiar
    assert parse_reference(reference.familiar()) == reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("a@sha256:12", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("ab/Nginx", "invalid reference format: repository name (ab/Nginx) must be lowercase"),
        ("Nginx", "invalid reference format: repository name (library/Nginx) must be lowercase"),
        (HEX, f"invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"),
        ("a" * 256, "invalid reference format: repository name must not be more than 255 characters"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_reference(text)
    assert caught.value.message == message


def test_default_tag_only_without_tag_and_digest() -> None:
    assert parse_reference("a").with_default_tag().tag == "latest"
    assert parse_reference("a:b").with_default_tag().tag == "b"
    assert parse_reference(f"a@sha256:{HEX}").with_default_tag().tag is None


def test_with_tag_checks_the_tag() -> None:
    assert parse_reference("a:b").with_tag("c").familiar() == "a:c"
    with pytest.raises(InvalidArgument, match="invalid tag format"):
        parse_reference("a").with_tag("-x")
