"""Images: import, export, save, commit, pull and push."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benching.bench import IMAGE, Bench, Result, below
from benching.engines import MIB, Engine, Missing


def import_(bench: Bench) -> Result:
    """Each time other content, so that nothing is recognised; nothing is deleted between (ext4 pays for that later)."""
    rounds = max(2, bench.size.rounds // 3)
    marks = {engine.name: 0 for engine in bench.engines}

    def go(engine: Engine) -> None:
        engine.docker("import", bench.tar, f"bench:import-{marks[engine.name]}")
        marks[engine.name] += 1

    def change(engine: Engine) -> None:
        mark = bench.work / f"mark-{engine.name}-{marks[engine.name]}"
        mark.touch()
        subprocess.run(["tar", "-C", bench.work, "--append", "-f", bench.tar, mark.name], check=True)

    values = bench.interleaved(go, change, rounds=rounds)
    remove_images(bench, "bench:import-", rounds)
    return Result(f"import of {bench.tar.stat().st_size // MIB} MiB", "ms", values, "≤ 0.7", below(0.7))


def remove_images(bench: Bench, prefix: str, rounds: int) -> None:
    for engine in bench.engines:
        for number in range(rounds + 1):
            engine.docker("rmi", "-f", f"{prefix}{number}")


def export(bench: Bench) -> Result:
    def go(engine: Engine) -> None:
        with open(os.devnull, "wb") as nothing:
            subprocess.run(
                ["docker", "-H", f"unix://{engine.socket}", "export", "bench-export"],
                stdin=subprocess.DEVNULL, stdout=nothing, check=True,
            )  # fmt: skip

    with bench.containers("bench-export", "true"):
        values = bench.interleaved(go, rounds=max(2, bench.size.rounds // 3))
    return Result("export", "ms", values, "≤ 1.0", below(1.0))


def save(bench: Bench) -> Result:
    def go(engine: Engine) -> None:
        with open(os.devnull, "wb") as nothing:
            subprocess.run(
                ["docker", "-H", f"unix://{engine.socket}", "save", IMAGE],
                stdin=subprocess.DEVNULL, stdout=nothing, check=True,
            )  # fmt: skip

    values = bench.interleaved(go, rounds=max(2, bench.size.rounds // 3))
    return Result("save", "ms", values, "≤ 1.0", below(1.0))


def commit(bench: Bench) -> Result:
    """Each time another container, so that every layer is new."""
    script = f"mkdir /t && cd /t && i=0 && while [ $i -lt {bench.size.touched} ]; do echo $i >f$i; i=$((i+1)); done"
    rounds = max(2, bench.size.rounds // 2)
    marks = {engine.name: 0 for engine in bench.engines}

    def go(engine: Engine) -> None:
        number = marks[engine.name]
        engine.docker("commit", f"bench-commit-{number}", f"bench:commit-{number}")
        marks[engine.name] += 1

    with ExitStack() as stack:
        for number in range(rounds + 1):
            stack.enter_context(bench.containers(f"bench-commit-{number}", "sh", "-c", script, is_started=True))
        values = bench.interleaved(go, rounds=rounds)
    remove_images(bench, "bench:commit-", rounds)
    return Result(f"commit after touching {bench.size.touched} files", "ms", values, "≤ 0.5", below(0.5))


def pull_one(bench: Bench) -> Result:
    return pull(bench, 1, 0.7)


def pull_many(bench: Bench) -> Result:
    return pull(bench, 6, 0.5)


def pull(bench: Bench, layers: int, limit: float) -> Result:
    """From docker-registry on the loopback that each engine sees; the image is removed between the rounds."""
    with registries(bench) as addresses:
        upload_image(addresses["tare"], bench.tar, layers)
        name = {engine.name: f"{addresses[engine.name]}/bench/image:1" for engine in bench.engines}
        values = bench.interleaved(
            lambda engine: engine.docker("pull", "-q", name[engine.name]),
            lambda engine: engine.docker("rmi", "-f", name[engine.name]),
            rounds=max(2, bench.size.rounds // 3),
        )
    what = f"pull of {bench.tar.stat().st_size // MIB} MiB in {layers} layer{'s' if layers > 1 else ''}, gzip -6"
    return Result(what, "ms", values, f"≤ {limit}", below(limit))


def push(bench: Bench) -> Result:
    """Of the imported image, each time to a registry that has nothing."""
    with registries(bench) as addresses:
        name = {engine.name: f"{addresses[engine.name]}/bench/image:1" for engine in bench.engines}
        for engine in bench.engines:
            engine.docker("tag", IMAGE, name[engine.name])
        try:
            values = bench.interleaved(
                lambda engine: engine.docker("push", "-q", name[engine.name]),
                lambda _: shutil.rmtree(bench.work / "registry" / "docker"),
                rounds=max(2, bench.size.rounds // 3),
            )
        finally:
            for engine in bench.engines:
                engine.docker("rmi", name[engine.name])
    return Result("push of the imported image", "ms", values, "≤ 0.4", below(0.4))


@contextmanager
def registries(bench: Bench) -> Iterator[dict[str, str]]:
    """One docker-registry for each engine, in its network namespace, all on the same files. Engine → address."""
    if shutil.which("docker-registry") is None:
        raise Missing("docker-registry is not installed: apt-get install docker-registry")
    data, running, found = bench.work / "registry", list[subprocess.Popen[str]](), dict[str, str]()
    settings = {
        "version": 0.1, "log": {"level": "info", "formatter": "json"}, "http": {"addr": "127.0.0.1:0"},
        "storage": {"filesystem": {"rootdirectory": str(data)}},
    }  # fmt: skip
    (bench.work / "registry.yml").write_text(json.dumps(settings))
    try:
        for engine in bench.engines:
            argv = [*engine.inside, "docker-registry", "serve", str(bench.work / "registry.yml")]
            started = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            running.append(started)
            assert started.stderr is not None
            line = next((line for line in started.stderr if "listening on" in line), "")
            if not line:
                raise Missing("docker-registry did not start")
            found[engine.name] = json.loads(line)["msg"].rpartition(" ")[2]
            threading.Thread(target=started.stderr.read, daemon=True).start()
        yield found
    finally:
        for started in running:
            started.terminate()
            started.wait(20)
        shutil.rmtree(data, ignore_errors=True)


def upload_image(address: str, tar: Path, layers: int) -> None:
    """Cut a tar into layers of about the same size and put the image into the registry as bench/image:1."""
    outs = [io.BytesIO() for _ in range(layers)]
    writers = [tarfile.open(fileobj=out, mode="w") for out in outs]
    place: dict[str, int] = {}
    number, each = 0, tar.stat().st_size // layers
    with tarfile.open(tar) as source:
        for member in source:
            if member.isdir():
                for writer in writers:
                    writer.addfile(member)
                continue
            if member.islnk():
                place[member.name] = place[member.linkname]
            else:
                if outs[number].tell() > each and number + 1 < layers:
                    number += 1
                place[member.name] = number
            writers[place[member.name]].addfile(member, source.extractfile(member) if member.isreg() else None)
    blobs, diff_ids = [], []
    for writer, out in zip(writers, outs, strict=True):
        writer.close()
        diff_ids.append(f"sha256:{hashlib.sha256(out.getbuffer()).hexdigest()}")
        blobs.append(gzip.compress(out.getbuffer(), 6, mtime=0))
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "os": "linux", "config": {"Cmd": ["true"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }  # fmt: skip

    def put(path: str, data: bytes, kind: str) -> None:
        url = path if "://" in path else f"http://{address}{path}"
        request = urllib.request.Request(url, data, {"Content-Type": kind}, method="PUT")
        urllib.request.urlopen(request, timeout=60).close()

    def descriptor(data: bytes, kind: str) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        begin = urllib.request.Request(f"http://{address}/v2/bench/image/blobs/uploads/", b"", method="POST")
        with urllib.request.urlopen(begin, timeout=60) as answer:
            location = answer.headers["Location"]
        put(f"{location}&digest={digest}", data, "application/octet-stream")
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(data)}

    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor(json.dumps(config).encode(), "config.v1+json"),
        "layers": [descriptor(blob, "layer.v1.tar+gzip") for blob in blobs],
    }  # fmt: skip
    put("/v2/bench/image/manifests/1", json.dumps(manifest).encode(), str(manifest["mediaType"]))
