"""`tare stats`: processor, memory and traffic of containers."""

from __future__ import annotations

import sys
import time

from tare.cli import exit as exits
from tare.cli import flags, human, listing
from tare.cli.ps import FORMAT
from tare.client.errors import ApiError
from tare.client.http import Client, percent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.context import Context
    from tare.cli.listing import Item

COLUMNS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")


def cpu_percent(sample: dict[str, Any]) -> float:
    """Percent of one processor between the two readings of a sample."""
    before, now = sample.get("precpu_stats") or {}, sample.get("cpu_stats") or {}
    used = _total(now) - _total(before)
    system = (now.get("system_cpu_usage") or 0) - (before.get("system_cpu_usage") or 0)
    online = now.get("online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or []) or 0
    return used / system * online * 100.0 if used > 0 and system > 0 else 0.0


def _total(cpu: dict[str, Any]) -> int:
    return int((cpu.get("cpu_usage") or {}).get("total_usage") or 0)


def memory_used(memory: dict[str, Any]) -> int:
    """Bytes in use without the page cache that can be dropped at once."""
    details, usage = memory.get("stats") or {}, int(memory.get("usage") or 0)
    cache = details.get("total_inactive_file", details.get("inactive_file"))
    return usage - cache if isinstance(cache, int) and cache < usage else usage


def row_of(sample: dict[str, Any], name: str) -> Item:
    """One line of the table from one sample."""
    memory = sample.get("memory_stats") or {}
    used, limit = memory_used(memory), int(memory.get("limit") or 0)
    networks = (sample.get("networks") or {}).values()
    received, sent = (sum(int(n.get(key) or 0) for n in networks) for key in ("rx_bytes", "tx_bytes"))
    read = written = 0
    for entry in (sample.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []:
        operation = str(entry.get("op", "")).lower()[:1]
        read += int(entry.get("value") or 0) if operation == "r" else 0
        written += int(entry.get("value") or 0) if operation == "w" else 0
    return {
        "Container": name,
        "Name": str(sample.get("name") or "").removeprefix("/"),
        "ID": str(sample.get("id") or ""),
        "CPUPerc": f"{cpu_percent(sample):.2f}%",
        "MemUsage": f"{human.binary_size(used)} / {human.binary_size(limit)}",
        "MemPerc": f"{used / limit * 100.0 if limit else 0.0:.2f}%",
        "NetIO": f"{human.size(received, digits=3)} / {human.size(sent, digits=3)}",
        "BlockIO": f"{human.size(read, digits=3)} / {human.size(written, digits=3)}",
        "PIDs": str((sample.get("pids_stats") or {}).get("current") or 0),
    }


def _kind(*, full: bool) -> listing.Kind:
    headings = {
        "Container": "CONTAINER",
        "Name": "NAME",
        "CPUPerc": "CPU %",
        "MemUsage": "MEM USAGE / LIMIT",
        "MemPerc": "MEM %",
        "NetIO": "NET I/O",
        "BlockIO": "BLOCK I/O",
        "PIDs": "PIDS",
    }
    fields: dict[str, listing.Field] = {
        "ID": ("CONTAINER ID", lambda r: r["ID"] if full else listing.short_id(r["ID"]))
    }
    for key, heading in headings.items():
        fields[key] = (heading, lambda r, key=key: r[key])  # type: ignore[misc]
    return listing.Kind("*container.statsContext", fields)


class _Sampler:
    """The newest sample of one container, renewed by a thread of its own while streaming."""

    def __init__(self, client: Client, name: str) -> None:
        self.name = name
        self.row: Item | None = None
        self.gone = False
        self._client = Client(client.host, version=client.negotiate())

    def once(self) -> None:
        """Take one sample. Raises ApiError."""
        query = {"stream": "0"}
        sample = self._client.get(f"/containers/{percent(self.name)}/stats", query=query)
        if isinstance(sample, dict):
            self.row = row_of(sample, self.name)
        self._client.close()

    def follow(self) -> None:
        """Take samples until the container is removed."""
        try:
            answer = self._client.request("GET", f"/containers/{percent(self.name)}/stats", query={"stream": True})
            for sample in answer.documents():
                if isinstance(sample, dict):
                    self.row = row_of(sample, self.name)
        except Exception:  # the engine or the container went away: the line disappears
            self.gone = True
        self.gone = True


def _names(context: Context, *, everything: bool) -> list[str]:
    found = context.client.get("/containers/json", query={"all": everything})
    return [listing.short_id(str(c["Id"])) for c in found if isinstance(c, dict)] if isinstance(found, list) else []


def _stats(context: Context, options: flags.Options, operands: list[str]) -> int:
    import threading

    names = operands or _names(context, everything=options.on("all"))
    samplers = [_Sampler(context.client, name) for name in names]
    if options.on("no-stream"):
        return _once(context, options, samplers)
    for name in operands:
        context.client.get(f"/containers/{percent(name)}/json")
    threads: dict[str, _Sampler] = {}

    def begin(sampler: _Sampler) -> None:
        threads[sampler.name] = sampler
        threading.Thread(target=sampler.follow, daemon=True).start()

    for sampler in samplers:
        begin(sampler)
    while True:
        _show(context, options, [s.row for s in threads.values() if s.row is not None], clear=context.is_terminal)
        sys.stdout.flush()
        time.sleep(0.5 if context.is_terminal else 1.0)
        if operands:
            if all(sampler.gone for sampler in threads.values()):
                return exits.OK
            continue
        current = _names(context, everything=options.on("all"))
        for name in [name for name in threads if name not in current]:
            del threads[name]
        for name in current:
            if name not in threads:
                begin(_Sampler(context.client, name))


def _once(context: Context, options: flags.Options, samplers: list[_Sampler]) -> int:
    import threading

    failures: list[str] = []

    def take(sampler: _Sampler) -> None:
        try:
            sampler.once()
        except ApiError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=take, args=(sampler,)) for sampler in samplers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise exits.Exit(exits.FAILED, "\n".join(failures))
    _show(context, options, [s.row for s in samplers if s.row is not None], clear=False)
    return exits.OK


def _show(context: Context, options: flags.Options, rows: list[Item], *, clear: bool) -> None:
    if clear:
        context.out("\033[H\033[J")
    kind = _kind(full=options.on("no-trunc"))
    listing.show(context, kind, rows, columns=COLUMNS, layout=options.text("format"))


STATS = flags.Command(
    _stats,
    "Show the processor, memory and traffic of containers",
    operands="[CONTAINER...]",
    most=None,
    flags=(
        flags.Flag("all", "a", flags.BOOL, "Show stopped containers too"),
        FORMAT,
        flags.Flag("no-stream", "", flags.BOOL, "Print once and leave"),
        flags.Flag("no-trunc", "", flags.BOOL, "Do not shorten ids"),
    ),
)
