"""What a bridge costs, and changes of networks while containers run: requests to the API, timed one by one."""

from __future__ import annotations

import os
import statistics
import time

from benching.bench import IMAGE, Bench, Result
from benching.engines import Engine, send


def bridge_cost(bench: Bench) -> Result:
    return cost_of_a_bridge(bench, "what a bridge adds to a start", bench.engines)


def bridge_cost_networks(bench: Bench) -> Result:
    """The same while there are many networks; tare alone: dockerd has 31 subnets to give, and 100 ms for each."""
    tare = bench.engines[0]
    try:
        for number in range(bench.size.networks):
            make_network(tare, number)
        what = f"what a bridge adds to a start, {bench.size.networks} networks there"
        return cost_of_a_bridge(bench, what, [tare])
    finally:
        send(tare.socket, "/networks/prune")


def bridge_cost_endpoints(bench: Bench) -> Result:
    """The same while running containers have many interfaces: each is on twenty networks; tare alone."""
    tare, each = bench.engines[0], 20
    names = [f"bench-end-{number}" for number in range(-(-bench.size.endpoints // each))]
    try:
        for number in range(each - 1):
            make_network(tare, number)
        for name in names:
            tare.docker("run", "-d", "--stop-timeout", "0", "--name", name, IMAGE, "sleep", "1000")
            for number in range(each - 1):
                send(tare.socket, f"/networks/bench-many-{number}/connect", {"Container": name})
        what = f"{len(names) * each} endpoints of {len(names)} running containers there"
        return cost_of_a_bridge(bench, f"what a bridge adds to a start, {what}", [tare])
    finally:
        tare.docker("rm", "-f", *names)
        send(tare.socket, "/networks/prune")


def make_network(engine: Engine, number: int) -> None:
    subnet = f"10.{200 + number // 256}.{number % 256}.0/24"
    send(engine.socket, "/networks/create", {"Name": f"bench-many-{number}", "IPAM": {"Config": [{"Subnet": subnet}]}})


def cost_of_a_bridge(bench: Bench, what: str, engines: list[Engine]) -> Result:
    """Start with a bridge minus start without a network, medians of turns."""
    times: dict[tuple[str, str], list[float]] = {(e.name, mode): [] for e in engines for mode in ("bridge", "none")}
    for number in range(3 * bench.size.rounds + 1):
        for engine in engines:
            for mode in ("bridge", "none"):
                engine.docker("create", "--name", "bench-cost", "--net", mode, IMAGE, "true")
                os.sync()
                started = time.perf_counter()
                send(engine.socket, "/containers/bench-cost/start")
                took = (time.perf_counter() - started) * 1000
                engine.docker("wait", "bench-cost")
                engine.docker("rm", "bench-cost")
                if number:
                    times[engine.name, mode].append(took)
    values = {
        e.name: statistics.median(times[e.name, "bridge"]) - statistics.median(times[e.name, "none"]) for e in engines
    }
    return Result(what, "ms", values, "≤ 12 ms", lambda ours, _: ours <= 12)


def connect(bench: Bench) -> Result:
    return connection(bench, "connect")


def disconnect(bench: Bench) -> Result:
    return connection(bench, "disconnect")


def connection(bench: Bench, word: str) -> Result:
    """One running container, plugged into a second network and out of it again."""
    times: dict[str, list[float]] = {engine.name: [] for engine in bench.engines}
    try:
        for engine in bench.engines:
            engine.docker("network", "create", "bench-second")
            engine.docker("run", "-d", "--name", "bench-net", IMAGE, "sleep", "1000")
        for _ in range(2 * bench.size.rounds + 1):
            for engine in bench.engines:
                for each in ("connect", "disconnect"):
                    started = time.perf_counter()
                    send(engine.socket, f"/networks/bench-second/{each}", {"Container": "bench-net"})
                    if each == word:
                        times[engine.name].append((time.perf_counter() - started) * 1000)
    finally:
        for engine in bench.engines:
            engine.docker("rm", "-f", "bench-net")
            engine.docker("network", "rm", "bench-second")
    values = {name: statistics.median(found[1:]) for name, found in times.items()}
    return Result(f"network {word} of a running container", "ms", values, "≤ 20 ms", lambda ours, _: ours <= 20)
