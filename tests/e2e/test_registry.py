"""Pull and push end to end: a real engine, a registry of our own that misbehaves on command, and Debian's."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tare.testing.daemon import Daemon
from tare.testing.registry import OCI_INDEX, Fault, Registry, digest_of, registry
from tare.testing.stockclient import docker, out

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def server() -> Iterator[Registry]:
    with registry() as made:
        yield made


@pytest.fixture
def engine(daemon: Daemon) -> Iterator[Daemon]:
    """The session's engine; images pulled by the test go at its end."""
    before = {entry["Id"] for entry in daemon.json("GET", "/images/json")}
    yield daemon
    daemon.clear()
    for entry in daemon.json("GET", "/images/json"):
        if entry["Id"] not in before:
            daemon.request("DELETE", f"/images/{entry['Id']}?force=1")
    for entry in daemon.json("GET", "/images/json"):
        for name in [*entry["RepoTags"], *entry["RepoDigests"]]:
            if name != "busybox:latest":
                daemon.request("DELETE", f"/images/{name}?force=1")
    left = leftovers(daemon)
    if left:
        print(
            subprocess.run(["find", daemon.data_root / "ingest"], capture_output=True, text=True).stdout[:3000],
            daemon.log.read_text()[-3000:],
        )
    assert left == []


def leftovers(engine: Daemon) -> list[str]:
    return [name for place in ("ingest", "downloads", "uploads") for name in os.listdir(engine.data_root / place)]


def layer(**files: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def with_file(tar: bytes, name: str) -> bytes:
    """The same tar with one more file, so that nobody has the layer yet."""
    made = io.BytesIO(tar)
    with tarfile.open(fileobj=made, mode="a") as opened:
        opened.addfile(tarfile.TarInfo(name))
    return made.getvalue()


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def pull(engine: Daemon, name: str, *, tag: str = "", query: str = "", auth: object = None) -> tuple[int, list[Any]]:
    headers = {} if auth is None else {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(auth).encode()).decode()}
    status, body = engine.request("POST", f"/images/create?fromImage={name}&tag={tag}{query}", headers=headers)
    return status, [json.loads(line) for line in body.splitlines()]


def push(engine: Daemon, name: str, *, tag: str = "", auth: object = None) -> list[Any]:
    packed = base64.urlsafe_b64encode(json.dumps(auth or {}).encode()).decode()
    status, body = engine.request("POST", f"/images/{name}/push?tag={tag}", headers={"X-Registry-Auth": packed})
    assert status == 200, body
    return [json.loads(line) for line in body.splitlines()]


def failure(messages: list[Any]) -> str:
    assert "errorDetail" in messages[-1], messages
    return str(messages[-1]["errorDetail"]["message"])


def statuses(messages: list[Any]) -> list[str]:
    assert "errorDetail" not in messages[-1], messages[-1]
    return [message["status"] for message in messages if "status" in message]


def listed(engine: Daemon) -> set[str]:
    return {tag for entry in engine.json("GET", "/images/json") for tag in entry["RepoTags"]}


# --- pulling


@pytest.mark.parametrize("compression", ["gzip", "zstd", "plain"])
def test_a_pulled_image_runs_and_keeps_its_digest(
    engine: Daemon, server: Registry, rootfs_tar: bytes, compression: str
) -> None:
    """engine/registries, api/registries: the messages, the record, the run, and the digest after a push elsewhere."""
    config = {"Cmd": ["cat", "/two"], "Env": ["PATH=/bin"]}
    tars = [with_file(rootfs_tar, compression), layer(one=b"1"), layer(two=b"second\n" + compression.encode())]
    digest = server.put_image("a/b", "1", tars, compression=compression, config=config)
    status, messages = pull(engine, f"{server.host}/a/b", tag="1")
    assert status == 200
    assert messages[0] == {"status": "Pulling from a/b", "id": "1"}
    assert messages[-2] == {"status": f"Digest: {digest}"}
    assert messages[-1] == {"status": f"Status: Downloaded newer image for {server.host}/a/b:1"}
    seen = [message["status"] for message in messages if message.get("id") not in (None, "1")]
    assert seen.count("Pulling fs layer") == seen.count("Download complete") == seen.count("Pull complete") == 3
    image = engine.json("GET", f"/images/{server.host}/a/b:1/json")
    assert image["RepoDigests"] == [f"{server.host}/a/b@{digest}"]
    assert out(engine.host, "run", "--rm", f"{server.host}/a/b:1") == f"second\n{compression}"
    _, again = pull(engine, f"{server.host}/a/b", tag="1")
    assert statuses(again)[-1] == f"Status: Image is up to date for {server.host}/a/b:1"
    out(engine.host, "tag", f"{server.host}/a/b:1", f"{server.host}/c:2")
    assert push(engine, f"{server.host}/c", tag="2")[-1]["aux"]["Digest"] == digest
    assert server.manifests["c", "2"] == server.manifests["a/b", "1"]


