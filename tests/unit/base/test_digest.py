"""Digests: what is accepted as one, and the names of stacks of layers."""

from __future__ import annotations

import hashlib

import pytest

from tare.base.digest import chain_id, hex_of, parse_digest, sha256, verify
from tare.base.errors import DataCorrupt, InvalidArgument

A = "sha256:" + "a" * 64
B = "sha256:" + "b" * 64
C = "sha256:" + "c" * 64


@pytest.mark.parametrize("text", [A, "sha512:" + "0f" * 64])
def test_canonical_digests_are_accepted(text: str) -> None:
    assert parse_digest(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a" * 64,
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "a" * 64 + "\n",
        " " + A,
        "SHA256:" + "a" * 64,
        "md5:" + "a" * 32,
        "sha512:" + "a" * 64,
        "sha256:" + "../" * 21 + "a",
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid checksum digest format"):
        parse_digest(text)


def test_a_very_long_text_is_not_repeated_whole() -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_digest("x" * 100_000)
    assert len(caught.value.message) < 300


def test_sha256_of_nothing() -> None:
    assert sha256(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert hex_of(sha256(b"")).startswith("e3b0c442")


def test_verify() -> None:
    verify(b"x", sha256(b"x"), what="the manifest")
    verify(b"x", parse_digest("sha512:" + hashlib.sha512(b"x").hexdigest()), what="the manifest")
    with pytest.raises(DataCorrupt, match="the manifest does not match its digest sha256:"):
        verify(b"y", sha256(b"x"), what="the manifest")


def test_chain_id_of_one_layer_is_the_layer() -> None:
    assert chain_id([parse_digest(A)]) == A


def test_chain_ids_are_built_from_the_base_up() -> None:
    layers = [parse_digest(text) for text in (A, B, C)]
    two = "sha256:" + hashlib.sha256(f"{A} {B}".encode()).hexdigest()
    three = "sha256:" + hashlib.sha256(f"{two} {C}".encode()).hexdigest()
    assert chain_id(layers[:2]) == two
    assert chain_id(layers) == three
    assert chain_id(layers[::-1]) != three


def test_a_chain_needs_a_layer() -> None:
    with pytest.raises(InvalidArgument):
        chain_id([])
