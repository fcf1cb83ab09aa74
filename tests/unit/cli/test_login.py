from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest


def test_login_and_logout(engine: Any, tare: Any, tmp_path: Path) -> None:
    engine.answers["POST /auth"] = (200, {"Status": "Login Succeeded", "IdentityToken": ""})
    config = ["--config", str(tmp_path / "c")]
    code, out, err = tare(*config, "login", "-u", "me", "-p", "pw", "h:5")
    assert (code, out) == (0, "Login Succeeded\n")
    assert "insecure" in err
    assert f"Your credentials are stored unencrypted in '{tmp_path}/c/config.json'" in err
    assert engine.requests[-1][2] == {"username": "me", "password": "pw", "serveraddress": "h:5"}
    assert json.loads((tmp_path / "c/config.json").read_text())["auths"] == {"h:5": {"auth": "bWU6cHc="}}
    assert tare(*config, "logout", "h:5") == (0, "Removing login credentials for h:5\n", "")
    assert json.loads((tmp_path / "c/config.json").read_text())["auths"] == {}


def test_a_helper_needs_no_warning(engine: Any, tare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.answers["POST /auth"] = (200, {"Status": "Login Succeeded", "IdentityToken": ""})
    (tmp_path / "config.json").write_text('{"credsStore": "box"}')
    program = tmp_path / "docker-credential-box"
    program.write_text(f"#!/bin/sh\ncat >{tmp_path}/kept\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    code, _, err = tare("--config", str(tmp_path), "login", "-u", "me", "-p", "pw", "h:5")
    assert (code, "unencrypted" in err) == (0, False)
    assert json.loads((tmp_path / "kept").read_text())["Secret"] == "pw"


def test_refused_credentials_are_not_kept(engine: Any, tare: Any, tmp_path: Path) -> None:
    engine.answers["POST /auth"] = (401, {"message": "unauthorized"})
    assert tare("--config", str(tmp_path / "c"), "login", "-u", "a", "-p", "b", "h")[0] == 1
    assert not (tmp_path / "c").exists()
