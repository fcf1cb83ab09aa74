"""Images: import, export, save, commit, pull, push, load, listing and removal."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benching.bench import IMAGE, Bench, Result, below
from benching.engines import MIB, PYTHON, Engine, Missing, request, run
from benching.samples import Sample, Samples, config_of, member, upload, write_archive


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
    """From docker-registry on the loopback that each engine sees: each time another variant, all removed at the end."""
    rounds = max(2, bench.size.rounds // 2)
    samples = Samples(bench.tar, layers)
    marks = {engine.name: 0 for engine in bench.engines}
    with registries(bench) as addresses:
        for number in range(rounds + 1):
            upload(addresses["tare"], samples.variant(number), tag=f"{layers}-{number}")
        name = {engine.name: f"{addresses[engine.name]}/bench/image:{layers}-" for engine in bench.engines}

        def go(engine: Engine) -> None:
            engine.docker("pull", "-q", f"{name[engine.name]}{marks[engine.name]}")
            marks[engine.name] += 1

        values = bench.interleaved(go, rounds=rounds)
        for engine in bench.engines:
            engine.docker("rmi", *(f"{name[engine.name]}{number}" for number in range(rounds + 1)))
    what = f"pull of {bench.tar.stat().st_size // MIB} MiB in {layers} layer{'s' if layers > 1 else ''}, gzip -6"
    return Result(what, "ms", values, f"≤ {limit}", below(limit))


def load(bench: Bench) -> Result:
    """Of an archive with compressed layers, each time another variant."""
    return load_and_remove(bench)[0]


def rmi(bench: Bench) -> Result:
    return load_and_remove(bench)[1]


def load_and_remove(bench: Bench, layers: int = 6) -> tuple[Result, Result]:
    rounds = max(2, bench.size.rounds // 2)
    samples, archive = Samples(bench.tar, layers), bench.work / "load.tar"
    marks = {engine.name: 0 for engine in bench.engines}
    removed = dict(marks)

    def make(engine: Engine) -> None:
        number = marks[engine.name]
        write_archive(archive, {f"bench:load-{number}": samples.variant(number)})

    def go(engine: Engine) -> None:
        engine.docker("load", "-q", "-i", archive)
        marks[engine.name] += 1

    def remove(engine: Engine) -> None:
        engine.docker("rmi", f"bench:load-{removed[engine.name]}")
        removed[engine.name] += 1

    loaded = bench.interleaved(go, before=make, rounds=rounds)
    archive.unlink()
    gone = bench.interleaved(remove, rounds=rounds)
    what = f"of {bench.tar.stat().st_size // MIB} MiB in {layers} layers, gzip -6"
    return (
        Result(f"load {what}", "ms", loaded, "≤ 0.75", below(0.75)),
        Result(f"rmi {what}", "ms", gone, "≤ 0.5", below(0.5)),
    )


@contextmanager
def many_images(bench: Bench) -> Iterator[int]:
    """Images that share a layer and are otherwise their own; how many."""
    layer = gzip.compress(member("one", b"1\n") + bytes(1024), 6, mtime=0)
    diff_id = f"sha256:{hashlib.sha256(gzip.decompress(layer)).hexdigest()}"
    names = [f"bench-list:{number}" for number in range(bench.size.containers)]
    archive = bench.work / "list.tar"
    write_archive(archive, {name: Sample(config_of([diff_id], number=name), [layer]) for name in names})
    for engine in bench.engines:
        engine.docker("load", "-q", "-i", archive)
    archive.unlink()
    yield len(names)
    for engine in bench.engines:
        engine.docker("rmi", *names)


def image_list(bench: Bench) -> Result:
    with many_images(bench) as count:
        values = bench.interleaved(lambda engine: request(engine.socket, "/v1.41/images/json"))
    return Result(f"GET /images/json, {count} images", "ms", values, "≤ 0.5", below(0.5))


def image_ls(bench: Bench) -> Result:
    """As typed: each engine by its own command line."""
    program = {"tare": [PYTHON.with_name("tare")], "dockerd": ["docker"]}
    with many_images(bench) as count:
        values = bench.interleaved(
            lambda engine: run(*program[engine.name], "-H", f"unix://{engine.socket}", "image", "ls")
        )
    return Result(f"`tare image ls` beside `docker image ls`, {count} images", "ms", values, "≤ 0.5", below(0.5))


def image_ls_stock(bench: Bench) -> Result:
    """The same program to both engines: most of what is left is its own."""
    with many_images(bench) as count:
        values = bench.interleaved(lambda engine: engine.docker("image", "ls"))
    return Result(f"`docker image ls` to both, {count} images", "ms", values, "≤ 0.5", below(0.5))


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
