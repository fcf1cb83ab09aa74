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