def test_the_stock_command_line(engine: Daemon, server: Registry, rootfs_tar: bytes) -> None:
    server.put_image("x", "latest", [rootfs_tar], config={"Cmd": ["echo", "pulled"], "Env": ["PATH=/bin"]})
    assert "Status: Downloaded newer image" in out(engine.host, "pull", f"{server.host}/x")
    out(engine.host, "rmi", f"{server.host}/x")
    done = docker(engine.host, "run", "--rm", f"{server.host}/x")
    assert done.stdout == "pulled\n"
    assert "Unable to find image" in done.stderr
    out(engine.host, "tag", f"{server.host}/x", f"{server.host}/y:2")
    assert "2: digest: sha256:" in out(engine.host, "push", f"{server.host}/y:2")
    assert docker(engine.host, "pull", f"{server.host}/none").stderr.startswith(
        f"Error response from daemon: manifest for {server.host}/none:latest not found: manifest unknown"
    )
    refused = docker(engine.host, "push", f"{server.host}/never")
    assert refused.returncode == 1
    assert f"An image does not exist locally with the tag: {server.host}/never" in refused.stderr


def test_what_is_here_and_no_longer_there(engine: Daemon, server: Registry, rootfs_tar: bytes) -> None:
    server.put_image("here/only", "1", [rootfs_tar])
    name = f"{server.host}/here/only:1"
    out(engine.host, "pull", name)
    del server.manifests["here/only", "1"]
    done = docker(engine.host, "pull", name)
    assert (done.returncode, done.stderr) == (
        1,
        f"Error response from daemon: manifest for {name} not found: manifest unknown: manifest unknown\n",
    )
    assert docker(engine.host, "image", "inspect", name).returncode == 0
    assert docker(engine.host, "rmi", name).returncode == 0


def test_layers_are_shared_with_what_is_here(engine: Daemon, server: Registry, rootfs_tar: bytes) -> None:
    base, own = layer(base=noise(1000)), layer(own=noise(1000, 2))
    server.put_image("a", "1", [base])
    server.put_image("a", "2", [base, own])
    pull(engine, f"{server.host}/a", tag="1")
    before = server.blob_bytes()
    _, messages = pull(engine, f"{server.host}/a", tag="2")
    assert "Already exists" in statuses(messages)
    config = server.blobs[json.loads(server.manifests["a", "2"][1])["config"]["digest"]]
    assert server.blob_bytes() - before == len(gzip.compress(own, 1, mtime=0)) + len(config)


def test_by_digest_and_every_tag(engine: Daemon, server: Registry) -> None:
    digests = [server.put_image("t", f"v{number}", [layer(n=b"%d" % number)]) for number in range(5)]
    name = f"{server.host}/t"
    status, messages = pull(engine, name, tag=digests[3])
    assert statuses(messages)[-1] == f"Status: Downloaded newer image for {name}@{digests[3]}"
    assert engine.json("GET", f"/images/{name}@{digests[3]}/json")["RepoTags"] == []
    count = len(server.log)
    _, messages = pull(engine, name, tag=digests[3])
    assert statuses(messages)[-1].startswith("Status: Image is up to date")
    assert len(server.log) == count  # a digest we have needs no registry
    _, messages = pull(engine, name)
    assert [message["id"] for message in messages if message["status"] == "Pulling from t"] == [
        f"v{n}" for n in range(5)
    ]
    assert {f"{name}:v{number}" for number in range(5)} <= listed(engine)
    tags = engine.json("GET", f"/tare/v1/tags/{name}")
    assert tags == {"Name": name, "Tags": [f"v{number}" for number in range(5)]}
    assert status == 200


