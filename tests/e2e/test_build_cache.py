"""Caches of builds that move between engines: to a directory and to a registry, with what is in their cache mounts.

Exercises engine/builds/cacheexport and engine/builds/cacheimport with two real engines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tare.testing.daemon import Daemon
from tare.testing.registry import Registry, registry
from tare.testing.stockclient import docker

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.root

DOCKERFILE = """FROM busybox AS builder
WORKDIR /src
COPY source .
RUN --mount=type=cache,target=/keep,uid=7 cat /keep/seen 2>/dev/null; cat source >> /keep/seen; cp source /built
FROM busybox
RUN echo once > /once && true
RUN true
COPY --from=builder /built /built
ENV A=b
"""


@pytest.fixture(scope="module")
def engines(scratch: Path, rootfs_tar: bytes) -> Iterator[tuple[Daemon, Daemon]]:
    """Two engines that have nothing in common but the base image."""
    made = [
        Daemon(scratch / name, bridge=f"tt{name}0", source=REPOSITORY / "src", arguments=["--allow-private-sources"])
        for name in ("cha", "chb")
    ]
    try:
        for engine in made:
            engine.start()
        made[0].import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        status, archive = made[0].request("GET", "/images/busybox:latest/get")
        assert status == 200
        status, said = made[1].request(
            "POST", "/images/load", body=archive, headers={"Content-Type": "application/x-tar"}
        )
        assert status == 200, said
        yield made[0], made[1]
    finally:
        for engine in made:
            engine.destroy()


@pytest.fixture(autouse=True)
def fresh(engines: tuple[Daemon, Daemon]) -> Iterator[None]:
    """The caches are empty at the beginning, and no test leaves anything but those."""
    for engine in engines:
        engine.json("POST", "/build/prune?all=1")
    yield
    for engine in engines:
        assert engine.json("GET", "/containers/json?all=1") == []
        for place in ("builds", "ingest", "downloads", "uploads"):
            assert os.listdir(engine.data_root / place) == [], place
        assert str(engine.data_root) not in Path("/proc/self/mountinfo").read_text()
        for image in engine.json("GET", "/images/json?all=1"):
            if "busybox:latest" not in image["RepoTags"]:
                engine.request("DELETE", f"/images/{image['Id']}?force=1")


def tare(engine: Daemon, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tare.cli", "-H", engine.host, *words],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "DOCKER_CONFIG": "/nonexistent"},
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def sources(place: Path, text: str = "one\n") -> Path:
    place.mkdir(exist_ok=True)
    (place / "Dockerfile").write_text(DOCKERFILE)
    (place / "source").write_text(text)
    return place


def image(engine: Daemon, name: str) -> str:
    return str(engine.json("GET", f"/images/{name}/json")["Id"])


def blobs(place: Path) -> dict[str, Path]:
    return {path.name: path for path in (place / "blobs/sha256").iterdir()}


def document(place: Path) -> dict[str, Any]:
    (entry,) = json.loads((place / "index.json").read_text())["manifests"]
    found = blobs(place)
    manifest = json.loads(found[entry["digest"][7:]].read_bytes())
    made: dict[str, Any] = json.loads(found[manifest["config"]["digest"][7:]].read_bytes())
    return made


@pytest.mark.parametrize("kind", ["local", "registry"])
def test_another_engine_goes_on_where_the_first_was(engines: tuple[Daemon, Daemon], tmp_path: Path, kind: str) -> None:
    one, two = engines
    context = sources(tmp_path / "src")
    with registry() as remote:
        place = f"dest={tmp_path}/cache" if kind == "local" else f"ref={remote.host}/cache:1"
        tare(one, "build", "-t", "x", "--cache-to", f"type={kind},{place},mode=max", str(context))
        origin = f"--cache-from=type={kind},{place.replace('dest=', 'src=')}"
        said = tare(two, "build", "-t", "x", origin, str(context))
        assert "WARNING" not in said.upper()
        assert said.count("Using cache") == 6
        assert "Running in" not in said
        assert image(two, "x") == image(one, "x")
        # a new source: the step runs, and finds what it kept on the other engine
        said = tare(two, "build", "-t", "y", origin, str(sources(context, "two\n")))
        assert "\none\n" in said
        assert said.count("Running in") == 1
        said = tare(two, "build", "-t", "z", origin, str(sources(context, "three\n")))
        assert "\none\ntwo\n" in said, "what is here already is not replaced"
    # what came in is of this engine now
    assert tare(two, "build", str(sources(context, "one\n"))).count("Using cache") == 6


def test_the_owner_of_a_cache_mount_is_kept(engines: tuple[Daemon, Daemon], tmp_path: Path) -> None:
    one, two = engines
    context = sources(tmp_path / "src")
    tare(one, "build", "--cache-to", f"type=local,dest={tmp_path}/cache,mode=max", str(context))
    tare(two, "build", f"--cache-from=type=local,src={tmp_path}/cache", str(sources(context, "two\n")))
    (kept,) = (two.data_root / "buildcache").iterdir()
    assert kept.stat().st_uid == 7
    assert (kept / "seen").read_text() == "one\ntwo\n"


@pytest.mark.skipif(tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 15), reason="needs Linux 6.15")
def test_an_engine_that_maps_ids_takes_over_the_same(
    engines: tuple[Daemon, Daemon], scratch: Path, tmp_path: Path
) -> None:
    one, _ = engines
    context = sources(tmp_path / "src")
    mapped = Daemon(
        scratch / "chm", bridge="ttchm0", source=REPOSITORY / "src", arguments=["--userns-remap", "ids=300000:65536"]
    )
    scratch.chmod(0o711)  # who is root inside must be able to get to its own files
    try:
        mapped.start()
        archive = one.request("GET", "/images/busybox:latest/get")[1]
        mapped.request("POST", "/images/load", body=archive, headers={"Content-Type": "application/x-tar"})
        tare(one, "build", "--cache-to", f"type=local,dest={tmp_path}/cache,mode=max", str(context))
        words = (
            f"--cache-from=type=local,src={tmp_path}/cache",
            f"--cache-to=type=local,dest={tmp_path}/second,mode=max",
        )
        assert tare(mapped, "build", *words, str(context)).count("Using cache") == 6
        said = tare(mapped, "build", *words, str(sources(context, "two\n")))
        assert "Warning" not in said
        (kept,) = (mapped.data_root / "buildcache").iterdir()
        assert (kept.stat().st_uid, (kept / "seen").stat().st_uid) == (300007, 300000)
        assert (kept / "seen").read_text() == "one\ntwo\n"
    finally:
        mapped.destroy()
        scratch.chmod(0o700)
    tare(engines[1], "build", f"--cache-from=type=local,src={tmp_path}/second", str(sources(context, "three\n")))
    (kept,) = (engines[1].data_root / "buildcache").iterdir()
    assert ((kept / "seen").stat().st_uid, (kept / "seen").read_text()) == (0, "one\ntwo\nthree\n")


def test_what_a_directory_holds(engines: tuple[Daemon, Daemon], tmp_path: Path) -> None:
    one, _ = engines
    context, place = sources(tmp_path / "src"), tmp_path / "cache"
    tare(one, "build", "--cache-to", f"type=local,dest={place},mode=max", str(context))
    assert sorted(path.name for path in place.iterdir()) == ["blobs", "index.json", "oci-layout"]
    whole = document(place)
    assert [mount["id"] for mount in whole["mounts"]] == ["/keep"]
    assert len(whole["steps"]) == 6
    before = {name: path.stat().st_ino for name, path in blobs(place).items()}
    tare(one, "build", "--cache-to", f"type=local,dest={place},mode=max", str(context))
    assert {name: path.stat().st_ino for name, path in blobs(place).items()} == before
    tare(one, "build", "--cache-to", f"type=local,dest={place},mounts=false", str(context))
    smaller = document(place)
    assert smaller["mounts"] == []
    assert [step["description"].split()[0] for step in smaller["steps"]].count("COPY") == 1
    assert len(smaller["steps"]) == 3
    assert len(blobs(place)) == 2 + 2  # manifest and document; `RUN true` has no layer
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("x")
    said = tare(one, "build", "--cache-to", f"type=local,dest={tmp_path}/mine", str(context), code=1)
    assert "is not empty and holds no build cache" in said
    assert "Step" not in said


def test_a_cache_that_is_not_there_is_told(engines: tuple[Daemon, Daemon], tmp_path: Path) -> None:
    _, two = engines
    context = sources(tmp_path / "src")
    said = tare(two, "build", "--cache-from", f"type=local,src={tmp_path}/nothing", str(context))
    assert f"WARNING: the cache in {tmp_path}/nothing is not used: no such file or directory" in said
    with registry() as remote:
        said = tare(two, "build", "--cache-from", f"type=registry,ref={remote.host}/cache", str(context))
        assert f"[Warning] the cache of {remote.host}/cache:latest is not used: " in said
        remote.put_image("cache", "latest", [])
        said = tare(two, "build", "--cache-from", f"type=registry,ref={remote.host}/cache", str(context))
        assert "it is no build cache of this engine" in said
    for wrong, why in (
        ("type=gha", "unknown type of cache"),
        ("type=registry", "needs ref=REFERENCE"),
        ("type=local", "needs src=DIRECTORY"),
        ("type=registry,ref=UPPER", "invalid reference format"),
    ):
        assert why in tare(two, "build", "--cache-from", wrong, str(context), code=1), wrong
    said = tare(two, "build", "--cache-to", "type=registry,ref=127.0.0.1:1/cache", str(context), code=1)
    assert "Successfully built" not in said


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("what", ["layers", "mount", "document"])
def test_damage_is_found_and_the_step_is_done(engines: tuple[Daemon, Daemon], tmp_path: Path, what: str) -> None:
    one, two = engines
    context, place = sources(tmp_path / "src"), tmp_path / "cache"
    tare(one, "build", "--cache-to", f"type=local,dest={place},mode=max", str(context))
    found = document(place)
    mounts = {mount["layer"][7:] for mount in found["mounts"]}
    layers = {step["layer"][7:] for step in found["steps"] if step["layer"]}
    for name, path in blobs(place).items():
        if (name in mounts and what == "mount") or (name in layers and what == "layers"):
            damaged(path)
        elif what == "document" and name not in mounts | layers and b'"steps"' in path.read_bytes():
            path.write_bytes(path.read_bytes().replace(b'"key":"', b'"key":"0', 1))
    text = "two\n" if what == "mount" else "one\n"
    said = tare(two, "build", "--cache-from", f"type=local,src={place}", str(sources(context, text)))
    assert "does not match its digest" in said
    assert "Running in" in said
    assert ("\none\n" in said) == (what == "layers"), "only the mount that is whole is taken over"
    assert "Successfully built" in said


def test_a_registry_that_lies_is_not_believed(engines: tuple[Daemon, Daemon], tmp_path: Path) -> None:
    one, two = engines
    context = sources(tmp_path / "src")
    with registry() as remote:
        tare(one, "build", "--cache-to", f"type=registry,ref={remote.host}/cache:1,mode=max", str(context))
        manifest = json.loads(remote.manifests["cache", "1"][1])
        for entry in manifest["layers"]:
            data = remote.blobs[entry["digest"]]
            remote.blobs[entry["digest"]] = data[:20] + bytes([data[20] ^ 1]) + data[21:]
        said = tare(
            two, "build", "--cache-from", f"type=registry,ref={remote.host}/cache:1", str(sources(context, "two\n"))
        )
        assert "[Warning] a step of a cache is not used" in said
        assert "[Warning] the cache mount /keep is not taken over" in said
        assert "Successfully built" in said


def fetched(remote: Registry) -> int:
    return len(remote.requests("GET", "/blobs/"))


def test_only_what_is_needed_is_fetched(engines: tuple[Daemon, Daemon], tmp_path: Path) -> None:
    one, two = engines
    context = sources(tmp_path / "src")
    with registry() as remote:
        tare(one, "build", "--cache-to", f"type=registry,ref={remote.host}/cache:1,mode=max", str(context))
        tare(two, "build", "--cache-from", f"type=registry,ref={remote.host}/cache:1", str(sources(context, "two\n")))
        # its document, WORKDIR's layer, the cache mount, and `RUN echo once`; not the layers of the old source
        assert fetched(remote) == 4
        tare(two, "build", "--cache-from", f"type=registry,ref={remote.host}/cache:1", str(context))
        assert fetched(remote) == 5


def test_the_stock_command_line_takes_from_a_registry(
    engines: tuple[Daemon, Daemon], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    one, two = engines
    context = sources(tmp_path / "src")
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo once > /once\n")
    with registry() as remote:
        tare(one, "build", "--cache-to", f"type=registry,ref={remote.host}/cache:1", str(context))
        words = ("--cache-from", f'"type=registry,ref={remote.host}/cache:1"', "-t", "stock", str(context))
        done = docker(two.host, "build", *words)
        assert done.returncode == 0, done.stderr
        assert "Using cache" in done.stdout
