"""Registries behind proxies, with certificates, and such that stall, refuse for a while or change under the reader."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import random
import socket
import ssl
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tare.testing.daemon import Daemon
from tare.testing.pki import Authority
from tare.testing.proxy import Proxy, proxy
from tare.testing.registry import Fault, Registry, digest_of, registry
from tare.testing.stockclient import docker, out

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SOURCE = Path(__file__).resolve().parents[2] / "src"


def layer(**files: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def noise(size: int) -> bytes:
    return random.Random(1).randbytes(size)


def left(engine: Daemon) -> list[str]:
    return [name for place in ("ingest", "downloads", "uploads") for name in os.listdir(engine.data_root / place)]


def place_of(server: Registry) -> tuple[str, int]:
    address, _, port = server.host.partition(":")
    return address, int(port)


# --- proxies and certificates


@dataclass
class Office:
    """An engine that reaches the world by a proxy, and what is there."""

    engine: Daemon
    proxy: Proxy
    plain: Registry
    secure: Registry
    strict: Registry
    certificates: Path


def server_context(pki: Authority, *, wants_client: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.pem("server"), pki.key("server"))
    if wants_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(pki.pem("ca"))
    return context


@pytest.fixture
def office(scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    pki = Authority(tmp_path / "pki")
    names = ("secure.test", "strict.test", "stranger.test")
    pki.sign("server", hosts=",".join(f"DNS:{name}" for name in names))
    pki.sign("me")
    certificates = tmp_path / "certs.d"
    for name in ("secure.test:5443", "strict.test:5443"):
        (certificates / name).mkdir(parents=True)
        (certificates / name / "ca.crt").write_bytes(pki.pem("ca").read_bytes())
    (certificates / "strict.test:5443" / "client.cert").write_bytes(pki.pem("me").read_bytes())
    (certificates / "strict.test:5443" / "client.key").write_bytes(pki.key("me").read_bytes())
    with (
        registry() as plain,
        registry(tls=server_context(pki, wants_client=False)) as secure,
        registry(tls=server_context(pki, wants_client=True)) as strict,
    ):
        places = {
            "plain.test:5000": place_of(plain),
            "direct.test:5000": place_of(plain),
            "secure.test:5443": place_of(secure),
            "stranger.test:5443": place_of(secure),
            "strict.test:5443": place_of(strict),
        }
        with proxy(places, user="worker", password="pa55word") as ours:
            url = f"http://worker:pa55word@{ours.host}"
            monkeypatch.setenv("HTTPS_PROXY", url)  # one by the environment, one by an option
            monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
            arguments = ["--http-proxy", url, "--no-proxy", "direct.test", "--certs-dir", str(certificates)]
            for name in ("plain.test:5000", "direct.test:5000"):
                arguments += ["--insecure-registry", name]
            engine = Daemon(scratch / "o", bridge=f"to{os.getpid()}", source=SOURCE, arguments=arguments)
            try:
                engine.start()
                yield Office(engine, ours, plain, secure, strict, certificates)
                assert left(engine) == []
                assert "pa55word" not in engine.log.read_text()
            finally:
                engine.destroy()


def test_everything_goes_by_the_proxy(office: Office) -> None:
    """Pull and push, with and without TLS; info shows the proxies without their password."""
    for server, name in ((office.plain, "plain.test:5000"), (office.secure, "secure.test:5443")):
        digest = server.put_image("a", "1", [layer(a=name.encode() * 100_000)])
        out(office.engine.host, "pull", f"{name}/a:1")
        out(office.engine.host, "tag", f"{name}/a:1", f"{name}/b:1")
        assert f"1: digest: {digest}" in out(office.engine.host, "push", f"{name}/b:1")
        assert server.manifests["b", "1"] == server.manifests["a", "1"]
    assert all(asked.is_known for asked in office.proxy.log)
    asked = {(one.method, one.target.partition("?")[0]) for one in office.proxy.log}
    assert ("CONNECT", "secure.test:5443") in asked
    assert ("GET", "http://plain.test:5000/v2/a/manifests/1") in asked
    assert not [target for method, target in asked if method != "CONNECT" and "secure.test" in target]
    info = office.engine.json("GET", "/info")
    assert info["HttpProxy"] == info["HttpsProxy"] == f"http://xxxxx:xxxxx@{office.proxy.host}"
    assert info["NoProxy"] == "direct.test"


def test_what_is_excepted_and_loopback_are_reached_directly(office: Office) -> None:
    office.plain.put_image("a", "1", [layer(a=b"1")])
    assert "lookup direct.test" in docker(office.engine.host, "pull", "direct.test:5000/a:1").stderr
    out(office.engine.host, "pull", f"{office.plain.host}/a:1")
    assert office.proxy.log == []


def test_a_proxy_that_refuses(office: Office) -> None:
    office.proxy.secret = "another"
    done = docker(office.engine.host, "pull", "secure.test:5443/a:1")
    assert done.returncode == 1
    assert "407" in done.stderr
    office.proxy.secret = ""
    assert "502" in docker(office.engine.host, "pull", "unknown.test:5443/a:1").stderr


def test_certificates_decide(office: Office) -> None:
    """An authority of one's own, one that nobody vouched for, and a registry that wants to know its clients."""
    office.secure.put_image("a", "1", [layer(a=b"1")])
    office.strict.put_image("a", "1", [layer(a=b"2")])
    assert "certificate verify failed" in docker(office.engine.host, "pull", "stranger.test:5443/a:1").stderr
    out(office.engine.host, "pull", "strict.test:5443/a:1")
    for file in ("client.cert", "client.key"):
        (office.certificates / "strict.test:5443" / file).unlink()
    office.engine.stop()
    office.engine.start()  # files are read once
    done = docker(office.engine.host, "pull", "strict.test:5443/a:1")
    assert done.returncode == 1
    assert "certificate required" in done.stderr