def test_platforms(engine: Daemon, server: Registry) -> None:
    name = f"{server.host}/p"
    ours = server.put_image("p", "", [layer(a=b"amd64")])
    arm = server.put_image("p", "", [layer(a=b"arm")], architecture="arm64")
    index = server.put_index(
        "p",
        "1",
        [
            (arm, {"os": "linux", "architecture": "arm64", "variant": "v8"}),
            (ours, {"os": "linux", "architecture": "amd64"}),
        ],
    )
    _, messages = pull(engine, name, tag="1")
    assert f"Digest: {index}" in statuses(messages)
    assert engine.json("GET", f"/images/{name}:1/json")["Architecture"] == "amd64"
    _, messages = pull(engine, name, tag="1", query="&platform=linux/arm64")
    assert statuses(messages)[-1].startswith("Status: Downloaded newer image")
    assert engine.json("GET", f"/images/{name}:1/json")["Architecture"] == "arm64"
    status, messages = pull(engine, name, tag="1", query="&platform=linux/s390x")
    assert status == 404
    assert messages[0]["message"].startswith("no matching manifest for linux/s390x in the manifest list entries")
    found = engine.json("GET", f"/distribution/{name}:1/json")
    assert found["Descriptor"]["digest"] == index
    assert found["Descriptor"]["mediaType"] == OCI_INDEX
    assert {entry["architecture"] for entry in found["Platforms"]} == {"amd64", "arm64"}
    server.put_image("q", "1", [layer(a=b"x")], architecture="arm64")
    status, messages = pull(engine, f"{server.host}/q", tag="1", query="&platform=linux/amd64")
    assert status == 404
    assert "does not match the specified platform" in messages[0]["message"]


def test_foreign_layers_come_from_their_urls(engine: Daemon, server: Registry) -> None:
    tars = [layer(a=noise(5000))]
    with registry() as elsewhere:
        blob = elsewhere.put_blob("f", gzip.compress(tars[0], 1, mtime=0))
        server.put_image("f", "1", tars, urls={0: [f"http://{elsewhere.host}/v2/f/blobs/{blob}"]})
        _, messages = pull(engine, f"{server.host}/f", tag="1")
        assert statuses(messages)[-1].startswith("Status: Downloaded")
        assert [seen.method for seen in elsewhere.log] == ["GET"]
    assert server.requests("GET", "blobs/" + blob) == []


# --- when things go wrong


def test_a_cut_connection_goes_on_where_it_was(engine: Daemon, server: Registry) -> None:
    tars = [layer(a=noise(3_000_000))]
    server.put_image("a", "1", tars)
    blob = next(digest for digest, data in server.blobs.items() if len(data) > 1_000_000)
    server.faults += [Fault(path=f"blobs/{blob}", cut_at=1_500_000), Fault(path=f"blobs/{blob}", cut_at=500_000)]
    _, messages = pull(engine, f"{server.host}/a", tag="1")
    assert statuses(messages)[-1].startswith("Status: Downloaded")
    assert server.sent[f"/v2/a/blobs/{blob}"] == len(server.blobs[blob])
    assert [seen.headers.get("Range") for seen in server.requests("GET", f"blobs/{blob}")] == [
        None,
        "bytes=1500000-",
        "bytes=2000000-",
    ]


