"""How ssh is called, and a connection through a child."""

from __future__ import annotations

from pathlib import Path

import pytest

from tare.client.errors import ConnectionFailed
from tare.client.host import parse
from tare.client.ssh import argv, connect


def test_the_machine_is_never_an_option_and_the_path_is_quoted() -> None:
    words = argv(parse("ssh://me@two:5/a b;x"))
    assert words[:1] == ["ssh"]
    assert words[words.index("-l") + 1] == "me"
    assert words[words.index("-p") + 1] == "5"
    assert words[words.index("--") :] == ["--", "two", "tare", "-H", "'unix:///a b;x'", "system", "dial-stdio"]
    assert argv(parse("ssh://two"))[-5:] == ["--", "two", "tare", "system", "dial-stdio"]


def test_bytes_go_through_the_child_which_ends_with_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ssh"
    program.write_text("#!/bin/sh\nexec cat\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    connection = connect(parse("ssh://two"))
    connection.send(b"over and back\n")
    assert connection.line() == b"over and back"
    connection.close()
    assert connection._child.returncode == 0  # type: ignore[attr-defined]


def test_without_ssh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConnectionFailed, match="cannot start ssh"):
        connect(parse("ssh://two"))