# --- patience


@pytest.fixture
def server() -> Iterator[Registry]:
    with registry() as made:
        yield made


@pytest.fixture
def engine(scratch: Path) -> Iterator[Daemon]:
    """One that waits a second and tries twice."""
    arguments = ["--registry-timeout", "1", "--max-download-attempts", "2"]
    made = Daemon(scratch / "h", bridge=f"th{os.getpid()}", source=SOURCE, arguments=arguments)
    try:
        made.start()
        yield made
        assert left(made) == []
    finally:
        made.destroy()


def largest(server: Registry) -> str:
    return max(server.blobs, key=lambda digest: len(server.blobs[digest]))


def test_nobody_takes_the_connection(engine: Daemon, server: Registry) -> None:
    """A listener whose queue is full: the kernel answers nothing."""
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(deaf.getsockname())
        done = docker(engine.host, "pull", f"127.0.0.1:{deaf.getsockname()[1]}/a:1")
        assert done.returncode == 1
        assert "no answer in time" in done.stderr
    server.put_image("a", "1", [layer(a=b"1")])
    out(engine.host, "pull", f"{server.host}/a:1")


@pytest.mark.parametrize(("method", "path"), [("GET", "manifests/1"), ("GET", "blobs/")])
def test_a_registry_that_takes_the_request_and_says_nothing(
    engine: Daemon, server: Registry, method: str, path: str
) -> None:
    server.put_image("a", "1", [layer(a=b"1")])
    fault = Fault(path=path, method=method, silent=threading.Event(), times=2)
    server.faults.append(fault)
    done = docker(engine.host, "pull", f"{server.host}/a:1")
    assert done.returncode == 1
    assert "no answer in time" in done.stderr
    assert fault.times == 0  # it was tried again
    assert f"{server.host}/a:1" not in str(engine.json("GET", "/images/json"))
    out(engine.host, "pull", f"{server.host}/a:1")


