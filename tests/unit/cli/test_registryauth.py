from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tare.cli import registryauth


def test_registry_of() -> None:
    names = ("a", "a/b", "docker.io/a", "h:5/a", "localhost/a", "example.org/a")
    assert [registryauth.registry_of(name) for name in names] == [registryauth.HUB] * 3 + [
        "h:5",
        "localhost",
        "example.org",
    ]


def test_stored_credentials_become_the_header(tmp_path: Path) -> None:
    auth = base64.b64encode(b"me:se:cret").decode()
    registryauth.write_config(str(tmp_path), {"auths": {"h:5": {"auth": auth}}, "other": 1})
    assert (tmp_path / "config.json").stat().st_mode & 0o777 == 0o600
    header = registryauth.header(str(tmp_path), "h:5/a")["X-Registry-Auth"]
    assert json.loads(base64.urlsafe_b64decode(header)) == {
        "serveraddress": "h:5",
        "username": "me",
        "password": "se:cret",
    }
    assert base64.urlsafe_b64decode(registryauth.header(str(tmp_path), "a")["X-Registry-Auth"]) == b"{}"
    assert registryauth.read_config(str(tmp_path))["other"] == 1


def test_damage_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json"):
        registryauth.read_config(str(tmp_path))


HELPER = """#!/bin/sh
case $1 in
    get) read -r server; cat "$0.$server" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
    store) cat >"$0.h:5" ;;
    erase) read -r server; rm -f "$0.$server" ;;
esac
"""


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_a_credential_helper_keeps_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    program = tmp_path / "docker-credential-mine"
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    where = str(tmp_path / "c")
    registryauth.write_config(where, {key: "mine" if key == "credsStore" else {"h:5": "mine"}})
    assert registryauth.credentials(where, "h:5") == {}
    assert registryauth.store(where, "h:5", "me", password="pw", token="") == "mine"
    assert "pw" not in (tmp_path / "c/config.json").read_text()
    assert registryauth.credentials(where, "h:5") == {"serveraddress": "h:5", "username": "me", "password": "pw"}
    registryauth.store(where, "h:5", "me", password="pw", token="tok")
    assert registryauth.credentials(where, "h:5") == {"serveraddress": "h:5", "identitytoken": "tok"}
    registryauth.erase(where, "h:5")
    assert registryauth.credentials(where, "h:5") == {}
    assert json.loads((tmp_path / "c/config.json").read_text())["auths"] == {}


@pytest.mark.parametrize("name", ["../evil", "-x", "missing"])
def test_a_helper_that_cannot_be_run(tmp_path: Path, name: str) -> None:
    registryauth.write_config(str(tmp_path), {"credsStore": name})
    with pytest.raises(ValueError, match="credential"):
        registryauth.credentials(str(tmp_path), "h:5")


def test_a_build_gets_the_credentials_of_every_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker-credential-mine"
    program.write_text(
        """#!/bin/sh
case $1 in
    list) echo '{"a:1": "me", "b:1": "me"}' ;;
    get) read -r server; echo "{\\"Username\\": \\"me\\", \\"Secret\\": \\"of $server\\"}" ;;
esac
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    config = {"auths": {"c:1": {"auth": "?"}, "d:1": {}}, "credsStore": "mine", "credHelpers": {"d:1": "nosuch"}}
    registryauth.write_config(str(tmp_path), config)
    assert registryauth.registries(str(tmp_path)) == ["a:1", "b:1", "c:1", "d:1"]
    header, wrong = registryauth.config_header(str(tmp_path))
    found = json.loads(base64.urlsafe_b64decode(header["X-Registry-Config"]))
    assert {name: entry["password"] for name, entry in found.items()} == {n: f"of {n}" for n in ("a:1", "b:1", "c:1")}
    assert wrong == ["error getting credentials: docker-credential-nosuch: no such file or directory"]

    registryauth.write_config(str(tmp_path), {"auths": {"c:1": {"auth": "bTpw"}}, "credsStore": ""})
    header, wrong = registryauth.config_header(str(tmp_path))
    assert json.loads(base64.urlsafe_b64decode(header["X-Registry-Config"]))["c:1"]["password"] == "p"
    assert wrong == []
