"""Which descriptors an address means, what is taken of them, and what the service manager hears."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tare.base.errors import InvalidArgument
from tare.daemon.activation import adopt, numbers, tell

PASSED = {"LISTEN_PID": "7", "LISTEN_FDS": "2"}


@pytest.mark.parametrize(("host", "found"), [("fd://", [3, 4]), ("fd://*", [3, 4]), ("fd://3", [3]), ("fd://4", [4])])
def test_what_was_passed(host: str, found: list[int]) -> None:
    assert numbers(host, PASSED, pid=7) == found


@pytest.mark.parametrize(
    ("host", "environ", "words"),
    [
        ("fd://", {}, "no sockets were passed"),
        ("fd://", {**PASSED, "LISTEN_PID": "8"}, "no sockets were passed"),
        ("fd://", {**PASSED, "LISTEN_FDS": "0"}, "no sockets were passed"),
        ("fd://", {**PASSED, "LISTEN_FDS": "x"}, "no sockets were passed"),
        ("fd://5", PASSED, "that descriptor was not passed"),
        ("fd://name", PASSED, "that descriptor was not passed"),
    ],
)
def test_what_was_not(host: str, environ: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        numbers(host, environ, pid=7)


def test_only_unix_stream_sockets_are_taken(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "s"))
        made.listen()
        taken = adopt(os.dup(made.fileno()))
        assert not taken.get_inheritable()
        taken.close()
    with socket.socket(socket.AF_INET) as other, pytest.raises(InvalidArgument, match="no unix stream socket"):
        adopt(other.fileno())
    with (tmp_path / "file").open("w") as file, pytest.raises(InvalidArgument, match="is no socket"):
        adopt(file.fileno())


def test_the_manager_hears_it(tmp_path: Path) -> None:
    tell("READY=1", {})
    tell("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        tell("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "n")})
        assert manager.recv(64) == b"READY=1"
