"""`tare volume ls|create|rm`."""

from __future__ import annotations

from tare.cli import exit as exits
from tare.cli import flags, human, listing
from tare.cli.context import each
from tare.cli.ps import FILTER, FORMAT, labels
from tare.client.http import percent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.context import Context
    from tare.cli.listing import Item


def _usage(volume: Item, key: str, *, as_size: bool) -> str:
    usage = volume.get("UsageData")
    if not isinstance(usage, dict):
        return "N/A"
    return human.size(usage.get(key, 0)) if as_size else str(usage.get(key, 0))


KIND = listing.Kind(
    "*formatter.volumeContext",
    {
        "Name": ("VOLUME NAME", lambda v: v.get("Name", "")),
        "Driver": ("DRIVER", lambda v: v.get("Driver", "")),
        "Scope": ("SCOPE", lambda v: v.get("Scope", "")),
        "Mountpoint": ("MOUNTPOINT", lambda v: v.get("Mountpoint", "")),
        "Labels": ("LABELS", labels),
        "Links": ("LINKS", lambda v: _usage(v, "RefCount", as_size=False)),
        "Size": ("SIZE", lambda v: _usage(v, "Size", as_size=True)),
        "Group": ("GROUP", lambda _: "N/A"),
        "Availability": ("AVAILABILITY", lambda _: "N/A"),
        "Status": ("STATUS", lambda _: "N/A"),
    },
    methods={"Label": lambda item, name: (item.get("Labels") or {}).get(name, "")},
)


def natural(text: str) -> list[tuple[int, int, str]]:
    """A key that sorts `a10` after `a9`."""
    parts: list[tuple[int, int, str]] = []
    word = ""
    for char in text:
        if word and word.isdigit() != char.isdigit():
            parts.append((0, int(word), "") if word.isdigit() else (1, 0, word))
            word = ""
        word += char
    if word:
        parts.append((0, int(word), "") if word.isdigit() else (1, 0, word))
    return parts


def _ls(context: Context, options: flags.Options, _: list[str]) -> int:
    answer = context.client.get("/volumes", query={"filters": listing.filters(options.many("filter"))})
    found = answer.get("Volumes") if isinstance(answer, dict) else None
    volumes = [volume for volume in found if isinstance(volume, dict)] if isinstance(found, list) else []
    volumes.sort(key=lambda volume: natural(str(volume.get("Name"))))
    layout = options.text("format")
    if options.on("quiet") and not layout:
        listing.lines(context, [str(volume["Name"]) for volume in volumes])
        return exits.OK
    listing.show(context, KIND, volumes, columns=("Driver", "Name"), layout=layout)
    return exits.OK


def _create(context: Context, options: flags.Options, operands: list[str]) -> int:
    from tare.cli.createspec import labels as read_labels

    body = {
        "Driver": options.text("driver"),
        "DriverOpts": {key: value for key, _, value in (opt.partition("=") for opt in options.many("opt"))},
        "Labels": read_labels([], options.many("label")),
        "Name": operands[0] if operands else "",
    }
    answer = context.client.post("/volumes/create", body=body)
    assert isinstance(answer, dict)
    context.line(str(answer["Name"]))
    return exits.OK


def _rm(context: Context, options: flags.Options, operands: list[str]) -> int:
    def remove(name: str) -> str:
        context.client.call("DELETE", f"/volumes/{percent(name)}", query={"force": options.on("force")})
        return name

    return each(context, operands, remove)


LS = flags.Command(
    _ls,
    "List volumes",
    flags=(
        flags.Flag("cluster", "", flags.BOOL, "Show cluster volumes", hidden=True),
        FILTER,
        FORMAT,
        flags.Flag("quiet", "q", flags.BOOL, "Print names and nothing else"),
    ),
)
CREATE = flags.Command(
    _create,
    "Make a volume",
    operands="[VOLUME]",
    most=1,
    flags=(
        flags.Flag("driver", "d", flags.STRING, "Volume driver", default="local"),
        flags.Flag("label", "", flags.LIST, "A label, name=value"),
        flags.Flag("opt", "o", flags.MAP, "An option of the driver, key=value"),
    ),
)
RM = flags.Command(
    _rm,
    "Remove volumes",
    operands="VOLUME [VOLUME...]",
    least=1,
    most=None,
    flags=(flags.Flag("force", "f", flags.BOOL, "Do not mind volumes that are not there"),),
)
