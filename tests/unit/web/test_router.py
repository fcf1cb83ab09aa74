"""Routes, greedy names, versions."""

from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument, NotFound
from tare.web.router import Route, Router, split_version, tidy

ROUTER = Router(
    [
        Route("GET", "/images/json", "list", "read"),
        Route("GET", "/images/{name:*}/json", "inspect", "read"),
        Route("DELETE", "/images/{name:*}", "remove", "write"),
        Route("GET", "/containers/{id}/json", "container", "read"),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "handler", "params"),
    [
        ("GET", "/images/json", "list", {}),
        ("GET", "/images/registry:5000/a/b:tag/json", "inspect", {"name": "registry:5000/a/b:tag"}),
        ("GET", "/images/json/json", "inspect", {"name": "json"}),
        ("GET", "/images/a%2Fb/json", "inspect", {"name": "a/b"}),
        ("DELETE", "/images/a/b", "remove", {"name": "a/b"}),
        ("GET", "/containers/web/json", "container", {"id": "web"}),
    ],
)
def test_find(method: str, path: str, handler: str, params: dict[str, str]) -> None:
    route, found = ROUTER.find(method, path)
    assert (route.handler, found) == (handler, params)


@pytest.mark.parametrize(("method", "path"), [("GET", "/nope"), ("PUT", "/images/json"), ("GET", "/containers//json")])
def test_unknown_path_or_method_is_not_found(method: str, path: str) -> None:
    with pytest.raises(NotFound, match="page not found"):
        ROUTER.find(method, path)


def test_a_route_without_permission_does_not_start() -> None:
    with pytest.raises(ValueError, match="permission"):
        Route("GET", "/x", "h", "")


@pytest.mark.parametrize(
    ("path", "version", "rest"),
    [
        ("/v1.41/info", (1, 41), "/info"),
        ("/info", (1, 51), "/info"),
        ("/v1.24", (1, 24), "/"),
        ("/version", (1, 51), "/version"),
    ],
)
def test_split_version(path: str, version: tuple[int, int], rest: str) -> None:
    assert split_version(path, newest=(1, 51), oldest=(1, 24)) == (version, rest)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/v1.23/info", "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade"),
        ("/v1.60/info", "client version 1.60 is too new. Maximum supported API version is 1.51"),
    ],
)
def test_versions_out_of_range(path: str, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        split_version(path, newest=(1, 51), oldest=(1, 24))


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("/version", "/version"),
        ("/version/", "/version/"),
        ("//version", "/version"),
        ("//evil.example/x", "/evil.example/x"),
        ("/v1.40//containers/./json", "/v1.40/containers/json"),
        ("/a/../../b/", "/b/"),
        ("/..", "/"),
        ("/", "/"),
    ],
)
def test_tidy(path: str, clean: str) -> None:
    assert tidy(path) == clean
