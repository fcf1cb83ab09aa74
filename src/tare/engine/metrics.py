"""What the engine counts of itself and of its containers, for Prometheus.

Counters that are kept are incremented where things happen (`Counters`); all else is read when somebody asks.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from pathlib import Path

from tare import __version__
from tare.aio.threads import in_thread
from tare.base import version
from tare.base.counters import Counters
from tare.base.errors import NotFound
from tare.containers.container import Container, State
from tare.drivers import cgroups, processes
from tare.engine.engine import Engine
from tare.engine.release import cgroup_path
from tare.wire.metrics import Family


async def collect(engine: Engine) -> list[Family]:
    """Every metric now. Reads control groups in a thread."""
    return [*_engine(engine), *_requests(engine.counters), *_process(), *await in_thread(_containers, engine)]


def _engine(engine: Engine) -> list[Family]:
    info = Family("tare_build_info", "gauge", "The engine that answers; always 1.")
    info.add(1, version=__version__, api=version.text(version.API_NEWEST))
    started = Family("tare_start_time_seconds", "gauge", "When the engine started, in seconds since 1970.")
    started.add(engine.settings.started_at / 1e9)
    states = Family("tare_containers", "gauge", "Containers by state.")
    found = Counter(slot.container.state for slot in engine.containers)
    for state in State:
        states.add(found[state], state=state.value)
    images = Family("tare_images", "gauge", "Images.")
    images.add(len(engine.images.list_images({})))
    listeners = Family("tare_event_listeners", "gauge", "Clients that follow the events.")
    listeners.add(engine.events.listeners)
    published = Family("tare_events_total", "counter", "Events published since the start.")
    published.add(engine.events.count)
    return [info, started, states, images, listeners, published]


def _requests(counters: Counters) -> list[Family]:
    asked = Family("tare_http_requests_total", "counter", "Requests by route.")
    took = Family("tare_http_request_duration_seconds", "summary", "Time until the answer began, of those that waited.")
    for (method, path), timed in sorted(counters.routes.items()):
        asked.add(timed.count, method=method, path=path)
        if timed.waited:
            took.add(timed.seconds, "_sum", method=method, path=path)
            took.add(timed.waited, "_count", method=method, path=path)
    failed = Family("tare_http_errors_total", "counter", "Answers that were errors, by status.")
    for status, count in sorted(counters.errors.items()):
        failed.add(count, code=str(status))
    return [asked, took, failed]


def _process() -> list[Family]:
    """The names that every client library of Prometheus uses."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    values = (
        ("process_cpu_seconds_total", "counter", "CPU time of the daemon.", used.ru_utime + used.ru_stime),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory of the daemon.",
            pages * os.sysconf("SC_PAGE_SIZE"),
        ),
        ("process_open_fds", "gauge", "Open descriptors of the daemon.", len(os.listdir("/proc/self/fd")) - 1),
        ("process_max_fds", "gauge", "How many it may open.", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        ("tare_scrape_time_seconds", "gauge", "The clock of the engine.", time.time()),
    )
    found = []
    for name, kind, text, value in values:
        family = Family(name, kind, text)
        family.add(value)
        found.append(family)
    return found


_PER_CONTAINER = {
    "tare_container_info": ("gauge", "What a container is; always 1."),
    "tare_container_running": ("gauge", "Whether it runs."),
    "tare_container_restarts_total": ("counter", "Restarts by its policy since it was last started by somebody."),
    "tare_container_healthy": ("gauge", "1 healthy, 0 not, for those with a health check."),
    "tare_container_oom_killed": ("gauge", "Whether its last end was for want of memory."),
    "tare_container_cpu_seconds_total": ("counter", "CPU time."),
    "tare_container_cpu_throttled_seconds_total": ("counter", "Time it wanted to run and was not let."),
    "tare_container_memory_bytes": ("gauge", "Memory it uses, its page cache included."),
    "tare_container_memory_limit_bytes": ("gauge", "The most it may use, where there is a limit."),
    "tare_container_processes": ("gauge", "Processes and threads."),
    "tare_container_block_bytes_total": ("counter", "Bytes to and from block devices."),
    "tare_container_network_bytes_total": ("counter", "Bytes of its interfaces."),
    "tare_container_network_errors_total": ("counter", "Errors and drops of its interfaces."),
}


def _containers(engine: Engine) -> list[Family]:
    families = {name: Family(name, kind, text) for name, (kind, text) in _PER_CONTAINER.items()}
    for slot in list(engine.containers):
        _container(engine, slot.container, families)
    return list(families.values())


def _container(engine: Engine, container: Container, families: dict[str, Family]) -> None:
    name = container.name

    def add(what: str, value: float, **labels: str) -> None:
        families[f"tare_container_{what}"].add(value, name=name, **labels)

    add("info", 1, id=container.id, image=container.image_reference, image_id=container.image_id)
    add("running", container.is_running)
    add("restarts_total", container.restart_count)
    add("oom_killed", container.is_oom_killed)
    if container.health is not None:
        add("healthy", container.health.status == "healthy")
    if not container.is_running or container.process is None:
        return
    try:
        read = cgroups.read_stats(engine.cgroups, cgroup_path(container))
    except NotFound:  # it ended this instant
        return
    add("cpu_seconds_total", read.cpu.total_nanos / 1e9)
    add("cpu_throttled_seconds_total", read.cpu.throttled_nanos / 1e9)
    add("memory_bytes", read.memory.usage_bytes)
    if read.memory.limit_bytes is not None:
        add("memory_limit_bytes", read.memory.limit_bytes)
    add("processes", read.pids.current)
    moved: Counter[str] = Counter()
    for entry in read.block_bytes:
        moved[entry.operation.lower()] += entry.value
    for operation in ("read", "write"):
        add("block_bytes_total", moved[operation], operation=operation)
    if container.host_config.NetworkMode == "host":
        return
    for interface, traffic in processes.traffic(container.process.pid).items():
        add("network_bytes_total", traffic.rx_bytes, interface=interface, direction="receive")
        add("network_bytes_total", traffic.tx_bytes, interface=interface, direction="transmit")
        add("network_errors_total", traffic.rx_errors + traffic.rx_dropped, interface=interface, direction="receive")
        add("network_errors_total", traffic.tx_errors + traffic.tx_dropped, interface=interface, direction="transmit")
