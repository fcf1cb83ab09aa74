"""A TCP listener from outside: who is let in, by which name, from whose pages; containers are not.

Exercises daemon/exposure, daemon/app, web/tls and web/guard on a real engine, by the stock command line and by hand.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tare.api.routes import ROUTES
from tare.testing.daemon import Daemon
from tare.testing.pki import Authority

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.root


@dataclass
class Exposed:
    engine: Daemon
    port: int
    pki: Authority
    certificates: Path

    def environment(self, certificates: Path | None = None) -> dict[str, str]:
        return {
            **os.environ,
            "DOCKER_HOST": f"tcp://127.0.0.1:{self.port}",
            "DOCKER_TLS_VERIFY": "1",
            "DOCKER_CERT_PATH": str(certificates or self.certificates),
            "PYTHONPATH": str(REPOSITORY / "src"),
        }

    def ask(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        *,
        name: str = "alice",
        authority: Authority | None = None,
    ) -> tuple[int, str]:
        """One request with somebody's certificate, "" for none. Raises OSError when the connection is refused."""
        signer = authority or self.pki
        context = ssl.create_default_context(cafile=str(self.pki.pem("ca")))
        if name:
            context.load_cert_chain(signer.pem(name), signer.key(name))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=20)
        try:
            connection.request(method, target, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode() if answer.status >= 400 else ""
        except http.client.RemoteDisconnected as error:
            raise ConnectionResetError(str(error)) from None
        finally:
            connection.close()


@pytest.fixture(scope="module")
def exposed(scratch: Path, rootfs_tar: bytes) -> Iterator[Exposed]:
    pki = Authority(scratch / "pki-ours")
    pki.sign("server", hosts="IP:127.0.0.1,DNS:engine.test")
    pki.sign("alice")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    engine = Daemon(
        scratch / "tcp", bridge="tttcp0", source=REPOSITORY / "src",
        arguments=[
            "-H", f"tcp://0.0.0.0:{port}", "--tlsverify", "--tlscacert", str(pki.pem("ca")),
            "--tlscert", str(pki.pem("server")), "--tlskey", str(pki.key("server")),
        ],
    )  # fmt: skip
    try:
        engine.start()
        engine.import_image("busybox:latest", rootfs_tar)
        yield Exposed(engine, port, pki, pki.client_directory("alice"))
    finally:
        engine.destroy()


@pytest.fixture(scope="module")
def foreign(scratch: Path) -> Authority:
    other = Authority(scratch / "pki-foreign", "other")
    other.sign("mallory")
    return other


def paths() -> list[tuple[str, str]]:
    """Every route with something in its variables."""
    return sorted({(r.method, r.pattern.replace(":*", "").replace("{", "").replace("}", "")) for r in ROUTES})


def test_no_route_answers_without_our_certificate(exposed: Exposed, foreign: Authority) -> None:
    for method, path in paths():
        for name, authority in (("", None), ("mallory", foreign)):
            with pytest.raises((ssl.SSLError, ConnectionResetError, BrokenPipeError)):
                exposed.ask(method, path, {}, name=name, authority=authority)


def test_no_route_answers_to_another_host_or_another_page(exposed: Exposed) -> None:
    for method, path in paths():
        status, text = exposed.ask(method, path, {"Host": "evil.test"})
        assert (status, "does not answer to the host" in text) == (403, method != "HEAD"), (method, path, text)
        if method not in ("GET", "HEAD"):
            status, text = exposed.ask(method, path, {"Origin": "https://evil.test"})
            assert (status, "are refused" in text) == (403, True), (method, path, text)


@pytest.mark.parametrize("host", ["engine.test", "localhost:9", "127.0.0.1", "[::1]:1"])
def test_our_own_names_are_answered(exposed: Exposed, host: str) -> None:
    assert exposed.ask("GET", "/_ping", {"Host": host})[0] == 200


@pytest.mark.parametrize("program", [["docker"], [sys.executable, "-m", "tare.cli"]], ids=["docker", "tare"])
def test_command_lines_speak_through_it(exposed: Exposed, program: list[str]) -> None:
    def call(*words: str, data: bytes = b"") -> bytes:
        done = subprocess.run(
            [*program, *words], env=exposed.environment(), input=data, capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert call("run", "--rm", "busybox", "echo", "hi") == b"hi\n"
    data = bytes(range(256)) * 20_000
    assert call("run", "--rm", "-i", "busybox", "cat", data=data) == data  # all of it after the client's end
    call("run", "-d", "--name", "there", "busybox", "sleep", "100")
    assert call("exec", "-i", "there", "cat", data=data) == data
    call("rm", "-f", "there")


def test_who_asked_is_in_the_audit_log(exposed: Exposed) -> None:
    subprocess.run(["docker", "volume", "create", "traced"], env=exposed.environment(), check=True, capture_output=True)
    status, body = exposed.engine.request("GET", f"/tare/v1/events?since=1&until={time.time() + 0.1:.6f}")
    assert status == 200
    entries = [json.loads(line) for line in body.splitlines()]
    assert any("cert=alice from=127.0.0.1:" in json.dumps(entry) for entry in entries if "traced" in json.dumps(entry))


def test_a_container_does_not_reach_it(exposed: Exposed) -> None:
    gateway = exposed.engine.json("GET", "/networks/bridge")["IPAM"]["Config"][0]["Gateway"]
    probe = f"nc -w 1 {gateway} {exposed.port} </dev/null && echo reached || echo stopped"
    done = subprocess.run(
        ["docker", "run", "--rm", "busybox", "sh", "-c", probe],
        env=exposed.environment(),
        capture_output=True,
        timeout=60,
    )
    assert done.stdout == b"stopped\n", done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-H", "tcp://127.0.0.1:1"], "would be root on this machine"),
        (["-H", "tcp://127.0.0.1:1", "--tlsverify", "--tlscacert", "/none"], "there is no file /none"),
        (["-H", "tcp://127.0.0.1:1", "--insecure-tcp"], "would be root on this machine"),
    ],
)
def test_what_is_too_weak_does_not_start(scratch: Path, arguments: list[str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tare.daemon.app", "--data-root", scratch / "no", "--exec-root", scratch / "nox", *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (done.returncode, words in done.stderr) == (1, True), done.stderr
    assert not (scratch / "no").exists()


def test_what_is_weak_is_told_by_info(scratch: Path) -> None:
    engine = Daemon(
        scratch / "open", bridge="ttopen0", source=REPOSITORY / "src",
        arguments=["-H", "tcp://127.0.0.1:0", "--tls=false", "--insecure-tcp"],
    )  # fmt: skip
    try:
        engine.start()
        assert any("open to the network in the clear" in text for text in engine.json("GET", "/info")["Warnings"])
    finally:
        engine.destroy()
