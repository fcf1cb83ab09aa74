"""Where git is led when it fetches for a build: to the addresses that were checked, and nowhere else."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tare.base.errors import Forbidden, NotFound, Unavailable
from tare.build.gitref import GitRef
from tare.engine.builds import repository


def names(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Every name means these addresses."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def ref(url: str, host: str = "git.example") -> GitRef:
    return GitRef(url, "", "", host)


def test_what_was_checked_is_what_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, "93.184.216.34", "93.184.216.35", "93.184.216.34")
    assert repository._connection(ref("https://git.example/x.git"), False) == (
        "-c", "http.followRedirects=false", "-c", "http.curloptResolve=git.example:443:93.184.216.34,93.184.216.35",
    )  # fmt: skip
    assert repository._connection(ref("http://git.example:8080/x.git"), False)[-1].startswith(
        "http.curloptResolve=git.example:8080:"
    )
    assert repository._connection(ref("https://[2606:2800:220:1::1]/x.git", "2606:2800:220:1::1"), False) == (
        "-c", "http.followRedirects=false",
    )  # fmt: skip
    assert repository._connection(ref("git://git.example/x"), False) == ()
    assert repository._connection(ref("https://git.example/x.git"), True) == ()


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1"])
def test_private_addresses_are_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    names(monkeypatch, "93.184.216.34", address)
    for url in ("https://git.example/x.git", "git://git.example/x", "git@git.example:x"):
        with pytest.raises(Forbidden):
            repository._connection(ref(url), False)
    repository._connection(ref("https://git.example/x.git"), True)


@pytest.fixture
def server() -> Iterator[tuple[int, list[str]]]:
    """A server on loopback: port, and the paths that were asked for. Below /moved it leads elsewhere."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path.partition("?")[0])
            self.send_response(302 if self.path.startswith("/moved") else 404)
            self.send_header("Location", f"http://127.0.0.1:{port}/elsewhere.git/info/refs?service=git-upload-pack")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = made.server_address[1]
    thread = threading.Thread(target=made.serve_forever, args=(0.02,))
    thread.start()
    yield port, asked
    made.shutdown()
    made.server_close()
    thread.join()


def test_git_keeps_to_it(monkeypatch: pytest.MonkeyPatch, server: tuple[int, list[str]]) -> None:
    port, asked = server
    names(monkeypatch, "127.0.0.1")
    monkeypatch.setattr(repository, "check_address", lambda *_, **__: None)
    with pytest.raises(NotFound, match="not found"):
        asyncio.run(repository.resolve(ref(f"http://git.example:{port}/x.git"), allow_private=False))
    assert asked == ["/x.git/info/refs"], "the name was led to the address"
    asked.clear()
    with pytest.raises(Unavailable, match="302") as caught:
        asyncio.run(repository.resolve(ref(f"http://git.example:{port}/moved.git"), allow_private=False))
    assert caught.value.hint == "redirects are not followed: give the URL that it leads to"
    assert asked == ["/moved.git/info/refs"]
