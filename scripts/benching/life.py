"""The life of containers: exec, stop, many at once, streams, the daemon's restart, readers that never read."""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from urllib.parse import quote

from benching.bench import IMAGE, Bench, Result, above, below
from benching.engines import MIB, Engine, Missing, hijack, rate_of_same, request, send

OBEDIENT = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"]
LINE = "x" * 99


def exec_(bench: Bench) -> Result:
    """By the API: create, start attached, read to the end, ask for the exit code."""

    def go(engine: Engine) -> None:
        made = json.loads(send(engine.socket, "/containers/bench-life/exec", {"Cmd": ["true"], "AttachStdout": True}))
        with hijack(engine.socket, f"/exec/{made['Id']}/start", {"Detach": False}) as stream:
            while stream.recv(65536):
                pass
        found = json.loads(request(engine.socket, f"/exec/{made['Id']}/json")[1])
        if found["ExitCode"] != 0:
            raise Missing(f"{engine.name}: exec ended with {found['ExitCode']}")

    with bench.containers("bench-life", "sleep", "1000", is_started=True, is_awaited=False):
        values = bench.interleaved(go)
    return Result("exec true, by the API", "ms", values, "≤ 0.3", below(0.3))


def stop(bench: Bench) -> Result:
    with bench.containers("bench-life", *OBEDIENT):
        values = bench.interleaved(
            lambda engine: send(engine.socket, "/containers/bench-life/stop"),
            before=lambda engine: started_obedient(engine, "bench-life"),
        )
    return Result("stop of a program that obeys TERM", "ms", values, "≤ 0.5", below(0.5))


def started_obedient(engine: Engine, name: str) -> None:
    """Start it and wait until its shell has set the trap: it has a child then."""
    send(engine.socket, f"/containers/{name}/start")
    deadline = time.monotonic() + 10
    while len(json.loads(request_body(engine, f"/containers/{name}/top"))["Processes"]) < 2:
        if time.monotonic() > deadline:
            raise Missing(f"{engine.name}: {name} did not come up")
        time.sleep(0.01)


def request_body(engine: Engine, target: str) -> bytes:
    return send(engine.socket, target, method="GET")


# --- many at once


def by_eight(work: Callable[[int], object], count: int) -> None:
    """Do it `count` times by eight clients; the first failure is raised."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(count)))


def created_crowd(bench: Bench, engine: Engine) -> None:
    for number in range(bench.size.crowd):
        send(engine.socket, f"/containers/create?name=bench-crowd-{number}", {"Image": IMAGE, "Cmd": ["sleep", "1000"]})


def started_crowd(bench: Bench, engine: Engine) -> None:
    by_eight(lambda number: send(engine.socket, f"/containers/bench-crowd-{number}/start"), bench.size.crowd)


def removed_crowd(bench: Bench, engine: Engine) -> None:
    target = "/containers/bench-crowd-{}?force=1"
    by_eight(lambda number: send(engine.socket, target.format(number), method="DELETE"), bench.size.crowd)


def start_crowd(bench: Bench) -> Result:
    values = bench.interleaved(
        lambda engine: started_crowd(bench, engine),
        lambda engine: removed_crowd(bench, engine),
        before=lambda engine: created_crowd(bench, engine),
        rounds=max(2, bench.size.rounds // 3),
    )
    each = {name: ms / bench.size.crowd for name, ms in values.items()}
    return Result(f"start of {bench.size.crowd} containers by 8 clients, each", "ms", each, "≤ 0.3", below(0.3))


def remove_crowd(bench: Bench) -> Result:
    def prepare(engine: Engine) -> None:
        created_crowd(bench, engine)
        started_crowd(bench, engine)

    values = bench.interleaved(
        lambda engine: removed_crowd(bench, engine), before=prepare, rounds=max(2, bench.size.rounds // 3)
    )
    return Result(f"rm -f of {bench.size.crowd} running by 8 clients", "ms", values, "≤ 0.4", below(0.4))


# --- streams


def attach(bench: Bench) -> Result:
    """The output of a container from its start to its end, by a client attached before; the default log is kept beside."""
    size = bench.size.stream_mib * MIB
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", f"yes {LINE} | head -c {size}"], "AttachStdout": True}

    def prepare(engine: Engine) -> None:
        send(engine.socket, "/containers/create?name=bench-life", body)

    def go(engine: Engine) -> None:
        with hijack(engine.socket, "/containers/bench-life/attach?stream=1&stdout=1&stderr=1") as stream:
            send(engine.socket, "/containers/bench-life/start")
            drained(stream, size, engine)

    took = bench.interleaved(
        go,
        lambda engine: send(engine.socket, "/containers/bench-life?force=1", method="DELETE"),
        before=prepare,
        rounds=3,
    )
    values = {name: bench.size.stream_mib / (ms / 1000) for name, ms in took.items()}
    return Result(f"attach, {bench.size.stream_mib} MiB of output", "MiB/s", values, "≥ 1.5", above(1.5), is_rate=True)


def drained(stream: socket.socket, size: int, engine: Engine) -> None:
    """Read to the end; frames' headers come on top of `size`."""
    found, buffer = 0, bytearray(1 << 20)
    while got := stream.recv_into(buffer):
        found += got
    if not size <= found <= size * 1.5:
        raise Missing(f"{engine.name} gave {found} bytes for {size}")


