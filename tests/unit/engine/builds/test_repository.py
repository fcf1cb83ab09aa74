"""Where git is led when it fetches for a build: to the addresses that were checked, and nowhere else."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from tare.base.errors import Forbidden, NotFound, Unavailable
from tare.build.gitref import GitRef
from tare.engine.builds import repository
from tare.testing.gitserver import git_server, over_http


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


def test_git_keeps_to_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By name, with no name server that knows it: commits, and those of submodules, but no redirect."""
    names(monkeypatch, "127.0.0.1")
    monkeypatch.setattr(repository, "check_address", lambda *_, **__: None)
    with git_server(tmp_path) as made, over_http(made) as (port, asked):
        lib = made.commit("lib", {"of-lib": "x"})
        made.commit("app", {"of-app": "x"})
        commit = made.add_submodule("app", "lib", url="../lib", commit=lib)
        base = f"http://git.example:{port}"
        assert asyncio.run(repository.resolve(ref(f"{base}/app.git"), allow_private=False)) == commit
        with pytest.raises(Unavailable, match="301") as caught:
            asyncio.run(repository.resolve(ref(f"{base}/app"), allow_private=False))
        assert caught.value.hint == "redirects are not followed: give the URL that it leads to"
        with pytest.raises(NotFound):
            asyncio.run(repository.resolve(ref(f"{base}/nothing.git"), allow_private=False))
        asked.clear()
        place = tmp_path / "place"
        place.mkdir()
        found = asyncio.run(repository.fetch(ref(f"{base}/app.git"), place, allow_private=False))
        os.close(found.fd)
        assert found.commit == commit
        assert found.submodules == (repository.Submodule("lib", f"{base}/lib.git", lib),)
        assert (place / "work/lib/of-lib").read_text() == "x"
        assert {path.partition("/info/")[0] for path in asked if "/info/" in path} == {"/app.git", "/lib", "/lib.git"}
