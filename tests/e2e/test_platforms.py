"""Images of several platforms on a real engine: engine/platforms, images/platforms."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tare.testing.daemon import Daemon
from tare.testing.registry import Registry, registry
from tare.testing.stockclient import docker, out

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SOURCE = Path(__file__).resolve().parents[2] / "src"
AMD, ARM = {"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64", "variant": "v8"}


@pytest.fixture
def server() -> Iterator[Registry]:
    with registry() as made:
        yield made


@pytest.fixture
def own(scratch: Path) -> Iterator[Daemon]:
    made = Daemon(scratch / "platforms", bridge=f"tm{os.getpid()}", source=SOURCE)
    made.start()
    try:
        yield made
    finally:
        made.destroy()


def layer(text: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        info = tarfile.TarInfo("f")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    return made.getvalue()


def index_at(server: Registry) -> str:
    """An index for two platforms, as p:1. Returns its digest."""
    ours = server.put_image("p", "", [layer(b"shared"), layer(b"amd64")])
    other = server.put_image("p", "", [layer(b"shared"), layer(b"arm64")], architecture="arm64")
    return server.put_index("p", "1", [(other, ARM), (ours, AMD)])


def pull(engine: Daemon, server: Registry, query: str = "") -> list[Any]:
    status, body = engine.request("POST", f"/images/create?fromImage={server.host}/p&tag=1{query}")
    assert status == 200, body
    messages = [json.loads(line) for line in body.splitlines()]
    assert "error" not in messages[-1], messages[-1]
    return messages


def platform(wanted: dict[str, str]) -> str:
    return quote(json.dumps(wanted))


def test_every_platform_is_kept_and_found(own: Daemon, server: Registry) -> None:
    index = index_at(server)
    name = f"{server.host}/p:1"
    pull(own, server, "&all-platforms=1")
    shown = own.json("GET", f"/images/{name}/json?manifests=1")
    assert shown["Architecture"] == "amd64"
    assert shown["RepoDigests"] == [f"{server.host}/p@{index}"]
    assert [(one["Available"], one["ImageData"]["Platform"]["architecture"]) for one in shown["Manifests"]] == [
        (True, "arm64"),
        (True, "amd64"),
    ]
    assert own.json("GET", f"/images/{name}/json?platform={platform(ARM)}")["Architecture"] == "arm64"
    assert out(own.host, "image", "inspect", "--platform", "linux/arm64", "-f", "{{.Architecture}}", name) == "arm64"
    own.json("GET", f"/images/{name}/json?platform={platform({'os': 'linux', 'architecture': 's390x'})}", expect=404)
    listed = own.json("GET", "/images/json?manifests=1")
    assert {len(image["Manifests"]) for image in listed} == {2}
    own.kill()
    own.start()
    assert own.json("GET", f"/images/{name}/json?platform={platform(ARM)}")["Architecture"] == "arm64"
    done = docker(own.host, "rmi", name)
    assert done.returncode == 0, done.stderr
    assert own.json("GET", "/images/json?all=1") == []
    assert os.listdir(own.data_root / "blobs" / "sha256") == []


def test_an_index_goes_out_as_it_came(own: Daemon, server: Registry) -> None:
    index = index_at(server)
    pull(own, server, "&all-platforms=1")
    with registry() as other:
        name = f"{other.host}/copy:1"
        out(own.host, "tag", f"{server.host}/p:1", name)
        out(own.host, "push", name)
        _, raw = other.manifests["copy", index]
        assert raw == server.manifests["p", index][1]
        fetched = {digest for digest in server.blobs if digest in other.blobs}
        assert fetched == set(server.blobs)
        out(own.host, "tag", f"{server.host}/p:1", f"{other.host}/one:1")
        out(own.host, "push", "--platform", "linux/arm64", f"{other.host}/one:1")
        pulled = json.loads(other.manifests["one", "1"][1])
        assert "manifests" not in pulled


def test_saving_and_removing_by_platform(own: Daemon, server: Registry) -> None:
    index = index_at(server)
    pull(own, server, "&all-platforms=1")
    name = f"{server.host}/p:1"

    def saved(query: str) -> tuple[dict[str, Any], set[str]]:
        status, body = own.request("GET", f"/images/{name}/get{query}")
        assert status == 200, body
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            member = tar.extractfile("index.json")
            assert member is not None
            return json.load(member), set(tar.getnames())

    document, files = saved("")
    assert [entry["digest"] for entry in document["manifests"]] == [index]
    assert {f"blobs/sha256/{digest.removeprefix('sha256:')}" for digest in server.blobs} <= files
    assert saved("") == (document, files)
    _, archive = own.request("GET", f"/images/{name}/get")
    own.json("DELETE", f"/images/{name}")
    assert own.json("GET", "/images/json?all=1") == []
    status, told = own.request("POST", "/images/load", body=archive)
    assert (status, b"error" in told) == (200, False), told
    assert own.json("GET", f"/images/{name}/json?platform={platform(ARM)}")["Architecture"] == "arm64"
    assert own.request("GET", f"/images/{name}/get")[1] == archive
    own.json("DELETE", f"/images/{name}")
    own.request("POST", f"/images/load?platform={platform(ARM)}", body=archive)
    assert own.json("GET", f"/images/{name}/json")["Architecture"] == "arm64"
    own.json("DELETE", f"/images/{name}")
    own.request("POST", "/images/load", body=archive)
    document, files = saved(f"?platform={platform(ARM)}")
    assert document["manifests"][0]["platform"]["architecture"] == "arm64"
    assert len([name for name in files if name.startswith("blobs/sha256/") and name != "blobs/sha256/"]) == 4
    own.json("DELETE", f"/images/{name}?platforms={platform(ARM)}")
    assert [image["RepoTags"] for image in own.json("GET", "/images/json?all=1")] == [[name]]
    left = own.json("GET", f"/images/{name}/json?manifests=1")["Manifests"]
    assert [one["Available"] for one in left] == [False, True]
    own.json("DELETE", f"/images/{name}?platforms={platform(ARM)}", expect=404)
