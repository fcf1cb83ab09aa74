"""Caches of builds in directories: what is said, what is sent, what is written."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tare.cli import buildcache
from tare.cli import exit as exits
from tare.cli.buildcache import _receive, _tidy, sources, targets


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def cache(place: Path, *, layers: tuple[bytes, ...] = (b"layer",), mounts: tuple[bytes, ...] = ()) -> dict[str, bytes]:
    """Write a cache; its files by name."""
    document = json.dumps(
        {
            "version": 1,
            "steps": [],
            "mounts": [{"name": "f" * 64, "id": "/k", "layer": digest(data)} for data in mounts],
        }
    ).encode()
    entries = [{"mediaType": "x", "digest": digest(data), "size": len(data)} for data in (*layers, *mounts)]
    manifest = json.dumps({"config": {"digest": digest(document)}, "layers": entries}).encode()
    index = json.dumps({"manifests": [{"artifactType": buildcache._DOCUMENT, "digest": digest(manifest)}]}).encode()
    files = {f"blobs/sha256/{digest(data)[7:]}": data for data in (*layers, *mounts, document, manifest)}
    files |= {"oci-layout": b"{}", "index.json": index}
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return files


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_where_from() -> None:
    said, sent = sources(["a,b", "c:1", "type=registry,ref=r/c,", "type=local,src=/x,"][:2])
    assert (said, sent) == (["a", "b", "c:1"], {})
    said, sent = sources(["type=local,src=/x", "type=registry,ref=r/c"])
    ((place, directory),) = sent.items()
    assert said == [f"type=tar,src={place}", "type=registry,ref=r/c"]
    assert directory == "/x"
    assert place.startswith(".tare-cache-")
    for wrong in ("type=local", "type=local,dest=x", "type=local,x"):
        with pytest.raises(ValueError):
            sources([wrong])


def test_where_to() -> None:
    local, remote = targets(["type=local,dest=/x,mode=max", "type=registry,ref=r/c,mounts=false"])
    assert (local.text, local.dest, local.mode, local.mounts) == ("type=local", "/x", "max", True)
    assert (remote.text, remote.dest, remote.mounts) == ("type=registry,ref=r/c,mounts=false", "", False)
    for wrong in (
        "x",
        "type=local",
        "type=registry",
        "type=gha",
        "type=local,dest=x,mode=all",
        "type=local,dest=x,mounts=2",
    ):
        with pytest.raises(ValueError):
            targets([wrong])


class Context:
    """Asks nobody; the engine lacks what `lacking` says."""

    def __init__(self, lacking: list[str], mounts: list[str]) -> None:
        self.client = self
        self.answer = {"Missing": lacking, "CacheMounts": mounts}
        self.asked: Any = None
        self.errors: list[str] = []

    def post(self, path: str, *, body: Any) -> Any:
        self.asked = (path, body)
        return self.answer

    def error(self, text: str) -> None:
        self.errors.append(text)


def test_only_what_the_engine_lacks_is_sent(tmp_path: Path) -> None:
    files = cache(tmp_path, layers=(b"one", b"two"), mounts=(b"tar",))
    context: Any = Context([digest(b"two")], [])
    found = buildcache.read(context, str(tmp_path), ".p")
    assert found is not None
    path, body = context.asked
    assert path == "/tare/v1/missing"
    assert body == {"Digests": [digest(b"one"), digest(b"two")], "CacheMounts": ["f" * 64]}
    assert found.prefix == ".p/"
    names = {entry.name for entry in found.entries}
    assert names == files.keys() - {"oci-layout", *(f"blobs/sha256/{digest(d)[7:]}" for d in (b"one", b"tar"))}
    context = Context([], ["f" * 64])
    found = buildcache.read(context, str(tmp_path), ".p")
    assert found is not None
    assert f"blobs/sha256/{digest(b'tar')[7:]}" in {entry.name for entry in found.entries}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"manifests":[]}', '{"manifests":[{"artifactType":"x"}]}'])
def test_what_is_no_cache_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    context: Any = Context([], [])
    assert buildcache.read(context, str(tmp_path), ".p") is None
    assert context.errors[0].startswith(f"WARNING: the cache in {tmp_path} is not used: ")


def test_names_of_blobs_lead_nowhere(tmp_path: Path) -> None:
    cache(tmp_path)
    entry = {"artifactType": buildcache._DOCUMENT, "digest": "sha256:../../../../etc/passwd"}
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [entry]}))
    context: Any = Context([], [])
    assert buildcache.read(context, str(tmp_path), ".p") is None
    assert "a digest that is none" in context.errors[0]


def test_what_is_received_replaces_what_was_there(tmp_path: Path) -> None:
    old = cache(tmp_path, layers=(b"old", b"both"))
    (tmp_path / "new").mkdir()
    new = cache(tmp_path / "new", layers=(b"both", b"new"))
    _receive(iter([tar_of(new)]), str(tmp_path))
    _tidy(str(tmp_path))
    left = {str(path.relative_to(tmp_path)) for path in (tmp_path / "blobs/sha256").iterdir()}
    assert left == {name for name in new if name.startswith("blobs/")}
    assert (tmp_path / "index.json").read_bytes() == new["index.json"] != old["index.json"]


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("../x", b"", "no part of a cache"),
        ("/etc/x", b"", "no part of a cache"),
        ("blobs/sha256/" + "0" * 64, b"x", "does not match its digest"),
        ("blobs/sha256/../../x", b"x", "no part of a cache"),
    ],
)
def test_what_must_not_be_received(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    (tmp_path / "blobs/sha256").mkdir(parents=True)
    with pytest.raises(ValueError, match=why):
        _receive(iter([tar_of({name: data, "index.json": b"{}"})]), str(tmp_path))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_half_a_cache_is_an_error(tmp_path: Path) -> None:
    files = cache(tmp_path / "from")
    (tmp_path / "blobs/sha256").mkdir(parents=True)
    whole = tar_of(files)
    for cut, why in ((tar_of({"oci-layout": b"{}"}), "could not send all"), (whole[: len(whole) // 3], "damaged")):
        with pytest.raises(ValueError, match=why):
            _receive(iter([cut]), str(tmp_path))
        assert not (tmp_path / "index.json").exists()


def test_what_a_directory_may_hold_before(tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("empty", "cut", "cache", "mine", "absent", "file")}
    for name in ("empty", "cut", "mine"):
        places[name].mkdir()
    (places["cut"] / "blobs/sha256").mkdir(parents=True)
    (places["mine"] / "x").write_text("x")
    places["file"].write_text("x")
    cache(places["cache"])
    for name, place in places.items():
        if name in ("mine", "file"):
            with pytest.raises(exits.Exit, match="holds no build cache"):
                buildcache.check(targets([f"type=local,dest={place}"]))
        else:
            buildcache.check(targets([f"type=local,dest={place}"]))
