"""`tare diff OLD NEW`: what is different between two file systems. Docker has no such command."""

from __future__ import annotations

import sys

from tare.cli import exit as exits
from tare.cli import human, listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from tare.cli import flags
    from tare.cli.context import Context

    Found = Mapping[str, object]

_KINDS = {0: "C", 1: "A", 2: "D"}
_DIRECTORY, _LINK = 1 << 31, 1 << 27
_SPECIAL = 1 << 31 | 1 << 27 | 1 << 26 | 1 << 25 | 1 << 24


def names(operands: list[str]) -> tuple[str, str, list[str]]:
    """Old, new, and the paths asked for. One name is compared with what lies under its last layer. Raises ValueError."""
    if len(operands) == 1:
        _, at, layer = operands[0].rpartition("@")
        if at and ":" not in layer:
            raise ValueError(f"name two file systems: {operands[0]} is the state after a layer")
        return f"{operands[0]}@-1", operands[0], []
    paths = operands[2:]
    for path in paths:
        if not path.startswith("/"):
            raise ValueError(f"a path inside of an image begins with /: {path}")
    return operands[0], operands[1], paths


def run(context: Context, options: flags.Options, operands: list[str]) -> int:
    """`tare diff` with two names or with flags."""
    layout = options.text("format")
    if layout not in ("", "json"):
        raise exits.Exit(exits.FAILED, f"diff knows the format json and no other: {layout}")
    if sum((options.on("patch"), options.on("stat"), bool(layout))) > 1:
        raise exits.Exit(exits.FAILED, "choose one of --patch, --stat and --format")
    try:
        old, new, paths = names(operands)
    except ValueError as error:
        raise exits.Exit(exits.FAILED, str(error)) from None
    query: dict[str, str | bool | list[str]] = {"from": old, "to": new, "path": paths, "times": options.on("times")}
    if options.on("patch"):
        query["patch"] = True
        sys.stdout.flush()
        for piece in context.client.request("GET", "/tare/v1/diff", query=query):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return exits.OK
    answer = context.client.request("GET", "/tare/v1/diff", query=query)
    if layout:
        sys.stdout.flush()
        for piece in answer:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return exits.OK
    totals = Totals()
    clean = listing.escape if context.is_terminal else str
    for found in answer.documents():
        assert isinstance(found, dict)
        totals.add(found)
        if not options.on("stat"):
            context.line(line(found, clean(str(found["Path"]))))
    if options.on("stat") or context.is_terminal:
        context.line(str(totals))
    return exits.OK


def _side(found: Found, key: str) -> Found | None:
    side = found.get(key)
    return side if isinstance(side, dict) else None


def _number(side: Found | None, key: str) -> int:
    value = side.get(key) if side is not None else None
    return value if isinstance(value, int) else 0


def _is_file(side: Found | None) -> bool:
    return side is not None and not _number(side, "Mode") & _SPECIAL


def line(found: Found, path: str) -> str:
    """One path as a person reads it: `A /x  +1.2kB`, `C /y  3B → 4B`, `C /z  mode 0644 → 0755`, `D /d/`."""
    kind = _KINDS.get(_number(found, "Kind"), "?")
    old, new = _side(found, "Old"), _side(found, "New")
    if _number(new or old, "Mode") & _DIRECTORY:
        path = path.rstrip("/") + "/"
    notes = []
    if kind == "C":
        notes = changes(found, old, new)
    elif kind == "A" and _is_file(new):
        notes.append(f"+{human.size(_number(new, 'Size'))}")
    elif kind == "D" and _is_file(old):
        notes.append(f"-{human.size(_number(old, 'Size'))}")
    if kind == "A" and new is not None and "Target" in new:
        notes.append(f"→ {listing.escape(str(new['Target']))}")
    return f"{kind} {path}  {', '.join(notes)}" if notes else f"{kind} {path}"


def changes(found: Found, old: Found | None, new: Found | None) -> list[str]:
    """What is different about a path that both sides have."""
    what = found.get("What")
    notes = []
    for name in what if isinstance(what, list) else []:
        if name == "content":
            notes.append(f"{human.size(_number(old, 'Size'))} → {human.size(_number(new, 'Size'))}")
        elif name == "mode":
            notes.append(f"mode {_mode(old)} → {_mode(new)}")
        elif name == "owner":
            notes.append(f"owner {_owner(old)} → {_owner(new)}")
        elif name == "target" and old and new:
            notes.append(f"{listing.escape(str(old.get('Target')))} → {listing.escape(str(new.get('Target')))}")
        elif name == "kind":
            notes.append(f"{_kind(old)} → {_kind(new)}")
        elif name != "time" or what == ["time"]:
            notes.append(str(name))
    return notes


def _mode(side: Found | None) -> str:
    mode = _number(side, "Mode")
    bits = sum(octal for bit, octal in ((1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000)) if mode & bit)
    return f"{mode & 0o777 | bits:04o}"


def _owner(side: Found | None) -> str:
    return f"{_number(side, 'Uid')}:{_number(side, 'Gid')}"


def _kind(side: Found | None) -> str:
    mode = _number(side, "Mode")
    for bit, name in (
        (_DIRECTORY, "directory"),
        (_LINK, "link"),
        (1 << 26, "device"),
        (1 << 25, "fifo"),
        (1 << 24, "socket"),
    ):
        if mode & bit:
            return name
    return "file"


class Totals:
    """How many paths of each kind, and how many bytes came and went."""

    def __init__(self) -> None:
        self.kinds = {"A": 0, "C": 0, "D": 0}
        self.more = 0
        self.less = 0

    def add(self, found: Found) -> None:
        """Count one path."""
        self.kinds[_KINDS.get(_number(found, "Kind"), "C")] += 1
        old, new = _side(found, "Old"), _side(found, "New")
        before = _number(old, "Size") if _is_file(old) else 0
        after = _number(new, "Size") if _is_file(new) else 0
        self.more += max(0, after - before)
        self.less += max(0, before - after)

    def __str__(self) -> str:
        return (
            f"{self.kinds['A']} added, {self.kinds['C']} changed, {self.kinds['D']} deleted; "
            f"+{human.size(self.more)} -{human.size(self.less)}"
        )
