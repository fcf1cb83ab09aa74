"""What a person watches while a build goes on: a line for each step, with its time, and what the running ones say.

    [+] Building 3.2s (4/6)
     => CACHED [tools 1/2] FROM debian                                                     0.0s
     => [tools 2/2] RUN make                                                               2.9s
     => => cc -c main.c

`Board` only collects and lays out; `watch` draws it over itself until the build ends, and then once more to stay.
"""

from __future__ import annotations

import sys
import time

from tare.cli.listing import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_SAID_LINES = 4  # of a running step, while it runs
_KEPT_CHARACTERS = 256 * 1024  # of what a step says, to be shown when it fails: its end
_LEAST_WIDTH = 40
_ENDED = frozenset({"done", "cached", "failed", "cancelled"})
_MARKS = {"cached": "CACHED ", "failed": "ERROR ", "cancelled": "CANCELED "}


class Step:
    """One step as it is now. `seconds`: what the engine measured, once it has ended."""

    def __init__(self, name: str, begun: float) -> None:
        self.name = name
        self.begun = begun
        self.state = "begun"
        self.seconds = 0.0
        self.said = ""

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.state not in _ENDED

    def line(self, width: int, now: float) -> str:
        """` => MARK NAME    1.2s`, exactly `width` columns where that is possible."""
        took = f"{now - self.begun if self.is_running else self.seconds:.1f}s"
        head = f" => {_MARKS.get(self.state, '')}{self.name}"
        return f"{_fit(head, width - len(took) - 1)} {took}"

    def tail(self, width: int) -> list[str]:
        """The last lines it said, for below its own."""
        rows = [row for row in self.said[-8192:].splitlines() if row.strip()]
        return [_fit(f" => => {_plain(row)}", width).rstrip() for row in rows[-_SAID_LINES:]]


class Board:
    """All that is known of a build, as messages with `progress=steps` tell it. now: in seconds, of any steady clock."""

    def __init__(self, now: float) -> None:
        self._begun = now
        self._steps: dict[int, Step] = {}
        self._total = 0
        self._pulled: dict[str, str] = {}
        self.closing: list[str] = []

    def take(self, message: dict[str, Any], now: float) -> None:
        """Take in one message."""
        step = message.get("step")
        if isinstance(step, dict):
            self._turn(step, now)
        elif message.get("stream"):
            self._say(step, str(message["stream"]))
        elif message.get("status"):
            about = str(message.get("id") or "")
            text = f"{about}: {message['status']}" if about else str(message["status"])
            self._pulled = {about: f"{text} {message.get('progress') or ''}".rstrip()}

    def _turn(self, told: dict[str, Any], now: float) -> None:
        number = int(told["Number"])
        self._total = int(told.get("Total") or self._total)
        self._pulled = {}
        step = self._steps.get(number)
        if step is None:
            stage = f"{told['Stage']} " if told.get("Stage") else ""
            place = f"[{stage}{told.get('Position')}/{told.get('Positions')}]"
            step = self._steps[number] = Step(f"{place} {_plain(str(told.get('Text', '')))}", now)
        step.state = str(told["State"])
        if step.is_running:  # also once more, when it has waited for other stages
            step.begun = now
        step.seconds = float(told.get("Seconds") or 0)

    def _say(self, number: object, text: str) -> None:
        step = self._steps.get(number) if isinstance(number, int) else None
        if step is None:
            self.closing.append(text)
        else:
            step.said = (step.said + text)[-_KEPT_CHARACTERS:]

    def lines(self, width: int, height: int, now: float) -> list[str]:
        """The board of now, at most `height` lines: where it is too long the oldest that have ended are left out."""
        width = max(width, _LEAST_WIDTH)
        ended = sum(not step.is_running for step in self._steps.values())
        head = f"[+] Building {now - self._begun:.1f}s ({ended}/{max(self._total, ended)})"
        blocks: list[tuple[bool, list[str]]] = []
        for _, step in sorted(self._steps.items()):
            rows = [step.line(width, now)]
            if step.is_running:
                rows += step.tail(width)
            blocks.append((step.is_running, rows))
        rows = [_fit(f" => => {_plain(text)}", width).rstrip() for text in self._pulled.values()]
        blocks.append((True, rows))
        spare = sum(len(rows) for _, rows in blocks) + 1 - height
        shown: list[str] = []
        for is_running, rows in blocks:
            if spare > 0 and not is_running:
                spare -= len(rows)
            else:
                shown += rows
        return [_fit(head, width).rstrip(), *shown][: max(height, 1)]

    def final(self, width: int, now: float) -> list[str]:
        """What stays on the screen: every step, and all that one which failed has said."""
        found = self.lines(width, sys.maxsize, now)
        for _, step in sorted(self._steps.items()):
            if step.state == "failed" and step.said:
                said = step.said.rstrip("\n").splitlines()
                found += ["------", f" > {step.name}:", *said, "------"]
        return found


def _plain(text: str) -> str:
    """One line without colours; what else would move the cursor is made visible."""
    kept: list[str] = []
    at = 0
    text = text.replace("\t", " ").replace("\n", " ").rpartition("\r")[2] or text.replace("\r", " ")
    while at < len(text):
        if text.startswith("\x1b[", at):
            end = at + 2
            while end < len(text) and not "@" <= text[end] <= "~":
                end += 1
            at = end + 1
            continue
        kept.append(text[at])
        at += 1
    return escape("".join(kept))


def _fit(text: str, width: int) -> str:
    """The text in exactly so many columns: padded, or cut with an ellipsis. Wide characters take two."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, width - 1) + "…"


def watch(messages: Iterable[dict[str, Any]]) -> None:
    """Draw what the messages tell until they end, however they do. stdout must be a terminal, and `rich` installed."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False, markup=False)
    board = Board(time.monotonic())

    def drawn() -> Text:
        return Text("\n".join(board.lines(console.width, console.height - 1, time.monotonic())), no_wrap=True)

    try:
        with Live(get_renderable=drawn, console=console, refresh_per_second=10, transient=True):
            for message in messages:
                board.take(message, time.monotonic())
    finally:
        for line in board.final(console.width, time.monotonic()):
            sys.stdout.write(f"{line}\n")
        for text in board.closing:
            sys.stdout.write(text)
        sys.stdout.flush()


__all__ = ["Board", "watch"]