def exec_pipe(bench: Bench) -> Result:
    """What is written to an exec'd cat comes back."""
    size = bench.size.stream_mib * MIB
    data = (LINE.encode() + b"\n") * (MIB // 100)

    def go(engine: Engine) -> None:
        asked = {"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True}
        made = json.loads(send(engine.socket, "/containers/bench-life/exec", asked))
        with hijack(engine.socket, f"/exec/{made['Id']}/start", {"Detach": False}) as stream:
            sent = [0]

            def write() -> None:
                while sent[0] < size:
                    stream.sendall(data)
                    sent[0] += len(data)
                stream.shutdown(socket.SHUT_WR)

            writer = threading.Thread(target=write)
            writer.start()
            drained(stream, size, engine)
            writer.join()

    with bench.containers("bench-life", "sleep", "1000", is_started=True, is_awaited=False):
        took = bench.interleaved(go, rounds=3)
    values = {name: bench.size.stream_mib / (ms / 1000) for name, ms in took.items()}
    return Result(
        f"exec cat, {bench.size.stream_mib} MiB there and back", "MiB/s", values, "≥ 1.5", above(1.5), is_rate=True
    )


# --- rates


def ping(bench: Bench) -> Result:
    return Result("GET /_ping", "1/s", rates(bench, "/_ping"), "≥ 1.0", above(1.0), is_rate=True)


def inspect(bench: Bench) -> Result:
    with bench.containers("bench-life", "sleep", "1000", is_started=True, is_awaited=False):
        values = rates(bench, "/containers/bench-life/json")
    return Result("GET /containers/NAME/json", "1/s", values, "≥ 1.0", above(1.0), is_rate=True)


def rates(bench: Bench, target: str) -> dict[str, float]:
    """Medians of three rounds, the engines in turn."""
    found: dict[str, list[float]] = {engine.name: [] for engine in bench.engines}
    for _ in range(3):
        for engine in bench.engines:
            found[engine.name].append(rate_of_same(engine.socket, target, bench.size.seconds))
    return {name: statistics.median(values) for name, values in found.items()}


# --- the daemon


def restart(bench: Bench) -> Result:
    """SIGTERM until a list of all containers is answered, with many that do not run."""
    for engine in bench.engines:
        for number in range(bench.size.asleep):
            send(
                engine.socket,
                "/containers/create",
                {"Image": IMAGE, "Cmd": ["true"], "Labels": {"number": str(number)}},
            )

    def go(engine: Engine) -> None:
        engine.end()
        engine.launch()
        answered(engine, bench.size.asleep)

    try:
        values = bench.interleaved(go, rounds=max(2, bench.size.rounds // 3))
    finally:
        for engine in bench.engines:
            engine.docker("container", "prune", "-f", "--filter", "label=number")
    return Result(f"restart of the daemon, {bench.size.asleep} stopped containers", "ms", values, "≤ 0.7", below(0.7))


def answered(engine: Engine, count: int) -> None:
    labelled = quote(json.dumps({"label": ["number"]}))
    found = len(json.loads(request_body(engine, f"/containers/json?all=1&filters={labelled}")))
    if found != count:
        raise Missing(f"{engine.name} lists {found} containers of {count}")


def restart_running(bench: Bench) -> Result:
    """Tare alone: from the start of the daemon until a list that says that all of them run is answered."""
    tare = next(engine for engine in bench.engines if engine.name == "tare")
    times: list[float] = []
    created_crowd(bench, tare)
    try:
        started_crowd(bench, tare)
        for _ in range(max(3, bench.size.rounds // 3)):
            tare.end()
            begun = time.perf_counter()
            tare.launch()
            running = [
                entry
                for entry in json.loads(request_body(tare, "/containers/json"))
                if "bench-crowd" in entry["Names"][0]
            ]
            times.append((time.perf_counter() - begun) * 1000)
            if len(running) != bench.size.crowd:
                raise Missing(f"{len(running)} of {bench.size.crowd} containers run after a restart")
    finally:
        removed_crowd(bench, tare)
    values = {"tare": statistics.median(times)}
    text = f"start of the daemon with {bench.size.crowd} running containers until they are listed"
    return Result(text, "ms", values, "≤ 1,000 ms", lambda ours, _: ours <= 1000)


@contextmanager
def deaf_readers(engine: Engine, count: int) -> Iterator[None]:
    """Clients that ask for events and never read what comes; returns when the engine counts them all."""

    def known() -> int:
        return int(json.loads(request(engine.socket, "/info")[1])["NEventsListener"])

    with ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(engine.socket))
            connection.sendall(b"GET /events HTTP/1.1\r\nHost: bench\r\n\r\n")
        while known() < count:
            time.sleep(0.01)
        yield
    while known() > 0:
        time.sleep(0.01)


def deaf_events(bench: Bench) -> Result:
    """Tare alone: create and remove with ten deaf readers of events, and without, in turn. Each makes two events."""
    tare = next(engine for engine in bench.engines if engine.name == "tare")

    def cycle() -> float:
        begun = time.perf_counter()
        for _ in range(20):
            made = json.loads(send(tare.socket, "/containers/create", {"Image": IMAGE, "Cmd": ["true"]}))
            send(tare.socket, f"/containers/{made['Id']}", method="DELETE")
        return time.perf_counter() - begun

    alone: list[float] = []
    beside: list[float] = []
    cycle()
    for _ in range(3 * bench.size.rounds):
        alone.append(cycle())
        with deaf_readers(tare, 10):
            beside.append(cycle())
    values = {"tare": 100 * (statistics.median(beside) / statistics.median(alone) - 1)}
    return Result(
        "create and rm beside ten event readers that never read: more time",
        "%",
        values,
        "≤ 5 %",
        lambda ours, _: ours <= 5,
    )