def test_a_registry_without_ranges(engine: Daemon, server: Registry) -> None:
    tars = [layer(a=noise(2_000_000))]
    server.put_image("a", "1", tars)
    blob = max(server.blobs, key=lambda digest: len(server.blobs[digest]))
    server.faults += [Fault(path=f"blobs/{blob}", cut_at=1_500_000), Fault(path=f"blobs/{blob}", ignores_range=True)]
    _, messages = pull(engine, f"{server.host}/a", tag="1")
    assert statuses(messages)[-1].startswith("Status: Downloaded")


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 500}, {"status": 429, "headers": {"Retry-After": "0"}}])
def test_what_may_pass_is_tried_again(engine: Daemon, server: Registry, fault: dict[str, Any]) -> None:
    server.put_image("a", "1", [layer(a=b"1")])
    server.faults += [Fault(path="blobs", **fault), Fault(path="manifests", method="GET", **fault)]
    _, messages = pull(engine, f"{server.host}/a", tag="1")
    assert statuses(messages)[-1].startswith("Status: Downloaded")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"flip_at": 20}, "filesystem layer verification failed for digest"),
        ({"flip_at": 500_000}, "filesystem layer verification failed for digest"),
        ({"extra": b"more"}, "bytes instead of"),
        ({"status": 404}, "404"),
        ({"status": 403}, "403"),
    ],
)
def test_a_lie_about_a_layer_is_found_and_leaves_nothing(
    engine: Daemon, server: Registry, fault: dict[str, Any], words: str
) -> None:
    server.put_image("a", "1", [layer(a=noise(900_000)), layer(b=b"fine")])
    blob = max(server.blobs, key=lambda digest: len(server.blobs[digest]))
    server.faults.append(Fault(path=f"blobs/{blob}", **fault))
    status, messages = pull(engine, f"{server.host}/a", tag="1")
    assert status == 200
    assert words in failure(messages)
    assert f"{server.host}/a:1" not in listed(engine)
    _, messages = pull(engine, f"{server.host}/a", tag="1")  # the next try works
    assert statuses(messages)[-1].startswith("Status: Downloaded")


