"""Artifacts, attestations and referrers end to end: pulled, kept, saved, loaded and pushed on under the same digests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tare.testing.daemon import Daemon
from tare.testing.registry import Registry, registry
from tare.testing.stockclient import docker, out

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SOURCE = Path(__file__).resolve().parents[2] / "src"
HELM = "application/vnd.cncf.helm.config.v1+json"


@pytest.fixture
def server() -> Iterator[Registry]:
    with registry() as made:
        yield made


@pytest.fixture
def engine(scratch: Path) -> Iterator[Daemon]:
    """An engine of the test's own: it looks at everything that is left in it."""
    made = Daemon(scratch / "r", bridge=f"tr{os.getpid()}", source=SOURCE)
    try:
        made.start()
        yield made
        places = (made.data_root / place for place in ("downloads", "uploads", "ingest", "artifacts/ingest"))
        assert [name for place in places for name in os.listdir(place)] == []
    finally:
        made.destroy()


def tare(engine: Daemon, *words: str, expect: int = 0) -> str:
    settings = {**os.environ, "PYTHONPATH": str(SOURCE), "DOCKER_HOST": engine.host}
    done = subprocess.run(
        [sys.executable, "-m", "tare.cli", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env=settings,
        check=False,
    )
    assert done.returncode == expect, done.stderr
    return done.stdout + done.stderr


def artifacts(engine: Daemon) -> dict[str, list[str]]:
    return {found["Digest"]: found["Names"] for found in engine.json("GET", "/tare/v1/artifacts")}


def blobs(engine: Daemon) -> list[str]:
    return os.listdir(engine.data_root / "artifacts" / "blobs" / "sha256")


def put_chart(server: Registry, repository: str = "charts/one", tag: str = "1") -> str:
    layers = {"application/vnd.cncf.helm.chart.content.v1.tar+gzip": os.urandom(300_000)}
    return server.put_artifact(repository, tag, layers, config_type=HELM, config=b'{"name":"one"}')


def put_signed(server: Registry, tars: list[bytes]) -> tuple[str, str, str, str]:
    """An image with an attestation in its index, and a signature of the index: index, image, attestation, signature."""
    image = server.put_image("app", "", tars, config={"Cmd": ["echo", "runs"], "Env": ["PATH=/bin"]})
    statement = {"application/vnd.in-toto+json": b'{"predicate":{}}'}
    about = server.put_artifact(
        "app", "", statement, config_type="application/vnd.oci.image.config.v1+json", config=b'{"os":"unknown"}'
    )
    platform = {"os": "linux", "architecture": "amd64"}
    index = server.put_index("app", "1", [(image, platform)], attested={about: image})
    signature = server.put_artifact("app", "", {"application/x.sig": b"signed"}, subject=index)
    return index, image, about, signature


def list_by_tag(server: Registry, repository: str, subject: str, referrer: str) -> bytes:
    """The index under the tag that stands in for a list of referrers. Returns the referrer's manifest."""
    media_type, raw = server.manifests[repository, referrer]
    entry = {"mediaType": media_type, "digest": referrer, "size": len(raw)}
    document = {"schemaVersion": 2, "manifests": [entry]}
    server.put_manifest(repository, subject.replace(":", "-"), document, "application/vnd.oci.image.index.v1+json")
    return raw


@pytest.mark.parametrize("program", ["docker", "tare"])
def test_an_artifact_is_carried_and_not_run(engine: Daemon, server: Registry, program: str) -> None:
    """pull, list, tag, push, run (refused), rmi, with both command lines."""

    def run(*words: str) -> str:
        return tare(engine, *words) if program == "tare" else out(engine.host, *words)

    digest = put_chart(server)
    name, other = f"{server.host}/charts/one:1", f"{server.host}/moved:2"
    assert f"Digest: {digest}" in run("pull", name)
    assert artifacts(engine) == {digest: [name]}
    assert engine.json("GET", "/images/json") == []
    listed = tare(engine, "image", "artifacts")
    assert name in listed
    assert HELM in listed
    refused = docker(engine.host, "run", name)
    assert refused.returncode == 125
    assert f"{name} is an artifact of type {HELM}, not an image: it cannot be run" in refused.stderr
    for words in (["diff", "--stat", name], ["checkout", name, "/nonexistent/x"], ["log", name, "/"]):
        assert f"{name} is an artifact of type {HELM}, not an image" in tare(engine, *words, expect=1)
    run("tag", name, other)
    assert f"2: digest: {digest}" in run("push", other)
    assert server.manifests["moved", "2"] == server.manifests["charts/one", "1"]
    assert f"Untagged: {name}" in run("rmi", name)
    engine.stop()
    engine.start()
    assert artifacts(engine) == {digest: [other]}
    assert f"Deleted: {digest}" in run("rmi", other)
    assert (artifacts(engine), blobs(engine)) == ({}, [])
    run("pull", f"{server.host}/charts/one@{digest}")
    assert run("rmi", f"{server.host}/charts/one@{digest}")


def test_a_name_belongs_to_one_of_both(engine: Daemon, server: Registry, rootfs_tar: bytes) -> None:
    put_chart(server, "a", "1")
    name = f"{server.host}/a:1"
    engine.import_image("local:1", rootfs_tar)
    out(engine.host, "tag", "local:1", name)
    assert "is an image here, and an artifact at its registry" in docker(engine.host, "pull", name).stderr
    out(engine.host, "rmi", name)
    out(engine.host, "pull", name)
    assert list(artifacts(engine).values()) == [[name]]
    server.put_image("a", "1", [rootfs_tar])
    out(engine.host, "pull", name)  # the tag is an image now
    out(engine.host, "image", "inspect", name)
    assert artifacts(engine) == {}


def test_an_index_goes_on_with_its_attestations(engine: Daemon, server: Registry, rootfs_tar: bytes) -> None:
    index, image, about, _ = put_signed(server, [rootfs_tar])
    name = f"{server.host}/app:1"
    out(engine.host, "pull", name)
    assert list(artifacts(engine)) == [about]
    assert out(engine.host, "run", "--rm", name) == "runs"
    found = engine.json("GET", f"/images/{name}/json?manifests=1")["Manifests"]
    assert [(entry["Kind"], entry["Available"]) for entry in found] == [("image", True), ("attestation", True)]
    out(engine.host, "tag", name, f"{server.host}/b:1")
    assert f"1: digest: {index}" in out(engine.host, "push", f"{server.host}/b:1")
    for digest in (index, image, about):
        assert server.manifests["b", digest] == server.manifests["app", digest]
    out(engine.host, "rmi", name, f"{server.host}/b:1")
    assert (artifacts(engine), blobs(engine)) == ({}, [])


@pytest.mark.parametrize("serves_referrers", [True, False])
def test_referrers_over_a_file_to_another_engine(
    engine: Daemon, rootfs_tar: bytes, tmp_path: Path, serves_referrers: bool
) -> None:
    """pull --referrers, save --referrers, gone, load, push --referrers: every digest is what it was."""
    with registry(serves_referrers=serves_referrers) as server:
        index, image, about, signature = put_signed(server, [rootfs_tar])
        plain = server.put_image("plain", "1", [rootfs_tar], config={"Labels": {"plain": "1"}})
        note = server.put_artifact("plain", "", {"application/x.note": b"about a manifest"}, subject=plain)
        if not serves_referrers:
            list_by_tag(server, "app", index, signature)
            list_by_tag(server, "plain", plain, note)
        chart = put_chart(server)
        names = [f"{server.host}/app:1", f"{server.host}/plain:1", f"{server.host}/charts/one:1"]
        for name in names:
            tare(engine, "pull", "--referrers", name)
        assert set(artifacts(engine)) == {about, signature, note, chart}
        file = tmp_path / "saved.tar"
        tare(engine, "save", "--referrers", "-o", str(file), *names)
        again = tmp_path / "again.tar"
        tare(engine, "save", "--referrers", "-o", str(again), *names)
        assert file.read_bytes() == again.read_bytes()
        out(engine.host, "rmi", *names)
        assert (artifacts(engine), blobs(engine)) == ({}, [])
        assert f"Loaded artifact: {names[2]}" in tare(engine, "load", "-i", str(file))
        assert artifacts(engine) == {about: [], signature: [], note: [], chart: [names[2]]}
        for name, target in zip(names, ("x", "y", "z"), strict=True):
            tare(engine, "tag", name, f"{server.host}/{target}:9")
            tare(engine, "push", "--referrers", f"{server.host}/{target}:9")
        for target, home, digests in (
            ("x", "app", (index, image, about, signature)),
            ("y", "plain", (plain, note)),
            ("z", "charts/one", (chart,)),
        ):
            for digest in digests:
                assert server.manifests[target, digest] == server.manifests[home, digest]
        if not serves_referrers:
            listed = json.loads(server.manifests["x", index.replace(":", "-")][1])["manifests"]
            assert [entry["digest"] for entry in listed] == [signature]
        assert "nothing is wrong" in tare(engine, "system", "check")


def put_bundle(server: Registry, repository: str, subject: str, *, kind: str, tag: str = "") -> tuple[str, list[str]]:
    """An index with two parts, one of which is an index with one: its digest, and those of the parts."""
    first = server.put_artifact(repository, "", {"application/x.sbom": os.urandom(200_000)})
    second = server.put_artifact(repository, "", {"application/x.report": b"all is well"})
    inner = server.put_index(repository, "", [(second, {})], artifact_type="application/x.inner")
    index = server.put_index(repository, tag, [(first, {}), (inner, {})], artifact_type=kind, subject=subject)
    return index, [first, second, inner]


@pytest.mark.parametrize("kind", ["application/x.bundle", ""])
@pytest.mark.parametrize("serves_referrers", [True, False])
def test_a_referrer_may_be_an_index(
    engine: Daemon, rootfs_tar: bytes, tmp_path: Path, serves_referrers: bool, kind: str
) -> None:
    """Pulled, listed, saved, loaded and pushed with all that it lists, as a referrer that is a manifest."""
    with registry(serves_referrers=serves_referrers) as server:
        image = server.put_image("app", "1", [rootfs_tar])
        bundle, parts = put_bundle(server, "app", image, kind=kind)
        if not serves_referrers:
            list_by_tag(server, "app", image, bundle)
        name, target = f"{server.host}/app:1", f"{server.host}/moved:2"
        tare(engine, "pull", "--referrers", name)
        assert set(artifacts(engine)) == {bundle, *parts}
        listed = {found["Digest"]: found for found in engine.json("GET", "/tare/v1/artifacts")}
        assert listed[bundle]["Subject"] == image
        assert listed[bundle]["Type"] == (kind or "application/vnd.oci.image.index.v1+json")
        file = tmp_path / "saved.tar"
        tare(engine, "save", "--referrers", "-o", str(file), name)
        out(engine.host, "rmi", name)
        assert (artifacts(engine), blobs(engine)) == ({}, [])
        tare(engine, "load", "-i", str(file))
        assert set(artifacts(engine)) == {bundle, *parts}
        assert [found["RepoTags"] for found in engine.json("GET", "/images/json")] == [[name]]
        engine.stop()
        engine.start()
        tare(engine, "tag", name, target)
        tare(engine, "push", "--referrers", target)
        for digest in (image, bundle, *parts):
            assert server.manifests["moved", digest] == server.manifests["app", digest]
        if not serves_referrers:
            (entry,) = json.loads(server.manifests["moved", image.replace(":", "-")][1])["manifests"]
            assert (entry["digest"], entry.get("artifactType", "")) == (bundle, kind)
        assert "nothing is wrong" in tare(engine, "system", "check")
        out(engine.host, "rmi", name, target)
        assert (artifacts(engine), blobs(engine)) == ({}, [])


def test_an_index_of_artifacts_has_a_name(engine: Daemon, server: Registry, tmp_path: Path) -> None:
    """One that says of which type it is, not of images; what its registry lacks of it is passed over."""
    bundle, parts = put_bundle(server, "sets", "", kind="application/x.set", tag="1")
    name, target = f"{server.host}/sets:1", f"{server.host}/moved:2"
    del server.manifests["sets", parts[0]]
    told = out(engine.host, "pull", name)
    assert f"Skipping {parts[0][7:19]}: the registry does not have it" in told
    assert artifacts(engine) == {bundle: [name], parts[1]: [], parts[2]: []}
    assert "is an artifact of type application/x.set, not an image" in docker(engine.host, "run", name).stderr
    tare(engine, "save", "-o", str(tmp_path / "set.tar"), name)
    out(engine.host, "rmi", name)
    assert artifacts(engine) == {}
    out(engine.host, "load", "-i", str(tmp_path / "set.tar"))
    out(engine.host, "tag", name, target)
    out(engine.host, "push", target)
    assert server.manifests["moved", "2"] == server.manifests["sets", "1"]
    assert server.manifests["moved", parts[1]] == server.manifests["sets", parts[1]]


def test_a_name_that_moves_leaves_nothing(engine: Daemon, server: Registry) -> None:
    put_chart(server)
    name = f"{server.host}/charts/one:1"
    out(engine.host, "pull", name)
    newer = put_chart(server)
    out(engine.host, "pull", name)
    assert artifacts(engine) == {newer: [name]}
    assert len(blobs(engine)) == 2


def test_events_are_those_of_images(engine: Daemon, server: Registry, tmp_path: Path) -> None:
    digest = put_chart(server)
    name, other = f"{server.host}/charts/one:1", f"{server.host}/moved:2"
    repository, since = name.rpartition(":")[0], time.time()
    out(engine.host, "pull", name)
    out(engine.host, "tag", name, other)
    out(engine.host, "push", other)
    tare(engine, "save", "-o", str(tmp_path / "chart.tar"), name)
    out(engine.host, "rmi", name)
    out(engine.host, "rmi", other)
    out(engine.host, "load", "-i", str(tmp_path / "chart.tar"))
    _, body = engine.request("GET", f"/events?since={since:.9f}&until={time.time():.9f}")
    told = [json.loads(line) for line in body.splitlines()]
    assert [(one["Type"], one["Action"], one["Actor"]["ID"], one["Actor"]["Attributes"]) for one in told] == [
        ("image", "pull", name, {"name": repository}),
        ("image", "tag", digest, {"name": other}),
        ("image", "push", other, {"name": other.rpartition(":")[0]}),
        ("image", "save", digest, {"name": digest}),
        ("image", "untag", digest, {"name": digest}),
        ("image", "untag", digest, {"name": digest}),
        ("image", "delete", digest, {"name": digest}),
        ("image", "load", digest, {"name": digest}),
    ]


def test_they_are_counted_and_pruned(engine: Daemon, server: Registry, rootfs_tar: bytes) -> None:
    """df is du; a blob that two have is counted once; prune takes what has a name and is not asked to be kept."""
    chart, image = put_chart(server), server.put_image("app", "1", [rootfs_tar])
    layer = json.loads(server.manifests["app", image][1])["layers"][0]
    document = json.loads(server.manifests["charts/one", chart][1])
    server.put_blob("charts/one", server.blobs[layer["digest"]])
    document["layers"].append({**layer, "mediaType": "application/x.other"})
    document["annotations"] = {"team": "a", "org.opencontainers.image.created": "2020-01-01T00:00:00Z"}
    second = server.put_manifest("charts/one", "2", document)
    signature = server.put_artifact("app", "", {"application/x.sig": b"signed"}, subject=image)
    list_by_tag(server, "app", image, signature)
    one, two, app = f"{server.host}/charts/one:1", f"{server.host}/charts/one:2", f"{server.host}/app:1"
    before = engine.json("GET", "/system/df")
    for name in (app, one, two):
        tare(engine, "pull", "--referrers", name)
    assert not server.requests("GET", f"/v2/charts/one/blobs/{layer['digest']}")  # an image has it
    report = engine.json("GET", "/system/df")
    du = sum((engine.data_root / "artifacts/blobs/sha256" / blob).stat().st_size for blob in blobs(engine))
    assert report["ArtifactsSize"] == du > 300_000
    assert {known["Digest"] for known in report["Artifacts"]} == {chart, second, signature}
    layers = report["Images"][0]["Size"]
    assert report["LayersSize"] - before["LayersSize"] == layers + du
    rows = [line.split() for line in tare(engine, "system", "df").splitlines()]
    assert rows[1][:3] == ["Images", "1", "0"]
    assert rows[-1][:3] == ["Artifacts", "3", "0"]
    assert one in tare(engine, "system", "df", "-v")
    out(engine.host, "create", "--name", "user", app, "true")
    out(engine.host, "image", "prune", "-f")
    assert set(artifacts(engine)) == {chart, second, signature}
    out(engine.host, "image", "prune", "-af", "--filter", "label!=team", "--filter", "until=1h")
    assert set(artifacts(engine)) == {chart, second, signature}
    done = out(engine.host, "image", "prune", "-af", "--filter", "until=24h")
    assert f"untagged: {two}" in done
    assert f"deleted: {second}" in done
    assert set(artifacts(engine)) == {chart, signature}
    freed = engine.json("POST", '/images/prune?filters={"dangling":["false"]}')
    assert (
        freed["SpaceReclaimed"] == du - len(b"signed") - layer["size"] - 2
    )  # the signature's config is another's, too
    assert set(artifacts(engine)) == {signature}
    out(engine.host, "rm", "user")
    out(engine.host, "rmi", app)
    assert (artifacts(engine), blobs(engine)) == ({}, [])


def test_a_damaged_blob_is_found_and_comes_again(engine: Daemon, server: Registry) -> None:
    put_chart(server)
    name = f"{server.host}/charts/one:1"
    out(engine.host, "pull", name)
    largest = max(blobs(engine), key=lambda one: (engine.data_root / "artifacts/blobs/sha256" / one).stat().st_size)
    with (engine.data_root / "artifacts/blobs/sha256" / largest).open("r+b") as file:
        file.write(b"flip")
    assert "artifact-damaged" in tare(engine, "system", "check", expect=1)
    tare(engine, "system", "check", "--fix")
    assert artifacts(engine) == {}
    out(engine.host, "pull", name)
    assert "nothing is wrong" in tare(engine, "system", "check")


@pytest.fixture
def debian(tmp_path: Path) -> Iterator[str]:
    """Debian's docker-registry on a port of 127.0.0.1."""
    program = shutil.which("docker-registry")
    assert program is not None, "docker-registry is not installed: run scripts/setup --test"
    settings = {
        "version": 0.1,
        "log": {"level": "info", "formatter": "json"},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "data")}},
        "http": {"addr": "127.0.0.1:0"},
    }
    (tmp_path / "config.yml").write_text(json.dumps(settings))
    process = subprocess.Popen(
        [program, "serve", str(tmp_path / "config.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    line = next(line for line in process.stderr if "listening on" in line)
    drain = threading.Thread(target=process.stderr.read, daemon=True)
    drain.start()
    try:
        yield json.loads(line)["msg"].rpartition(" ")[2]
    finally:
        process.terminate()
        process.wait(20)
        drain.join(20)
        process.stderr.close()


def test_debians_registry_and_skopeo(engine: Daemon, server: Registry, debian: str, tmp_path: Path) -> None:
    """Everything goes through a real registry, which knows no referrers, and is read by skopeo there."""
    index, _, about, signature = put_signed(server, [b""])
    raw = list_by_tag(server, "app", index, signature)
    name, there = f"{server.host}/app:1", f"{debian}/app:1"
    tare(engine, "pull", "--referrers", name)
    tare(engine, "tag", name, there)
    assert f"1: digest: {index}" in tare(engine, "push", "--referrers", there)
    engine.request("DELETE", f"/images/{name}?force=1")
    engine.request("DELETE", f"/images/{there}?force=1")
    assert artifacts(engine) == {}
    tare(engine, "pull", "--referrers", there)
    assert set(artifacts(engine)) == {about, signature}
    seen = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{debian}/app@{signature}"],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert seen.stdout == raw
