"""What registries say about authentication and errors."""

from __future__ import annotations

import json

import pytest

from tare.registry.challenge import Challenge, Token, merge_scopes, parse_challenges, parse_token, refusal


def test_challenges() -> None:
    bearer = 'Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push"'
    assert parse_challenges([bearer]) == [
        Challenge(
            "bearer",
            {"realm": "https://auth.example/token", "service": "registry", "scope": "repository:a/b:pull,push"},
        )
    ]
    two = parse_challenges(['Basic realm="a \\"quoted\\" one", Bearer realm=plain'])
    assert two == [Challenge("basic", {"realm": 'a "quoted" one'}), Challenge("bearer", {"realm": "plain"})]
    assert parse_challenges(["Negotiate", "Basic"]) == [Challenge("negotiate"), Challenge("basic")]
    assert parse_challenges(["", '"', "=x", "realm=1"]) == []


def test_challenges_of_a_hostile_server_take_linear_time() -> None:
    parse_challenges(["Bearer " + 'a="' * 100_000, "Bearer " + "," * 100_000, 'Bearer a="' + "\\" * 100_000])


def test_scopes() -> None:
    assert merge_scopes("repository:a:pull", "repository:a:push,pull", "registry:catalog:*") == (
        "repository:a:pull,push registry:catalog:*"
    )
    assert merge_scopes("", "") == ""
    assert merge_scopes("repository:host:5000/a:pull") == "repository:host:5000/a:pull"


def test_tokens() -> None:
    assert parse_token(b'{"token":"t","expires_in":300}') == Token("t", 300)
    assert parse_token(b'{"access_token":"t","expires_in":1,"refresh_token":"r"}') == Token("t", 60, "r")
    for wrong in (b"", b"[]", b"{}", b'{"token":1}', b'{"token":"a\\r\\nX: y"}'):
        assert parse_token(wrong) is None


@pytest.mark.parametrize(
    ("status", "document", "text"),
    [
        (
            404,
            {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]},
            "manifest unknown: manifest unknown",
        ),
        (401, {"details": "incorrect username or password"}, "incorrect username or password"),
        (401, {}, "unauthorized: authentication required"),
        (429, None, "toomanyrequests: the registry refuses more requests for now"),
        (500, [1], "GET x: unexpected answer 500"),
        (400, {"errors": [{"code": "A_B", "message": "bad\x1b[31m\nthing"}]}, "a b: bad [31m thing"),
    ],
)
def test_refusals(status: int, document: object, text: str) -> None:
    error = refusal(status, json.dumps(document).encode() if document is not None else b"\xff", what="GET x")
    assert error.message == text
    assert error.status == status
    assert error.is_denied == (status == 401)
