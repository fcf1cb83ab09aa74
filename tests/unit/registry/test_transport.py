"""Connections, redirects and what may not be followed."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tare.base.errors import InternalError, Unavailable
from tare.registry.hosts import Endpoint, RegistryOptions
from tare.registry.transport import Transport, Unreachable, check_public, is_private, shown
from tare.testing.pki import Authority
from tare.testing.proxy import proxy
from tare.testing.registry import Fault, Registry, registry

SOURCE = str(Path(__file__).resolve().parents[3] / "src")


def run(story: Callable[[Transport], Awaitable[None]], options: RegistryOptions | None = None) -> None:
    async def main() -> None:
        transport = Transport(options or RegistryOptions())
        try:
            await asyncio.wait_for(story(transport), 30)
        finally:
            await transport.close()

    asyncio.run(main())


def at(server: Registry, **more: bool) -> Endpoint:
    return Endpoint(scheme="http", host=server.host, is_verified=False, **more)


def test_an_answer_and_its_bytes() -> None:
    with registry() as server:

        async def story(transport: Transport) -> None:
            endpoint = at(server)
            async with transport.send("GET", f"{endpoint.base}/v2/", endpoint=endpoint) as answer:
                assert answer.status == 200
                assert await answer.read() == b"{}"
            with pytest.raises(Unavailable, match="larger than 1 bytes"):
                async with transport.send("GET", f"{endpoint.base}/v2/", endpoint=endpoint) as answer:
                    await answer.read(1)
            assert server.log[0].headers["User-Agent"].startswith("tare/")
            assert server.log[0].headers["Accept-Encoding"] == "identity"

        run(story)


def test_nothing_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"

        async def story(transport: Transport) -> None:
            endpoint = Endpoint(scheme="http", host=host)
            with pytest.raises(Unreachable, match="refused") as caught:
                async with transport.send("GET", f"{endpoint.base}/v2/", endpoint=endpoint):
                    pass
            assert caught.value.is_absent

        run(story)


def test_a_cut_answer() -> None:
    with registry() as server:
        digest = server.put_blob("a", b"x" * 1000)
        server.faults.append(Fault(path="blobs", cut_at=10))

        async def story(transport: Transport) -> None:
            endpoint = at(server)
            with pytest.raises(Unreachable, match="cut") as caught:
                async with transport.send("GET", f"{endpoint.base}/v2/a/blobs/{digest}", endpoint=endpoint) as answer:
                    await answer.read()
            assert not caught.value.is_absent

        run(story)


@pytest.mark.parametrize("location", ["ftp://x.example/", "http://u:p@x.example/"])
def test_redirects_to_what_is_no_web_address(location: str) -> None:
    with registry() as server:
        server.faults.append(Fault(path="/v2/", status=302, headers={"Location": location}))

        async def story(transport: Transport) -> None:
            endpoint = at(server)
            with pytest.raises(Unavailable, match="refused"):
                async with transport.send("GET", f"{endpoint.base}/v2/", endpoint=endpoint):
                    pass

        run(story)


def test_a_public_registry_may_not_lead_inside() -> None:
    with registry() as inside:

        async def story(transport: Transport) -> None:
            public = Endpoint(scheme="https", host="registry.example")
            for host in (inside.host, inside.host.replace("127.0.0.1", "localhost")):
                url = f"https://{host}/latest/meta-data"
                with pytest.raises(Unavailable, match="not a public address"):
                    async with transport.send("GET", url, endpoint=public):
                        pass
            with pytest.raises(Unavailable, match="no TLS"):
                async with transport.send("GET", f"http://{inside.host}/", endpoint=public):
                    pass
            assert inside.log == []

        run(story)


def test_addresses() -> None:
    assert is_private("10.0.0.1:5000")
    assert not is_private("quay.example")
    check_public("8.8.8.8")
    for text in ("127.0.0.1", "169.254.169.254", "::1", "192.168.1.1"):
        with pytest.raises(Unavailable):
            check_public(text)
    assert shown("https://u:p@x.example/a?secret=1") == "https://x.example/a"


def test_certificates_of_the_administrator_are_read(tmp_path: Path) -> None:
    (tmp_path / "reg.example:5000").mkdir()
    (tmp_path / "reg.example:5000" / "ca.crt").write_text("not a certificate")

    async def story(transport: Transport) -> None:
        with pytest.raises(InternalError, match="cannot read the certificates"):
            async with transport.send(
                "GET", "https://reg.example:5000/v2/", endpoint=Endpoint(scheme="https", host="reg.example:5000")
            ):
                pass

    run(story, RegistryOptions(certificates=(tmp_path,)))


def test_a_daemon_that_never_pulls_does_not_pay_for_the_library() -> None:
    code = "import sys, tare.daemon.app; sys.exit(1 if {'aiohttp', 'yarl'} & set(sys.modules) else 0)"
    assert (
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": SOURCE}, check=False).returncode
        == 0
    )


def test_what_a_proxy_says_and_where_it_is_not() -> None:
    """Its password is in no message."""
    url = "http://registry.test:5000/v2/"
    endpoint = Endpoint(scheme="https", host="registry.test:5000")
    with proxy({}, user="me", password="secret") as one:
        cases = (
            (f"http://me:secret@{one.host}", "the proxy answers 502 Bad Gateway"),
            (f"http://me:wrong@{one.host}", "the proxy answers 407 Proxy Authentication Required"),
            ("http://me:secret@127.0.0.1:9", "proxy 127.0.0.1:9: connect: connection refused"),
        )
        for setting, words in cases:

            async def story(transport: Transport, words: str = words) -> None:
                with pytest.raises(Unreachable) as caught:
                    async with transport.send("GET", url.replace("http:", "https:"), endpoint=endpoint):
                        pass
                assert caught.value.message == f"https://registry.test:5000/v2/: {words}"

            run(story, RegistryOptions(environment={"HTTPS_PROXY": setting}))


def test_a_server_that_wants_to_know_its_clients(tmp_path: Path) -> None:
    pki = Authority(tmp_path)
    pki.sign("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.pem("server"), pki.key("server"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(pki.pem("ca"))
    with registry(tls=context) as server:

        async def story(transport: Transport) -> None:
            endpoint = Endpoint(scheme="https", host=server.host, is_verified=False)
            # after the handshake: the refusal is read, or the request was written into a closed connection already
            with pytest.raises(Unreachable, match=r"certificate required|the connection was cut"):
                async with transport.send("GET", f"https://{server.host}/v2/", endpoint=endpoint):
                    pass

        run(story, RegistryOptions())
