"""Containers: start to end, logs, lists, memory, the command line."""

from __future__ import annotations

import statistics
import sys
import time

from benching.bench import IMAGE, Bench, Result, above, below
from benching.engines import MIB, PYTHON, ROOT, Engine, Missing, rate, request, run, send


def run_bridge(bench: Bench) -> Result:
    values = bench.interleaved(lambda engine: engine.docker("run", "--rm", IMAGE, "true"))
    return Result("run --rm IMAGE true, bridge", "ms", values, "≤ 0.25", below(0.25))


def run_none(bench: Bench) -> Result:
    values = bench.interleaved(lambda engine: engine.docker("run", "--rm", "--net", "none", IMAGE, "true"))
    return Result("run --rm IMAGE true, --net none", "ms", values, "≤ 0.25", below(0.25))


def logs(bench: Bench) -> Result:
    line = "x" * 99
    script = f"yes {line} | head -c {bench.size.log_mib * MIB}"
    with bench.containers("bench-logs", "sh", "-c", script, is_started=True):
        target = "/containers/bench-logs/logs?stdout=1&stderr=1"
        sizes: dict[str, int] = {}

        def go(engine: Engine) -> None:
            status, body = request(engine.socket, target)
            assert status == 200
            sizes[engine.name] = body.count(b"x") // 99 * 100

        took = bench.interleaved(go, rounds=3)
    for name, size in sizes.items():
        if size < bench.size.log_mib * MIB * 0.99:
            raise Missing(f"{name} gave {size} bytes of its log")
    values = {name: sizes[name] / MIB / (ms / 1000) for name, ms in took.items()}
    return Result(f"logs of {bench.size.log_mib} MiB by the API", "MiB/s", values, "≥ 3", above(3), is_rate=True)


def list_(bench: Bench) -> Result:
    for engine in bench.engines:
        for number in range(bench.size.containers):
            body = {"Image": IMAGE, "Cmd": ["true"], "Labels": {"number": str(number)}}
            send(engine.socket, "/containers/create", body)
    try:
        rounds: dict[str, list[float]] = {engine.name: [] for engine in bench.engines}
        for _ in range(3):
            for engine in bench.engines:
                rounds[engine.name].append(rate(engine.socket, "/containers/json?all=1", bench.size.seconds))
    finally:
        for engine in bench.engines:
            engine.docker("container", "prune", "-f", "--filter", "label=number")
    values = {name: statistics.median(found) for name, found in rounds.items()}
    text = f"GET /containers/json?all=1, {bench.size.containers} containers"
    return Result(text, "1/s", values, "≥ 10", above(10), is_rate=True)


def memory_rest(bench: Bench) -> Result:
    """Of engines that have done nothing yet but import: this item comes first."""
    values = {engine.name: engine.memory()[0] for engine in bench.engines}
    return Result("resident at rest, helpers counted", "MiB", values, "≤ 70 MiB", lambda ours, _: ours <= 70)


def memory_container(bench: Bench) -> Result:
    values: dict[str, float] = {}
    for engine in bench.engines:
        names = [f"bench-run-{number}" for number in range(bench.size.running + 1)]
        try:
            engine.docker("run", "-d", "--name", names[0], IMAGE, "sleep", "1000")
            before = engine.memory()[1]
            for name in names[1:]:
                engine.docker("run", "-d", "--name", name, IMAGE, "sleep", "1000")
            values[engine.name] = (engine.memory()[1] - before) / bench.size.running
        finally:
            engine.docker("rm", "-f", *names)
    return Result(
        "memory (PSS) of a further container, helpers counted", "MiB", values, "≤ 1 MiB", lambda ours, _: ours <= 1
    )


def ps(bench: Bench) -> Result:
    """Both command lines against tare: `dockerd` stands for `docker ps` here."""
    tare = next(engine for engine in bench.engines if engine.name == "tare")
    site = next(path for path in sys.path if path.endswith("site-packages"))
    code = f"import sys; sys.path[:0] = [{str(ROOT / 'src')!r}, {site!r}]; from tare.cli.__main__ import main; sys.exit(main())"
    ours = [str(PYTHON), "-IS", "-c", code, "-H", f"unix://{tare.socket}", "ps"]
    times: dict[str, list[float]] = {"tare": [], "dockerd": []}
    with bench.containers("bench-ps", "sleep", "1000", is_started=True, is_awaited=False):
        for number in range(3 * bench.size.rounds + 1):
            for name, argv in (("tare", ours), ("dockerd", ["docker", "-H", f"unix://{tare.socket}", "ps"])):
                started = time.perf_counter()
                run(*argv)
                if number:
                    times[name].append((time.perf_counter() - started) * 1000)
    values = {name: statistics.median(found) for name, found in times.items()}
    return Result("`tare ps` beside `docker ps`, same engine", "ms", values, "≤ 2", below(2))
