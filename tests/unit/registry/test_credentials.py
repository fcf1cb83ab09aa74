"""Credentials as clients send them."""

from __future__ import annotations

import base64
import json

import pytest

from tare.registry.credentials import ANONYMOUS, Credentials, from_document, from_header

DOCUMENT = {"username": "u", "password": "p?>~ü", "serveraddress": "https://x.example"}
EXPECTED = Credentials("u", "p?>~ü", server="https://x.example")


def test_every_spelling_of_base64() -> None:
    raw = json.dumps(DOCUMENT).encode()
    for text in (base64.b64encode(raw), base64.urlsafe_b64encode(raw), base64.urlsafe_b64encode(raw).rstrip(b"=")):
        assert from_header(text.decode()) == EXPECTED


@pytest.mark.parametrize("text", ["", "e30=", "nonsense", "!!!", "WzFd", "A" * 100_000, "bnVsbA=="])
def test_what_cannot_be_read_is_nobody(text: str) -> None:
    assert from_header(text) == ANONYMOUS


def test_documents() -> None:
    assert from_document({"auth": base64.b64encode(b"a:b:c\0").decode()}) == Credentials("a", "b:c")
    assert from_document({"auth": "%%%"}) == ANONYMOUS
    assert from_document({"username": 1, "identitytoken": "t"}) == Credentials(identity_token="t")
    assert from_document(["x"]) == ANONYMOUS


def test_secrets_are_not_shown() -> None:
    shown = repr(Credentials("u", "hidden", "hidden", "hidden"))
    assert "hidden" not in shown
    assert Credentials("u", "p").has_secret
    assert not Credentials("u").has_secret
    assert Credentials("u", "p").basic() == "Basic dTpw"