def test_a_layer_that_stops_in_the_middle_goes_on_later(engine: Daemon, server: Registry) -> None:
    server.put_image("a", "1", [layer(a=noise(3_000_000))])
    blob = largest(server)
    for at in (1_000_000, 0):  # the second attempt brings nothing more
        server.faults.append(Fault(path=f"blobs/{blob}", gate=threading.Event(), gate_at=at))
    done = docker(engine.host, "pull", f"{server.host}/a:1")
    assert done.returncode == 1
    assert "no answer in time" in done.stderr
    assert f"{server.host}/a:1" not in str(engine.json("GET", "/images/json"))
    server.faults.clear()
    out(engine.host, "pull", f"{server.host}/a:1")
    last = server.requests("GET", f"blobs/{blob}")[-1]
    assert int(last.headers["Range"].removeprefix("bytes=").removesuffix("-")) >= 1_000_000


def test_a_push_that_stalls_fails_in_words_and_the_next_one_works(
    engine: Daemon, server: Registry, rootfs_tar: bytes
) -> None:
    engine.import_image("b:1", rootfs_tar)
    name = f"{server.host}/b:1"
    out(engine.host, "tag", "b:1", name)
    server.faults.append(Fault(path="manifests/1", method="PUT", silent=threading.Event(), times=2))
    done = docker(engine.host, "push", name)
    assert done.returncode == 1
    assert "no answer in time" in done.stderr
    assert "1: digest: sha256:" in out(engine.host, "push", name)


@pytest.mark.parametrize("status", [429, 503])
def test_a_registry_is_given_the_time_it_asks_for(engine: Daemon, server: Registry, status: int) -> None:
    server.put_image("a", "1", [layer(a=b"1")])
    server.faults.append(Fault(path="manifests/1", status=status, headers={"Retry-After": "1"}))
    out(engine.host, "pull", f"{server.host}/a:1")
    first, second = server.requests("GET", "manifests/1")
    assert second.at - first.at >= 1


def test_who_asks_for_an_hour_is_not_waited_for(engine: Daemon, server: Registry) -> None:
    server.put_image("a", "1", [layer(a=b"1")])
    server.faults.append(Fault(path="manifests/1", status=429, headers={"Retry-After": "3600"}))
    done = docker(engine.host, "pull", f"{server.host}/a:1")
    assert done.returncode == 1
    assert "toomanyrequests" in done.stderr
    assert "it asks for 3600 seconds of patience" in done.stderr
    assert len(server.requests("GET", "manifests/1")) == 1


def test_attempts_end_with_the_registrys_words(engine: Daemon, server: Registry) -> None:
    server.put_image("a", "1", [layer(a=noise(100_000))])
    blob = largest(server)
    server.faults.append(Fault(path=f"blobs/{blob}", status=500, times=2))
    done = docker(engine.host, "pull", f"{server.host}/a:1")
    assert done.returncode == 1
    assert "unexpected answer 500" in done.stderr
    first, second = server.requests("GET", f"blobs/{blob}")
    assert second.at - first.at >= 0.5
    out(engine.host, "pull", f"{server.host}/a:1")


def test_a_tag_that_moves_while_it_is_read(engine: Daemon, server: Registry) -> None:
    """What was begun is finished as one image; the next pull brings the new one."""
    name = f"{server.host}/a:1"
    old = server.put_image("a", "1", [layer(old=noise(500_000))], config={"Labels": {"is": "old"}})
    gate = threading.Event()
    server.faults.append(Fault(path=f"blobs/{largest(server)}", gate=gate, gate_at=200_000))
    results: list[str] = []
    pulling = threading.Thread(target=lambda: results.append(out(engine.host, "pull", name)))
    pulling.start()
    assert server.reached.wait(20)
    new = server.put_image("a", "1", [layer(new=b"1")], config={"Labels": {"is": "new"}})
    gate.set()
    pulling.join(30)
    assert f"Digest: {old}" in results[0]
    image = engine.json("GET", f"/images/{name}/json")
    assert (image["Config"]["Labels"], image["RepoDigests"]) == ({"is": "old"}, [f"{server.host}/a@{old}"])
    assert f"Digest: {new}" in out(engine.host, "pull", name)
    assert engine.json("GET", f"/images/{name}/json")["Config"]["Labels"] == {"is": "new"}


