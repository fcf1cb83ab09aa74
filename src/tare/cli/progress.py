"""Progress of pull, push, load and import: Docker's lines, and bars when a person watches.

Source: the message format is ENGINE-API note W53.
"""

from __future__ import annotations

import sys

from tare.cli import exit as exits
from tare.cli.listing import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TextIO

    from tare.client.gojson import Json


def line_of(message: dict[str, Any]) -> str:
    """One message as the line printed where no terminal is; "" for pure progress."""
    detail = message.get("progressDetail") or {}
    if message.get("stream"):
        return str(message["stream"])
    if detail.get("current") or detail.get("total"):
        return ""
    parts = []
    if message.get("id"):
        parts.append(f"{message['id']}: ")
    if message.get("from"):
        parts.append(f"(from {message['from']}) ")
    if message.get("progress") and not detail:
        return "".join([*parts, f"{message.get('status', '')} {message['progress']}\n"])
    return "".join([*parts, f"{message.get('status', '')}\n"])


def check(message: dict[str, Any]) -> None:
    """Raise Exit when the message is the engine's last word about a failure."""
    error = message.get("errorDetail")
    if isinstance(error, dict) and error:
        if error.get("code") == 401:
            raise exits.Exit(exits.FAILED, "authentication is required")
        raise exits.Exit(exits.FAILED, str(error.get("message", "")))
    if message.get("error"):
        raise exits.Exit(exits.FAILED, str(message["error"]))


def has_rich() -> bool:
    """Whether bars can be drawn. Without `rich` (a bare interpreter) the plain lines do; nothing fails for a bar."""
    try:
        import rich.progress
    except ImportError:
        return False
    return bool(rich.progress)


def show(
    messages: Iterable[Json],
    *,
    out: TextIO | None = None,
    quiet: bool = False,
    aux: Callable[[Any], None] | None = None,
) -> None:
    """Print a stream of messages to `out` (stdout). Raises Exit for an error in the stream."""
    stream = sys.stdout if out is None else out
    bars = None
    try:
        for message in messages:
            if not isinstance(message, dict):
                continue
            if "aux" in message:
                if aux is not None:
                    aux(message["aux"])
                continue
            check(message)
            if quiet:
                continue
            if stream.isatty() and has_rich():
                if bars is None:
                    bars = _Bars(stream)
                bars.take(message)
            else:
                stream.write(line_of(message))
                stream.flush()
    finally:
        if bars is not None:
            bars.close()


class _Bars:
    """One bar per id of the stream; lines without an id scroll above."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        self._console = Console(file=stream, highlight=False, markup=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=self._console,
        )
        self._tasks: dict[str, Any] = {}
        self._progress.start()

    def take(self, message: dict[str, Any]) -> None:
        identifier = str(message.get("id") or "")
        detail = message.get("progressDetail") or {}
        if not identifier or "progressDetail" not in message:
            text = line_of(message).rstrip("\n")
            if text:
                self._console.print(escape(text))
            return
        text = escape(f"{identifier}: {message.get('status', '')}")
        if identifier not in self._tasks:
            self._tasks[identifier] = self._progress.add_task(text, total=None)
        total = detail.get("total") or None
        current = detail.get("current")
        if current is None:
            self._progress.update(self._tasks[identifier], description=text)
        else:
            self._progress.update(self._tasks[identifier], description=text, completed=current, total=total)

    def close(self) -> None:
        self._progress.stop()


class Meter:
    """A file that is sent or received, with a bar on stderr while a person watches it. Closes nothing."""

    def __init__(self, label: str, *, total: int | None, wanted: bool, stays: bool = True) -> None:
        """stays: the bar is left on the screen at the end."""
        self._bar: Any = None
        self._task: Any = None
        if wanted and sys.stderr.isatty() and has_rich():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            console = Console(file=sys.stderr)
            columns = (TextColumn(label, markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bar = Progress(*columns, console=console, transient=not stays)
            self._task = self._bar.add_task(label, total=total)
            self._bar.start()

    def add(self, count: int) -> None:
        """So many more bytes have passed."""
        if self._bar is not None:
            self._bar.update(self._task, advance=count)

    def close(self) -> None:
        """Stop drawing: what has passed is all there was."""
        if self._bar is not None:
            self._bar.update(self._task, total=self._bar.tasks[0].completed)
            self._bar.stop()


def stdin() -> Any:
    """The bytes of stdin, to be read by `read(size)`, which may give fewer.

    Not the buffered object: a thread that still waits in it when the program ends holds its lock, and Python aborts
    ("could not acquire lock for <_io.BufferedReader name='<stdin>'> at interpreter shutdown").
    """
    buffered = sys.stdin.buffer
    return getattr(buffered, "raw", buffered)


class Counted:
    """A readable that tells a meter what was read."""

    def __init__(self, source: Any, meter: Meter) -> None:
        self._source = source
        self._meter = meter

    def read(self, size: int, /) -> bytes:
        """The next bytes of the source."""
        data: bytes = self._source.read(size)
        self._meter.add(len(data))
        return data
