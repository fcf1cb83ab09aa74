from __future__ import annotations

import pytest

from tare.web.guard import Guard, split_host

OURS = Guard(frozenset({"engine.test", "localhost"}), "https")


@pytest.mark.parametrize(
    ("host", "is_answered"),
    [
        ("engine.test:2376", True),
        ("ENGINE.test.", True),
        ("localhost", True),
        ("192.0.2.1:2376", True),
        ("[2001:db8::1]:2376", True),
        ("[::1]", True),
        ("evil.test", False),
        ("engine.test.evil.test", False),
        ("", False),
        ("engine.test:2376@evil", False),
        ("[::1", False),
        ("[::1]x", False),
    ],
)
def test_the_host_is_one_of_ours(host: str, is_answered: bool) -> None:
    assert (OURS.refusal("GET", {"host": host}) == "") is is_answered
    assert (OURS.refusal("POST", {"host": host}) == "") is is_answered


@pytest.mark.parametrize(
    ("origin", "is_same"),
    [
        ("https://engine.test", True),
        ("https://engine.test:443", True),
        ("HTTPS://Engine.Test", True),
        ("http://engine.test", False),
        ("https://engine.test:8443", False),
        ("https://evil.test", False),
        ("null", False),
        ("engine.test", False),
    ],
)
def test_pages_of_others_may_not_change_anything(origin: str, is_same: bool) -> None:
    headers = {"host": "engine.test", "origin": origin}
    assert (OURS.refusal("POST", headers) == "") is is_same
    assert (OURS.refusal("GET", {**headers, "upgrade": "websocket"}) == "") is is_same
    assert OURS.refusal("GET", headers) == ""


def test_splitting() -> None:
    assert split_host("a:1") == ("a", "1")
    assert split_host("[::1]:80") == ("::1", "80")
    assert split_host("a:b") == ("", "")
