"""What processes do, told by the host: the table of `ps`, the counters of processors and network interfaces."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from tare.aio import proc
from tare.base.errors import InvalidArgument, Unavailable

_LIMIT = 16 * 1024 * 1024
_PS = "/bin/ps"


async def table(arguments: Sequence[str], pids: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of `ps arguments` for these processes, the last column whole.

    Raises InvalidArgument with the words of ps, or when its output has no PID column; Unavailable without ps.
    """
    if not os.path.exists(_PS):
        raise Unavailable("ps is not installed on the host", hint="apt-get install procps")
    if not pids:
        return parse(await _run(arguments), pids)
    try:
        text = await _run([*arguments, "-q", ",".join(map(str, pids))])
    except InvalidArgument:  # some options cannot be had together with a list of processes
        text = await _run(arguments)
    return parse(text, pids)


async def _run(arguments: Sequence[str]) -> str:
    out, errors = os.memfd_create("ps"), os.memfd_create("ps errors")
    try:
        child = proc.start([_PS, *arguments], stdout=out, stderr=errors)
        try:
            status = await proc.wait(child)
        except BaseException:
            child.kill()
            child.wait()
            raise
        words = os.pread(errors, 4096, 0).decode("utf-8", "replace").strip()
        text = os.pread(out, _LIMIT, 0).decode("utf-8", "replace")
    finally:
        os.close(out)
        os.close(errors)
    if status != 0 and (words or not text):
        raise InvalidArgument(f"ps: {words.splitlines()[0] if words else 'failed'}")
    return text


def parse(text: str, pids: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """The rows whose PID is among `pids`. A thread's row (PID `-`) goes with the process above it."""
    lines = [line for line in text.splitlines() if line.strip()]
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    place, wanted = titles.index("PID"), {str(pid) for pid in pids}
    rows: list[list[str]] = []
    is_ours = False
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) <= place:
            continue
        if fields[place] != "-":
            is_ours = fields[place] in wanted
        if is_ours:
            rows.append([field.rstrip() for field in fields])
    return titles, rows


class Traffic(Struct, frozen=True, kw_only=True):
    """Counters of one interface since it was made."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


def parse_net_dev(text: str) -> dict[str, Traffic]:
    """/proc/PID/net/dev without the loopback. Source: proc(5)."""
    found: dict[str, Traffic] = {}
    for line in text.splitlines():
        name, colon, counters = line.partition(":")
        fields = counters.split()
        if not colon or len(fields) < 12 or name.strip() == "lo":
            continue
        numbers = [int(field) for field in fields]
        found[name.strip()] = Traffic(
            rx_bytes=numbers[0],
            rx_packets=numbers[1],
            rx_errors=numbers[2],
            rx_dropped=numbers[3],
            tx_bytes=numbers[8],
            tx_packets=numbers[9],
            tx_errors=numbers[10],
            tx_dropped=numbers[11],
        )
    return found


def traffic(pid: int) -> dict[str, Traffic]:
    """Interfaces of the network that a process is in; none when it is gone."""
    try:
        return parse_net_dev(Path(f"/proc/{pid}/net/dev").read_text())
    except OSError:
        return {}


def parse_cpu_line(text: str, ticks_per_second: int) -> int:
    """Nanoseconds all processors spent so far, from the first line of /proc/stat: user to steal, guests are in user."""
    fields = text.split("\n", 1)[0].split()
    return sum(int(field) for field in fields[1:9]) * (1_000_000_000 // ticks_per_second)


def system_cpu_nanos() -> int:
    """The same, now."""
    return parse_cpu_line(Path("/proc/stat").read_text(), os.sysconf("SC_CLK_TCK"))
