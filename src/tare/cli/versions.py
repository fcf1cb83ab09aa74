"""`tare log` and `tare blame`: what layers did to a path. Docker has no such commands."""

from __future__ import annotations

from tare.cli import exit as exits
from tare.cli import flags, human, listing
from tare.cli.ps import ago

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from tare.cli.context import Context

    Found = Mapping[str, object]

_KINDS = {0: "changed", 1: "added", 2: "removed"}
_DIRECTORY = 1 << 31
_STEP_WIDTH = 44


def short(origin: Found) -> str:
    """The layer's diffID as people write it."""
    return listing.short_id(str(origin.get("DiffID") or "")) or "(container)"


def step(origin: Found, *, full: bool) -> str:
    """The instruction that made a layer, or what else is known of it."""
    text = str(origin.get("CreatedBy") or origin.get("Comment") or "")
    text = " ".join(listing.escape(text).replace("\t", " ").split())
    return text if full else listing.ellipsis(text, _STEP_WIDTH)


def _when(origin: Found, *, full: bool) -> str:
    text = str(origin.get("Created") or "")
    moment = human.parse_time(text) if text else None
    if moment is None:
        return "N/A"
    return text if full else ago(moment[0])


def _json(context: Context, options: flags.Options, answer: object) -> bool:
    layout = options.text("format")
    if layout not in ("", "json"):
        raise exits.Exit(exits.FAILED, f"the format json is known and no other: {layout}")
    if layout:
        from tare.client import gojson

        context.line(gojson.dumps(answer))
    return bool(layout)


def _log(context: Context, options: flags.Options, operands: list[str]) -> int:
    name, path = operands
    answer = context.client.get("/tare/v1/log", query={"of": name, "path": path})
    assert isinstance(answer, dict)
    if _json(context, options, answer):
        return exits.OK
    full = options.on("no-trunc")
    rows = [["LAYER", "DIFF ID", "CREATED", "WHAT", "SIZE", "CREATED BY"]]
    if full:
        rows[0] += ["AUTHOR", "COMMENT"]
    entries = answer.get("Entries")
    for entry in entries if isinstance(entries, list) else []:
        assert isinstance(entry, dict)
        origin = entry["Origin"]
        assert isinstance(origin, dict)
        file = entry.get("File")
        size = ""
        if isinstance(file, dict) and not int(str(file["Mode"])) & _DIRECTORY:
            size = human.size(int(str(file["Size"])))
        kind = entry.get("Kind")
        row = [
            str(origin["Layer"]),
            str(origin.get("DiffID") or "(container)") if full else short(origin),
            _when(origin, full=full),
            _KINDS.get(kind if isinstance(kind, int) else -1, "?"),
            size,
            step(origin, full=full),
        ]
        if full:
            row += [listing.escape(str(origin.get("Author") or "")), listing.escape(str(origin.get("Comment") or ""))]
        rows.append(row)
    context.out(listing.table(rows))
    return exits.OK


def _blame(context: Context, options: flags.Options, operands: list[str]) -> int:
    name, path = operands
    answer = context.client.get("/tare/v1/blame", query={"of": name, "path": path})
    assert isinstance(answer, dict)
    if _json(context, options, answer):
        return exits.OK
    origins: dict[int, Found] = {}
    listed = answer.get("Origins")
    for origin in listed if isinstance(listed, list) else []:
        assert isinstance(origin, dict)
        origins[int(str(origin["Layer"]))] = origin
    parts = answer.get("Parts")
    found = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    full = options.on("no-trunc")
    heads = {number: f"{number:>3} {short(o):<12} {step(o, full=full)}" for number, o in origins.items()}
    width = max((len(head) for head in heads.values()), default=0)
    digits = len(str(len(found)))
    clean = listing.escape if context.is_terminal else str
    for number, part in enumerate(found, 1):
        head = heads[int(str(part["Layer"]))]
        place = "" if answer.get("IsDirectory") else f" {number:>{digits}}"
        context.line(f"{head:<{width}}{place}) {clean(str(part['Text']))}")
    return exits.OK


_FORMAT = flags.Flag("format", "", flags.STRING, "json: everything that is known")
_FULL = flags.Flag("no-trunc", "", flags.BOOL, "Do not shorten ids and instructions")

LOG = flags.Command(
    _log,
    "Show which layers changed a path",
    operands="IMAGE|CONTAINER[@LAYER] PATH",
    least=2,
    most=2,
    about="Newest first. Of a directory, the layers that changed something in it.",
    flags=(_FORMAT, _FULL),
)
BLAME = flags.Command(
    _blame,
    "Show which layer each line of a file comes from",
    operands="IMAGE|CONTAINER[@LAYER] PATH",
    least=2,
    most=2,
    about="Of a directory, which layer last changed each of its members.",
    flags=(_FORMAT, _FULL),
)