def test_a_tag_that_moves_between_two_questions(engine: Daemon, server: Registry) -> None:
    """HEAD told of one manifest, GET brings another: what came is what is recorded."""
    old = server.put_image("a", "1", [layer(a=b"1")])
    name = f"{server.host}/a:1"
    out(engine.host, "pull", name)
    gate = threading.Event()
    new = server.put_image("a", "1", [layer(a=b"2")])
    server.faults.append(Fault(path="manifests/1", silent=gate))
    results: list[str] = []
    pulling = threading.Thread(target=lambda: results.append(out(engine.host, "pull", name)))
    pulling.start()
    assert server.reached.wait(20)
    newest = server.put_image("a", "1", [layer(a=b"3")])
    gate.set()
    pulling.join(30)
    assert f"Digest: {newest}" in results[0]
    assert len({old, new, newest}) == 3


def test_an_archive_that_swells(engine: Daemon, server: Registry) -> None:
    """200 MB of zeros in 20 kB: refused in words, and nothing is left."""
    server.put_image("bomb", "1", [layer(zeros=bytes(200_000_000))], compression="zstd")
    done = docker(engine.host, "pull", f"{server.host}/bomb:1")
    assert done.returncode == 1
    assert "expands to more than 200 times its size" in done.stderr
    assert engine.json("GET", "/images/json") == []


def test_a_layer_of_another_size_than_promised(engine: Daemon, server: Registry) -> None:
    """The descriptor lies in both directions; the bytes would be right."""
    server.put_image("a", "1", [layer(a=noise(10_000))])
    document = json.loads(server.manifests["a", "1"][1])
    blob = gzip.compress(layer(a=noise(10_000)), 1, mtime=0)
    assert document["layers"][0]["digest"] == digest_of(blob)
    for tag, size in (("short", len(blob) - 1), ("long", len(blob) + 1)):
        wrong = {**document, "layers": [{**document["layers"][0], "size": size}]}
        server.put_manifest("a", tag, wrong)
        done = docker(engine.host, "pull", f"{server.host}/a:{tag}")
        assert done.returncode == 1
        assert f"has {len(blob)} bytes instead of {size}" in done.stderr
    out(engine.host, "pull", f"{server.host}/a:1")


def test_an_upload_elsewhere_gets_no_credentials(engine: Daemon, rootfs_tar: bytes) -> None:
    """The blobs go where the registry says, the password stays with it, whatever is asked for there."""
    with registry(user="u", password="p", auth="basic") as server, registry() as storage:
        engine.import_image("b:1", rootfs_tar)
        out(engine.host, "tag", "b:1", f"{server.host}/b:1")
        storage.uploads["u0"] = bytearray()
        where = {"Location": f"http://{storage.host}/v2/b/blobs/uploads/u0?signature=1"}
        server.faults.append(Fault(path="blobs/uploads", method="POST", status=202, headers=where))
        collects = {"WWW-Authenticate": 'Basic realm="storage"'}
        for method in ("PATCH", "PUT"):
            storage.faults.append(Fault(path="uploads/u0", method=method, status=401, headers=collects, times=2))
        auth = base64.urlsafe_b64encode(json.dumps({"username": "u", "password": "p"}).encode()).decode()
        status, body = engine.request("POST", f"/images/{server.host}/b/push?tag=1", headers={"X-Registry-Auth": auth})
        assert (status, b'"error"' in body) == (200, True), body
        asked = [seen for seen in storage.log if seen.method in ("PATCH", "PUT")]
        assert asked
        storage.faults.clear()
        target = f"/images/{server.host}/b/push?tag=1"
        _, body = engine.request("POST", target, headers={"X-Registry-Auth": auth})
        assert b"1: digest: sha256:" in body, body
        assert not [seen for seen in storage.log if "Authorization" in seen.headers]
