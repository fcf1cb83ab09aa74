"""Which files a client uses; what it does with them is tested against the engine's TLS in tests/unit/web/test_tls.py."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tare.client import tls
from tare.client.errors import BadHost, ConnectionFailed
from tare.client.host import TlsFiles, choose, choose_tls, parse

NOTHING = {"tls": "", "tlsverify": "", "tlscacert": "", "tlscert": "", "tlskey": ""}


def test_without_a_word_of_it_there_is_no_tls(tmp_path: Path) -> None:
    assert choose_tls(NOTHING, {}, str(tmp_path)) is None
    assert parse("tcp://h").port == 2375


@pytest.mark.parametrize(
    ("options", "environ"),
    [({"tlsverify": "1"}, {}), ({}, {"DOCKER_TLS_VERIFY": "1"}), ({"tls": "1", "tlsverify": "1"}, {})],
)
def test_files_from_dockers_places(tmp_path: Path, options: dict[str, str], environ: dict[str, str]) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    found = choose_tls(NOTHING | options, environ | {"DOCKER_CERT_PATH": str(tmp_path)}, "/none")
    assert found is not None
    assert (found.authority, found.certificate, found.key) == tuple(
        f"{tmp_path}/{name}" for name in ("ca.pem", "cert.pem", "key.pem")
    )
    host = choose(["tcp://engine"], {}, found)
    assert (host.port, host.tls) == (2376, found)


def test_an_authority_must_be_there_to_verify(tmp_path: Path) -> None:
    with pytest.raises(BadHost, match="could not read CA certificate"):
        choose_tls(NOTHING | {"tlsverify": "1"}, {}, str(tmp_path))
    unverified = choose_tls(NOTHING | {"tls": "1"}, {}, str(tmp_path))
    assert unverified is not None
    assert (unverified.authority, unverified.certificate) == ("", "")


def test_an_engine_that_hangs_up_and_files_that_are_not_there(tmp_path: Path) -> None:
    for files in (
        TlsFiles(authority="", certificate="", key=""),
        TlsFiles(authority=str(tmp_path / "none"), certificate="", key=""),
    ):
        ours, theirs = socket.socketpair()
        theirs.close()
        with pytest.raises(ConnectionFailed, match="TLS"):
            tls.wrap(ours, files, "engine")
