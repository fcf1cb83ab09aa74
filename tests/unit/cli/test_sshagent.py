from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tare.cli.exit import Exit
from tare.cli.sshagent import with_keys


def test_an_agent_holds_the_keys_as_long_as_the_block(tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f", str(key)], check=True)
    with with_keys([str(key)]) as path:
        assert stat.S_ISSOCK(os.stat(path).st_mode)
        listed = subprocess.run(
            ["ssh-add", "-l"], env={**os.environ, "SSH_AUTH_SOCK": path}, capture_output=True, text=True, check=True
        )
        assert "mine" in listed.stdout
    assert not os.path.exists(os.path.dirname(path))
    (tmp_path / "wrong").write_text("no key")
    (tmp_path / "wrong").chmod(0o600)
    with pytest.raises(Exit, match="cannot use the key"), with_keys([str(tmp_path / "wrong")]):
        pass
