"""Builds: the classic endpoint, which is what both engines serve to the stock command line without a plugin."""

from __future__ import annotations

import shutil

from benching.bench import IMAGE, Bench, Result, below
from benching.engines import Engine, Missing

_PROGRAM = """#include <stdio.h>
int main(void) { puts("built"); return 0; }
"""
_PACKAGES = f"""FROM {IMAGE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make
COPY program.c /src/
RUN gcc -O2 -static -o /program /src/program.c
FROM {IMAGE}
RUN apt-get update && apt-get install -y --no-install-recommends file less
COPY --from=build /program /usr/local/bin/
RUN program
"""


def build_packages(bench: Bench) -> Result:
    """What people build: packages, a compiler, a second stage. dockerd gets a way out of its namespace for it."""
    for engine in bench.engines:
        if engine.docker("run", "--rm", IMAGE, "sh", "-c", "command -v apt-get || true") == "":
            raise Missing("the root file system has no apt-get: apt-get install debootstrap, and not --quick")
        engine.open_network()
    return built(bench, "apt-get install, compile, second stage", _PACKAGES, 0.9, rounds=3)


def built(bench: Bench, what: str, dockerfile: str, limit: float, *, files: int = 0, is_cached: bool = False,
          rounds: int = 0) -> Result:  # fmt: skip
    """Build with nothing known, everything made taken away after each; or with all steps known from the first round."""
    context = bench.work / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(dockerfile)
    (context / "program.c").write_text(_PROGRAM)
    for number in range(files):
        place = context / "files" / f"d{number // 100}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"f{number}").write_bytes(b"%08d\n" % number * (1 + number % 200))
    made: set[str] = set()
    built: dict[str, list[str]] = {engine.name: [] for engine in bench.engines}

    def go(engine: Engine) -> None:
        made.add(engine.name)
        flags = ["-q", "-t", "bench:built", *([] if is_cached else ["--no-cache"])]
        built[engine.name].append(engine.docker("build", *flags, context))

    def clear(engine: Engine) -> None:
        engine.docker("rmi", "-f", "bench:built")
        engine.docker("image", "prune", "-f")
        engine.docker("builder", "prune", "-af")
        made.discard(engine.name)

    try:
        values = bench.interleaved(go, None if is_cached else clear, rounds=rounds or max(2, bench.size.rounds // 3))
    finally:
        for engine in bench.engines:
            if engine.name in made:
                clear(engine)
        shutil.rmtree(context)
    for name, images in built.items():  # the same image again is what tells that every step came from the cache
        if len(set(images)) != (1 if is_cached else len(images)):
            raise Missing(f"{name} built {len(set(images))} images in {len(images)} rounds")
    return Result(f"build: {what}, {'all cached' if is_cached else 'cold'}", "ms", values, f"≤ {limit}", below(limit))


def build_run(bench: Bench) -> Result:
    return built(bench, f"{bench.size.steps} RUN steps", run_steps(bench), 0.25)


def build_cached(bench: Bench) -> Result:
    return built(bench, f"{bench.size.steps} RUN steps", run_steps(bench), 1.0, is_cached=True)


def run_steps(bench: Bench) -> str:
    return f"FROM {IMAGE}\n" + "".join(f"RUN echo {number} >/step-{number}\n" for number in range(bench.size.steps))


def build_copy(bench: Bench) -> Result:
    files = bench.size.copied
    return built(bench, f"COPY of {files:,} files", f"FROM {IMAGE}\nCOPY files /files\n", 0.5, files=files)


def build_copy_cached(bench: Bench) -> Result:
    files, text = bench.size.copied, f"FROM {IMAGE}\nCOPY files /files\n"
    return built(bench, f"COPY of {files:,} files", text, 0.6, files=files, is_cached=True)


def build_stages(bench: Bench) -> Result:
    """Stages that only sleep: what is measured is whether they do so at the same time."""
    stages = range(4)
    text = "".join(f"FROM {IMAGE} AS s{each}\nRUN sleep {bench.size.nap} && echo {each} >/s{each}\n" for each in stages)
    text += f"FROM {IMAGE}\n" + "".join(f"COPY --from=s{each} /s{each} /s{each}\n" for each in stages)
    return built(bench, f"four stages that each sleep {bench.size.nap} s", text, 0.35)
