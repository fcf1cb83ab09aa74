"""`tare events`: follow what happens in the engine."""

from __future__ import annotations

import sys
import time

from tare.cli import exit as exits
from tare.cli import flags, listing
from tare.cli.ps import FILTER, FORMAT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tare.cli.context import Context


def event_time(event: dict[str, Any]) -> str:
    """`2026-11-23T21:30:56.946765003Z` in the zone of this machine, nine digits."""
    nanos = int(event.get("timeNano") or 0) or int(event.get("time") or 0) * 10**9
    local = time.localtime(nanos // 10**9)
    offset = local.tm_gmtoff // 60
    sign = "-" if offset < 0 else "+"
    zone = f"{sign}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}" if offset else "Z"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{nanos % 10**9:09d}{zone}"


def line_of(event: dict[str, Any]) -> str:
    """The event as Docker prints it."""
    actor = event.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    text = f"{event_time(event)} {event.get('Type', '')} {event.get('Action', '')} {actor.get('ID', '')}"
    if attributes:
        text += f" ({', '.join(f'{key}={attributes[key]}' for key in sorted(attributes))})"
    if user := event.get("User"):
        text += f" by {user}"
    return text


def _go_names(event: dict[str, Any]) -> Callable[[str, str], object]:
    """Go's names of two fields differ from those in the JSON."""
    return lambda parent, name: (
        event.get({"Time": "time", "TimeNano": "timeNano"}.get(name, "")) if not parent else None
    )


def _events(context: Context, options: flags.Options, _: list[str]) -> int:
    layout = options.text("format")
    template = listing.compile_layout("{{json .}}" if layout == "json" else layout) if layout else None
    query = {
        "since": _when(options.text("since")),
        "until": _when(options.text("until")),
        "filters": listing.filters(options.many("filter")),
    }
    answer = context.client.request("GET", "/tare/v1/events" if options.on("audit") else "/events", query=query)
    clean = listing.escape if context.is_terminal else str
    for event in answer.documents():
        if not isinstance(event, dict):
            continue
        if template is None:
            context.line(clean(line_of(event)))
        else:
            context.line(template.execute(event, missing=_go_names(event)))
        sys.stdout.flush()
    return exits.OK


def _when(text: str) -> str:
    from tare.cli.timearg import wire_time

    try:
        return wire_time(text)
    except ValueError as error:
        raise exits.Exit(exits.FAILED, f"Error response from daemon: {error}") from None


EVENTS = flags.Command(
    _events,
    "Follow what happens in the engine",
    flags=(
        flags.Flag("audit", "", flags.BOOL, "Show who asked for it, too (not in Docker)"),
        FILTER,
        FORMAT,
        flags.Flag("since", "", flags.STRING, "Begin with what happened after this time, or a while ago"),
        flags.Flag("until", "", flags.STRING, "End at this time"),
    ),
)
