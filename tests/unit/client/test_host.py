from __future__ import annotations

import pytest

from tare.client.errors import BadHost
from tare.client.host import DEFAULT, choose, parse


@pytest.mark.parametrize(
    ("text", "path", "name", "port", "shown"),
    [
        ("unix:///run/x.sock", "/run/x.sock", "", 0, "unix:///run/x.sock"),
        ("/run/x.sock", "/run/x.sock", "", 0, "unix:///run/x.sock"),
        ("tcp://host:99", "", "host", 99, "tcp://host:99"),
        ("host", "", "host", 2375, "tcp://host:2375"),
        (":99", "", "127.0.0.1", 99, "tcp://127.0.0.1:99"),
        ("tcp://[::1]:5", "", "::1", 5, "tcp://[::1]:5"),
    ],
)
def test_parse(text: str, path: str, name: str, port: int, shown: str) -> None:
    host = parse(text)
    assert (host.path, host.name, host.port, host.text) == (path, name, port, shown)


@pytest.mark.parametrize(
    "text",
    [
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://-l@x",
        "ssh://me:secret@x",
        "ssh://x:0",
        "npipe:////./pipe",
        "unix://",
        "tcp://x:y",
        "tcp://x:70000",
    ],
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(BadHost):
        parse(text)


def test_the_flag_comes_first_then_the_environment() -> None:
    environ = {"DOCKER_HOST": "unix:///d", "TARE_HOST": "unix:///t"}
    assert choose(["unix:///f"], environ).path == "/f"
    assert choose([], environ).path == "/t"
    assert choose([], {"DOCKER_HOST": "unix:///d"}).path == "/d"
    assert choose([], {}).text == DEFAULT


def test_two_hosts_are_refused() -> None:
    with pytest.raises(BadHost, match="only one -H"):
        choose(["a", "b"], {})


@pytest.mark.parametrize(
    ("text", "user", "name", "port", "path"),
    [
        ("ssh://two", "", "two", 0, ""),
        ("ssh://root@two.example:22/run/t.sock", "root", "two.example", 22, "/run/t.sock"),
        ("ssh://me@[::1]:5", "me", "::1", 5, ""),
    ],
)
def test_parse_ssh(text: str, user: str, name: str, port: int, path: str) -> None:
    host = parse(text)
    assert (host.is_ssh, host.user, host.name, host.port, host.path) == (True, user, name, port, path)
