"""Images of several platforms on a real engine: engine/platforms, images/platforms."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
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


def tare(engine: Daemon, *words: str, expect: int = 0) -> str:
    settings = {**os.environ, "PYTHONPATH": str(SOURCE), "DOCKER_HOST": engine.host}
    done = subprocess.run(
        [sys.executable, "-m", "tare.cli", *words],
        capture_output=True, text=True, timeout=60, env=settings, check=False,
    )  # fmt: skip
    assert done.returncode == expect, done.stderr
    return done.stdout + done.stderr


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


def test_what_goes_in_the_place_of_an_index_is_said(own: Daemon, server: Registry) -> None:
    """By the engine, and by both command lines; not where the platform was asked for."""
    index = index_at(server)
    pull(own, server)
    with registry() as other:
        name = f"{other.host}/copy:1"
        out(own.host, "tag", f"{server.host}/p:1", name)
        status, body = own.request("POST", f"/images/{other.host}/copy/push?tag=1", headers={"X-Registry-Auth": "e30="})
        assert status == 200
        aux = [json.loads(line)["aux"] for line in body.splitlines() if b'"aux"' in line]
        manifest = aux[0]["Digest"]
        media_type, raw = other.manifests["copy", "1"]
        assert aux[1] == {
            "manifestPushedInsteadOfIndex": True,
            "originalIndex": {
                "mediaType": server.manifests["p", "1"][0], "digest": index, "size": len(server.manifests["p", "1"][1]),
            },
            "selectedManifest": {"mediaType": media_type, "digest": manifest, "size": len(raw)},
        }  # fmt: skip
        assert "only the available single-platform image was pushed" in out(own.host, "push", name)
        said = tare(own, "push", name)
        assert "Not all of the index is here: one of its images was pushed in its place" in said
        assert f"{index} -> {manifest}" in said
        assert "Not all" not in tare(own, "push", "--platform", "linux/amd64", name)


def test_the_tree(own: Daemon, server: Registry) -> None:
    index_at(server)
    pull(own, server)
    own.import_image("plain:1", layer(b"plain"))
    lines = [line.split() for line in tare(own, "images", "--tree").splitlines()]
    assert lines[0] == ["IMAGE", "ID", "DISK", "USAGE", "CONTENT", "SIZE", "IN", "USE"]
    rows = {words[0]: words for words in lines[1:] if words}
    assert rows[f"{server.host}/p:1"][1] == out(own.host, "images", "-q", f"{server.host}/p")
    branches = [words for words in lines if words and words[0] in ("├─", "└─")]
    assert [(words[1], words[3]) for words in branches if words[1] == "linux/arm64/v8"] == [("linux/arm64/v8", "-")]
    assert [words[1] for words in branches].count("linux/amd64") == 2
    assert tare(own, "images", "--tree", "-q", expect=1) == "the --tree and --quiet options conflict\n"


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
