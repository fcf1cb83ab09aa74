from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def test_login_and_logout(engine: Any, tare: Any, tmp_path: Path) -> None:
    engine.answers["POST /auth"] = (200, {"Status": "Login Succeeded", "IdentityToken": ""})
    config = ["--config", str(tmp_path / "c")]
    code, out, err = tare(*config, "login", "-u", "me", "-p", "pw", "h:5")
    assert (code, out) == (0, "Login Succeeded\n")
    assert "insecure" in err
    assert engine.requests[-1][2] == {"username": "me", "password": "pw", "serveraddress": "h:5"}
    assert json.loads((tmp_path / "c/config.json").read_text())["auths"] == {"h:5": {"auth": "bWU6cHc="}}
    assert tare(*config, "logout", "h:5") == (0, "Removing login credentials for h:5\n", "")
    assert json.loads((tmp_path / "c/config.json").read_text())["auths"] == {}


def test_refused_credentials_are_not_kept(engine: Any, tare: Any, tmp_path: Path) -> None:
    engine.answers["POST /auth"] = (401, {"message": "unauthorized"})
    assert tare("--config", str(tmp_path / "c"), "login", "-u", "a", "-p", "b", "h")[0] == 1
    assert not (tmp_path / "c").exists()
