"""Networks: server and client are the same programs for both engines, led into the network wanted."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benching.bench import IMAGE, Bench, Result, above
from benching.engines import PYTHON, Engine, run, send

_SERVER = """
import socket, sys
server = socket.create_server(("0.0.0.0", 80), backlog=1024)
print(flush=True)
data = bytes(1 << 20)
while True:
    connection, _ = server.accept()
    try:
        while sys.argv[1] == "bytes":
            connection.sendall(data)
    except OSError:
        pass
    connection.close()
"""
_CLIENT = """
import socket, sys, time
end = time.monotonic() + float(sys.argv[2])
count, size, started = 0, 0, time.monotonic()
if sys.argv[1] == "bytes":
    with socket.create_connection((sys.argv[3], int(sys.argv[4]))) as connection:
        while time.monotonic() < end:
            size += len(connection.recv(1 << 20))
    print(size / (1 << 20) / (time.monotonic() - started))
else:
    while time.monotonic() < end:
        with socket.create_connection((sys.argv[3], int(sys.argv[4]))) as connection:
            assert connection.recv(1) == b""
        count += 1
    print(count / (time.monotonic() - started))
"""
_ASKER = """
import socket, sys, time
question = b"\\x12\\x34\\x01\\0\\0\\1\\0\\0\\0\\0\\0\\0" + b"\\x0bbench-asked\\0" + b"\\0\\1\\0\\1"
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asker.connect(("127.0.0.11", 53))
asker.settimeout(2)
end, took = time.monotonic() + float(sys.argv[1]), []
while (now := time.monotonic()) < end:
    asker.send(question)
    assert asker.recv(512)[7] == 1
    took.append(time.monotonic() - now)
print(len(took) / sum(took), sorted(took)[len(took) * 99 // 100] * 1000)
"""


@contextmanager
def served(engine: Engine, kind: str) -> Iterator[None]:
    """A container with port 80 published at 127.0.0.1:18080 and a server in its network."""
    name = "bench-net"
    engine.docker("run", "-d", "--name", name, "-p", "127.0.0.1:18080:80", IMAGE, "sleep", "1000")
    try:
        pid = engine.docker("inspect", "-f", "{{.State.Pid}}", name)
        argv = ["nsenter", f"--net=/proc/{pid}/ns/net", str(PYTHON), "-IS", "-c", _SERVER, kind]
        server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None
            server.stdout.readline()
            yield
        finally:
            server.kill()
            server.communicate()
    finally:
        engine.docker("rm", "-f", name)


def measured(bench: Bench, kind: str) -> dict[str, float]:
    """What the client counts in a second, the median of three rounds."""
    rounds: dict[str, list[float]] = {engine.name: [] for engine in bench.engines}
    for _ in range(3):
        for engine in bench.engines:
            with served(engine, kind):
                found = counted(bench, engine.inside, kind, "127.0.0.1", "18080")
            rounds[engine.name].append(found)
    return {name: statistics.median(found) for name, found in rounds.items()}


def counted(bench: Bench, inside: Sequence[str], kind: str, address: str, port: str) -> float:
    """What a client counts in a second. inside: the words that lead it into its network."""
    return float(run(*inside, PYTHON, "-IS", "-c", _CLIENT, kind, str(bench.size.seconds), address, port).stdout)


def neighbour_bytes(bench: Bench) -> Result:
    """From one container of the default bridge to another, in turns: from one time to the next it differs by a fifth."""
    rounds: dict[str, list[float]] = {engine.name: [] for engine in bench.engines}
    with ExitStack() as stack:
        places = {}
        for engine in bench.engines:
            stack.enter_context(served(engine, "bytes"))
            address = engine.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "bench-net")
            engine.docker("run", "-d", "--name", "bench-client", IMAGE, "sleep", "1000")
            stack.callback(engine.docker, "rm", "-f", "bench-client")
            pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "bench-client")
            places[engine.name] = (("nsenter", f"--net=/proc/{pid}/ns/net"), address)
        for number in range(2 * bench.size.rounds):
            for name in sorted(places, reverse=bool(number % 2)):
                inside, address = places[name]
                rounds[name].append(counted(bench, inside, "bytes", address, "80"))
    values = {name: statistics.median(found) for name, found in rounds.items()}
    return Result("bytes from container to container", "MiB/s", values, "≥ 1.0", above(1.0), is_rate=True)


def port_connections(bench: Bench) -> Result:
    return Result(
        "new connections to a port published at 127.0.0.1",
        "1/s",
        measured(bench, "connections"),
        "≥ 1.3",
        above(1.3),
        is_rate=True,
    )


def port_bytes(bench: Bench) -> Result:
    return Result(
        "bytes from a port published at 127.0.0.1", "MiB/s", measured(bench, "bytes"), "≥ 1.0", above(1.0), is_rate=True
    )


def names(bench: Bench) -> Result:
    """One container asks for the address of another, one question after the other."""
    values: dict[str, float] = {}
    worst: dict[str, float] = {}
    for engine in bench.engines:
        engine.docker("network", "create", "bench-names")
        try:
            for name in ("bench-net", "bench-asked"):
                engine.docker("run", "-d", "--name", name, "--network", "bench-names", IMAGE, "sleep", "1000")
            pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "bench-net")
            done = run("nsenter", f"--net=/proc/{pid}/ns/net", PYTHON, "-IS", "-c", _ASKER, str(bench.size.seconds))
            values[engine.name], worst[engine.name] = map(float, done.stdout.split())
        finally:
            engine.docker("rm", "-f", "bench-net", "bench-asked")
            engine.docker("network", "rm", "bench-names")
    text = "look-ups of a name by one container (p99 " + ", ".join(f"{n} {ms:.1f} ms" for n, ms in worst.items()) + ")"
    return Result(text, "1/s", values, "≥ 1,000/s", lambda ours, _: ours >= 1000, is_rate=True)


def port_change(bench: Bench) -> Result:
    """Tare alone: a port of a running container is published and taken back."""
    tare = next(engine for engine in bench.engines if engine.name == "tare")
    times: list[float] = []
    tare.docker("run", "-d", "--name", "bench-net", IMAGE, "sleep", "1000")
    try:
        for number in range(4 * bench.size.rounds):
            word = "Remove" if number % 2 else "Add"
            body = {word: {"80/tcp": [{"HostPort": "18080"}]}}
            started = time.perf_counter()
            send(tare.socket, "/tare/v1/containers/bench-net/ports", body)
            times.append((time.perf_counter() - started) * 1000)
    finally:
        tare.docker("rm", "-f", "bench-net")
    values = {"tare": statistics.median(times)}
    return Result(
        "a port published or taken back while the container runs", "ms", values, "≤ 20 ms", lambda ours, _: ours <= 20
    )