def test_wrong_documents_are_refused(engine: Daemon, server: Registry) -> None:
    name = f"{server.host}/w"
    good = server.put_image("w", "good", [layer(a=b"1")])
    document = json.loads(server.manifests["w", good][1])
    cases: dict[str, tuple[object, str, str]] = {
        "both": ({**document, "manifests": []}, document["mediaType"], "both layers and manifests"),
        "twice": (b'{"schemaVersion":2,"schemaVersion":2}', document["mediaType"], "duplicate key"),
        "mixed": (
            {
                **document,
                "layers": [*document["layers"], {**document["layers"][0], "mediaType": "application/x.other"}],
            },
            document["mediaType"],
            "layers length mismatch",
        ),
        "fewer": ({**document, "layers": []}, document["mediaType"], "layers length mismatch"),
        "old": ({"schemaVersion": 1}, "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        "large": (b" " * (5 * 1024 * 1024), document["mediaType"], "larger than"),
    }
    for tag, (raw, media_type, words) in cases.items():
        server.put_manifest("w", tag, raw, media_type)
        status, messages = pull(engine, name, tag=tag)
        assert status >= 400, tag
        assert words in messages[0]["message"], tag
    lying = Fault(path=f"manifests/{good}", flip_at=3)
    server.faults.append(lying)
    status, messages = pull(engine, name, tag=good)
    assert status == 500
    assert "does not match its digest" in messages[0]["message"]
    wrong = {**document, "config": {**document["config"], "size": document["config"]["size"] + 1}}
    server.put_manifest("w", "size", wrong)
    status, messages = pull(engine, name, tag="size")
    assert "bytes instead of" in messages[0]["message"]


def test_a_layer_that_is_not_what_its_config_says(engine: Daemon, server: Registry) -> None:
    server.put_image("a", "1", [layer(a=b"1")])
    document = json.loads(server.manifests["a", "1"][1])
    other = gzip.compress(layer(a=b"another"), 1, mtime=0)
    document["layers"][0] |= {"digest": server.put_blob("a", other), "size": len(other)}
    server.put_manifest("a", "1", document)
    _, messages = pull(engine, f"{server.host}/a", tag="1")
    assert "unpacks to sha256:" in failure(messages)
    garbage = noise(5000)
    document["layers"][0] |= {"digest": server.put_blob("a", garbage), "size": len(garbage)}
    server.put_manifest("a", "2", document)
    _, messages = pull(engine, f"{server.host}/a", tag="2")
    assert f"layer {digest_of(garbage)}: " in failure(messages)


def test_a_redirect_elsewhere_gets_no_credentials(engine: Daemon) -> None:
    with registry(user="u", password="p", auth="basic") as server, registry() as storage:
        tars = [layer(a=noise(5000))]
        server.put_image("a", "1", tars)
        blob = digest_of(gzip.compress(tars[0], 1, mtime=0))
        storage.put_blob("x", server.blobs[blob])
        where = {"Location": f"http://{storage.host}/v2/x/blobs/{blob}?signature=1"}
        server.faults.append(Fault(path=f"blobs/{blob}", status=307, headers=where))
        auth = {"username": "u", "password": "p"}
        _, messages = pull(engine, f"{server.host}/a", tag="1", auth=auth)
        assert statuses(messages)[-1].startswith("Status: Downloaded")
        assert "Authorization" in server.requests("GET", f"blobs/{blob}")[0].headers
        assert "Authorization" not in storage.log[0].headers
        server.put_image("b", "1", [layer(b=b"1")])
        loop = {"Location": f"http://{server.host}/v2/b/manifests/1"}
        server.faults.append(Fault(path="b/manifests", times=20, status=302, headers=loop))
        status, messages = pull(engine, f"{server.host}/b", tag="1", auth=auth)
        assert status == 503
        assert "more than 5 redirects" in messages[0]["message"]


@pytest.mark.parametrize("auth", ["token", "basic"])
def test_credentials(engine: Daemon, auth: str) -> None:
    with registry(user="me", password="secret", auth=auth, token_uses=3) as server:
        server.put_image("a", "1", [layer(a=b"1"), layer(b=b"2"), layer(c=b"3"), layer(d=b"4")])
        name = f"{server.host}/a"
        for wrong in (None, {"username": "me", "password": "wrong"}, "nonsense"):
            status, messages = pull(engine, name, tag="1", auth=wrong)
            assert status == 404
            assert messages[0]["message"].startswith(
                f"pull access denied for {name}, repository does not exist or may require 'docker login': "
            )
            assert "secret" not in json.dumps(messages)
        right = {"username": "me", "password": "secret", "serveraddress": server.host}
        _, messages = pull(engine, name, tag="1", auth=right)  # with tokens that end in the middle
        assert statuses(messages)[-1].startswith("Status: Downloaded")
        out(engine.host, "tag", f"{name}:1", f"{server.host}/b:1")
        assert "aux" in push(engine, f"{server.host}/b", tag="1", auth=right)[-1]
        answer = engine.json("POST", "/auth", right)
        assert answer["Status"] == "Login Succeeded"
        assert answer["IdentityToken"] == ("refresh-me" if auth == "token" else "")
        body = json.dumps({**right, "password": "wrong"}).encode()
        status, _ = engine.request("POST", "/auth", body=body, headers={"Content-Type": "application/json"})
        assert status == 401
        if auth == "token":
            identity = {"username": "me", "identitytoken": "refresh-me", "serveraddress": server.host}
            assert engine.json("GET", f"/tare/v1/tags/{name}", expect=401)["message"]
            _, messages = pull(engine, name, tag="1", auth=identity)
            assert statuses(messages)[-1].startswith("Status: Image is up to date")
        assert "secret" not in engine.log.read_text()


def test_a_token_server_elsewhere_gets_no_password(engine: Daemon) -> None:
    with registry(user="u", password="p") as server:
        server.put_image("a", "1", [layer(a=b"1")])
        server.realm = "http://collector.example/token"
        status, messages = pull(engine, f"{server.host}/a", tag="1", auth={"username": "u", "password": "p"})
        assert status == 404
        assert "wants credentials to be sent to http://collector.example/token: refused" in messages[0]["message"]


# --- together, and over a kill


def test_twenty_clients_cause_one_download(engine: Daemon, server: Registry) -> None:
    server.put_image("a", "1", [layer(a=noise(2_000_000)), layer(b=noise(500_000, 2))])
    gate = threading.Event()
    blob = max(server.blobs, key=lambda digest: len(server.blobs[digest]))
    server.faults.append(Fault(path=f"blobs/{blob}", gate=gate, gate_at=1_000_000))
    with ThreadPoolExecutor(20) as pool:
        futures = [pool.submit(pull, engine, f"{server.host}/a", tag="1") for _ in range(20)]
        assert server.reached.wait(20)
        gate.set()
        results = [future.result() for future in futures]
    assert {messages[-1]["status"] for _, messages in results} <= {
        f"Status: Downloaded newer image for {server.host}/a:1",
        f"Status: Image is up to date for {server.host}/a:1",
    }
    layers = [digest for digest, data in server.blobs.items() if len(data) > 100_000]
    assert [server.sent[f"/v2/a/blobs/{digest}"] for digest in layers] == [len(server.blobs[d]) for d in layers]


def test_who_leaves_does_not_stop_the_others_and_the_last_one_does(engine: Daemon, server: Registry) -> None:
    server.put_image("a", "1", [layer(a=noise(2_000_000))])
    blob = max(server.blobs, key=lambda digest: len(server.blobs[digest]))
    gate = threading.Event()
    server.faults.append(Fault(path=f"blobs/{blob}", gate=gate, gate_at=1_000_000))
    command = ["docker", "-H", engine.host, "pull", f"{server.host}/a:1"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert server.reached.wait(20)
    second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert second.stdout is not None
    while "Pulling fs layer" not in (line := second.stdout.readline()) and "Downloading" not in line:
        assert line
    first.terminate()
    first.communicate(timeout=20)
    gate.set()
    text, _ = second.communicate(timeout=20)
    assert second.returncode == 0, text
    assert server.sent[f"/v2/a/blobs/{blob}"] == len(server.blobs[blob])


def test_a_killed_engine_goes_on_where_it_was(scratch: Path, server: Registry) -> None:
    """kill -9 in the middle: bytes that came do not come again, on the wire."""
    engine = Daemon(scratch / "k", bridge=f"tk{os.getpid()}", source=SOURCE)
    engine.start()
    try:
        server.put_image("a", "1", [layer(a=noise(4_000_000)), layer(b=noise(300_000, 2))])
        blob = max(server.blobs, key=lambda digest: len(server.blobs[digest]))
        gate = threading.Event()
        server.faults.append(Fault(path=f"blobs/{blob}", gate=gate, gate_at=3_000_000))
        client = subprocess.Popen(
            ["docker", "-H", engine.host, "pull", f"{server.host}/a:1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert server.reached.wait(20)
        file = engine.data_root / "downloads" / blob.removeprefix("sha256:")
        while not file.exists() or file.stat().st_size < 2_000_000:
            assert client.poll() is None
        engine.kill()
        client.communicate(timeout=20)
        kept = file.stat().st_size
        gate.set()
        engine.start()
        _, messages = pull(engine, f"{server.host}/a", tag="1")
        assert statuses(messages)[-1].startswith("Status: Downloaded")
        last = server.requests("GET", f"blobs/{blob}")[-1]
        assert last.headers["Range"] == f"bytes={kept}-"
        assert leftovers(engine) == []
        # a part that was damaged meanwhile is noticed and fetched anew
        engine.request("DELETE", f"/images/{server.host}/a:1?force=1")
        file.write_bytes(b"x" * 1_000_000)
        _, messages = pull(engine, f"{server.host}/a", tag="1")
        assert statuses(messages)[-1].startswith("Status: Downloaded")
        assert leftovers(engine) == []
    finally:
        engine.destroy()


# --- pushing


def test_push_says_what_it_does(engine: Daemon, server: Registry) -> None:
    name = f"{server.host}/a"
    out(engine.host, "tag", "busybox", f"{name}:1")
    messages = push(engine, name, tag="1")
    assert messages[0] == {"status": f"The push refers to repository [{name}]"}
    aux = messages[-1]["aux"]
    assert messages[-2]["status"] == f"1: digest: {aux['Digest']} size: {aux['Size']}"
    assert messages[-1]["progressDetail"] == {}
    assert statuses(messages)[1:-1][0] == "Preparing"
    assert "Pushed" in statuses(messages)
    assert digest_of(server.manifests["a", "1"][1]) == aux["Digest"]
    assert "Layer already exists" in statuses(push(engine, name, tag="1"))
    out(engine.host, "tag", "busybox", f"{server.host}/b:1")
    assert "Mounted from a" in statuses(push(engine, f"{server.host}/b", tag="1"))
    assert f"{name}@{aux['Digest']}" in engine.json("GET", "/images/busybox/json")["RepoDigests"]
    status, body = engine.request("POST", f'/images/{name}/push?tag=1&platform={{"os":"linux","architecture":"s390x"}}')
    assert (status, b"does not match the specified platform" in body) == (404, True)
    out(engine.host, "tag", "busybox", f"{name}:2")
    assert [m["aux"]["Tag"] for m in push(engine, name) if "aux" in m] == ["1", "2"]


def test_an_interrupted_push_goes_on_where_it_was(engine: Daemon, server: Registry) -> None:
    image = engine.import_image("big:1", layer(a=noise(5_000_000)))
    out(engine.host, "tag", image, f"{server.host}/big:1")
    server.faults += [Fault(path="uploads/", method="PATCH", cut_at=2_000_000)]
    size = engine.json("GET", f"/images/{server.host}/big:1/json")["Size"]
    # The test's registry reads what comes up to the cut and keeps it, as real ones do.
    messages = push(engine, f"{server.host}/big", tag="1")
    assert "Pushed" in statuses(messages)
    assert size == 5_000_000
    document = json.loads(server.manifests["big", "1"][1])
    assert all(entry["digest"] in server.blobs for entry in [document["config"], *document["layers"]])
    ranges = [seen.headers.get("Content-Range") for seen in server.requests("PATCH", "uploads/")]
    assert ranges[0] is None
    assert ranges[1] is not None


def test_refused_pushes_are_told_in_the_stream(engine: Daemon) -> None:
    with registry(user="u", password="p") as server:
        out(engine.host, "tag", "busybox", f"{server.host}/a:1")
        assert "unauthorized" in failure(push(engine, f"{server.host}/a", tag="1"))
        assert "tag does not exist" in failure(push(engine, f"{server.host}/a", tag="none"))
        server.faults.append(Fault(path="uploads/", method="POST", status=403, times=9))
        assert "denied" in failure(push(engine, f"{server.host}/a", tag="1", auth={"username": "u", "password": "p"}))


# --- search


def test_search(engine: Daemon, server: Registry) -> None:
    server.results = [{"name": "one", "description": "first", "star_count": 7, "is_official": True}, {"name": "two"}]
    found = engine.json("GET", f"/images/search?term={server.host}/thing&limit=5")
    assert [entry["name"] for entry in found] == ["one", "two"]
    assert out(engine.host, "search", "--format", "{{.Name}} {{.StarCount}}", f"{server.host}/thing") == "one 7\ntwo 0"
    assert out(engine.host, "search", "--filter", "stars=3", "--format", "{{.Name}}", f"{server.host}/x") == "one"
    server.put_image("some/thing", "1", [layer(a=b"1")])
    server.faults.append(Fault(path="/v1/search", status=404, times=9))
    found = engine.json("GET", f"/images/search?term={server.host}/thing")
    assert [entry["name"] for entry in found] == [f"{server.host}/some/thing"]
    assert engine.json("GET", f"/images/search?term={server.host}/x&limit=101", expect=400)["message"]


# --- mirrors, and registries of other makers


def test_mirrors_are_asked_first(scratch: Path, server: Registry) -> None:
    with registry() as mirror:
        arguments = [
            "--registry-mirror",
            f"http://{mirror.host}",
            "--registry-mirror",
            f"{server.host}=http://{mirror.host}",
        ]
        engine = Daemon(scratch / "m", bridge=f"tm{os.getpid()}", source=SOURCE, arguments=arguments)
        engine.start()
        try:
            mirror.put_image("library/hello", "latest", [layer(a=b"from the mirror")])
            _, messages = pull(engine, "hello", tag="latest")
            assert statuses(messages)[-1] == "Status: Downloaded newer image for hello:latest"
            info = engine.json("GET", "/info")["RegistryConfig"]
            assert info["Mirrors"] == [f"http://{mirror.host}"]
            server.put_image("only/here", "1", [layer(a=b"1")])
            _, messages = pull(engine, f"{server.host}/only/here", tag="1")
            assert statuses(messages)[-1].startswith("Status: Downloaded")
            assert mirror.requests("GET", "only/here/manifests")
        finally:
            engine.destroy()


@pytest.fixture
def debian(tmp_path: Path) -> Iterator[str]:
    """Debian's docker-registry on a port of 127.0.0.1."""
    program = shutil.which("docker-registry")
    assert program is not None, "docker-registry is not installed: run scripts/setup --test"
    log = tmp_path / "log"
    settings = {
        "version": 0.1,
        "log": {"level": "info", "formatter": "json"},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "data")}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0"},
    }
    (tmp_path / "config.yml").write_text(json.dumps(settings))
    process = subprocess.Popen(
        [program, "serve", str(tmp_path / "config.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    address = ""
    for line in process.stderr:
        if "listening on" in line:
            address = json.loads(line)["msg"].rpartition(" ")[2]
            break
    assert address, log
    drain = threading.Thread(target=process.stderr.read, daemon=True)
    drain.start()
    try:
        yield address
    finally:
        process.terminate()
        process.wait(20)
        drain.join(20)
        process.stderr.close()


def skopeo(*argv: str) -> str:
    done = subprocess.run(
        ["skopeo", "--insecure-policy", *argv], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_debians_registry_and_skopeo(engine: Daemon, debian: str, tmp_path: Path, rootfs_tar: bytes) -> None:
    """skopeo reads what we push; we read what skopeo pushes, in each format."""
    name = f"{debian}/a/b"
    out(engine.host, "tag", "busybox", f"{name}:1")
    digest = push(engine, name, tag="1")[-1]["aux"]["Digest"]
    seen = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{name}:1"))
    assert seen["Digest"] == digest
    assert seen["Os"] == "linux"
    own = engine.json("GET", "/images/busybox/json")["Id"]
    for form in ("oci", "v2s2"):
        skopeo(
            "copy", "--format", form, "--src-tls-verify=false", "--dest-tls-verify=false",
            f"docker://{name}:1", f"docker://{debian}/{form}:1",
        )  # fmt: skip
        _, messages = pull(engine, f"{debian}/{form}", tag="1")
        assert statuses(messages)[-1].startswith("Status: Downloaded")
    assert engine.json("GET", f"/images/{debian}/v2s2:1/json")["Id"] == own
    skopeo(
        "copy", "--format", "oci", "--dest-compress-format", "zstd", "--dest-compress", "--src-tls-verify=false",
        "--dest-tls-verify=false", f"docker://{name}:1", f"docker://{debian}/zstd:1",
    )  # fmt: skip
    engine.request("DELETE", "/images/" + f"{debian}/zstd:1")
    _, messages = pull(engine, f"{debian}/zstd", tag="1")
    assert statuses(messages)[-1].startswith("Status: Downloaded")
    assert out(engine.host, "run", "--rm", f"{debian}/zstd:1", "echo", "runs") == "runs"
    assert engine.json("GET", f"/tare/v1/tags/{name}")["Tags"] == ["1"]
    assert "schemaVersion" in out(engine.host, "manifest", "inspect", "--insecure", f"{name}:1")
    found = engine.json("GET", f"/images/search?term={debian}/a")
    assert [entry["name"] for entry in found] == [name]


# --- both command lines


@pytest.mark.parametrize("program", ["tare", "docker"])
def test_login_pull_push_logout(engine: Daemon, tmp_path: Path, program: str) -> None:
    """What a person types, with a registry that wants to know who is there."""
    argv = [sys.executable, "-m", "tare.cli"] if program == "tare" else ["docker"]
    settings = {**os.environ, "PYTHONPATH": str(SOURCE), "DOCKER_CONFIG": str(tmp_path), "DOCKER_HOST": engine.host}

    def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*argv, *words], input=stdin, capture_output=True, text=True, timeout=60, env=settings, check=False
        )

    with registry(user="me", password="secret") as server:
        name = f"{server.host}/mine"
        server.put_image("mine", "1", [layer(program=program.encode())])
        assert "pull access denied" in run("pull", f"{name}:1").stderr
        assert run("login", "-u", "me", "--password-stdin", server.host, stdin="wrong").returncode == 1
        assert "Login Succeeded" in run("login", "-u", "me", "--password-stdin", server.host, stdin="secret").stdout
        assert "secret" not in (tmp_path / "config.json").read_text()  # the registry gave a token to keep instead
        pulled = run("pull", f"{name}:1")
        assert f"Status: Downloaded newer image for {name}:1" in pulled.stdout, pulled.stderr
        assert run("tag", f"{name}:1", f"{name}:2").returncode == 0
        pushed = run("push", f"{name}:2")
        assert f"2: digest: {digest_of(server.manifests['mine', '1'][1])}" in pushed.stdout, pushed.stderr
        if program == "tare":
            assert run("image", "tags", name).stdout == "1\n2\n"
        assert run("logout", server.host).returncode == 0
        assert run("push", f"{name}:2").returncode == 1
