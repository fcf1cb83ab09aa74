from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tare.base.errors import InvalidArgument, Unavailable
from tare.daemon import exposure
from tare.daemon.exposure import Exposure, Tls
from tare.testing.pki import Authority


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    found = Authority(tmp_path_factory.mktemp("pki"))
    found.sign("server", hosts="DNS:Engine.Test,DNS:other.test,IP:127.0.0.1")
    return found


def given(pki: Authority, **more: Any) -> dict[str, Any]:
    return {
        "tlscacert": str(pki.pem("ca")),
        "tlscert": str(pki.pem("server")),
        "tlskey": str(pki.key("server")),
        **more,
    }


TCP = ("unix:///run/x", "tcp://127.0.0.1:2376")


def test_unix_sockets_need_nothing(pki: Authority) -> None:
    assert exposure.resolve({}, TCP[:1], environ={}) == Exposure()


def test_verified_clients_need_nothing_more(pki: Authority) -> None:
    found = exposure.resolve(given(pki, tlsverify="true"), TCP, environ={})
    assert found.tls is not None
    assert found.tls.authority == str(pki.pem("ca"))
    assert found.warning == ""
    assert exposure.context_of(found) is not None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "would be root"),
        ({"tls": "false"}, "would be root"),
        ({"insecure-tcp": "true"}, "would be root"),
        ({"tls": "true"}, "lets in every client"),
        ({"tlsverify": "true", "tlscacert": "/none"}, "--tlscacert: there is no file /none"),
    ],
)
def test_less_needs_two_words(pki: Authority, values: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        exposure.resolve(given(pki) | values, TCP, environ={})


def test_what_is_weak_is_told(pki: Authority) -> None:
    open_ = exposure.resolve({"tls": "false", "insecure-tcp": True}, TCP, environ={})
    assert (open_.tls, "in the clear" in open_.warning) == (None, True)
    unverified = exposure.resolve(given(pki, tls=True) | {"insecure-tcp": True}, TCP, environ={})
    assert "every client" in unverified.warning


def test_the_usual_places_of_the_files(pki: Authority, tmp_path: Path) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    found = exposure.resolve({"tlsverify": True}, TCP, environ={"DOCKER_CERT_PATH": str(tmp_path)})
    assert found.tls == Tls(
        certificate=f"{tmp_path}/cert.pem", key=f"{tmp_path}/key.pem", authority=f"{tmp_path}/ca.pem"
    )
    with pytest.raises(InvalidArgument, match="cannot use the certificates"):
        exposure.context_of(found)


@pytest.mark.parametrize("host", ["tcp://h:1/path", "tcp://user@h:1", "tcp://h:99999", "tcp://h:1?x"])
def test_addresses_that_cannot_be(host: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid bind address"):
        exposure.resolve({"tls": "false", "insecure-tcp": True}, [host], environ={})


def test_the_names_we_answer_to(pki: Authority) -> None:
    found = exposure.resolve(given(pki, tlsverify=True, **{"allowed-host": ["Proxy.Test"]}), TCP, environ={})
    names = exposure.guard_of("tcp://[::1]:2376", found).names
    assert names >= {"engine.test", "other.test", "proxy.test", "localhost", "::1"}


def test_the_sockets_that_containers_must_not_reach() -> None:
    hosts = ["unix:///run/x", "tcp://0.0.0.0:2375", "tcp://10.0.0.1:2376", "tcp://[::1]", "tcp://name:99"]
    assert exposure.listeners(hosts, Exposure()) == [("", 2375), ("10.0.0.1", 2376), ("::1", 2375), ("", 99)]
    secured = Exposure(tls=Tls(certificate="c", key="k"))
    assert exposure.listeners(["tcp://[::1]"], secured) == [("::1", 2376)]


def test_a_port_that_is_taken() -> None:
    first = exposure.bind("tcp://127.0.0.1:0", Exposure())
    first.listen()
    try:
        with pytest.raises(Unavailable, match="cannot listen"):
            exposure.bind(f"tcp://127.0.0.1:{first.getsockname()[1]}", Exposure())
    finally:
        first.close()
