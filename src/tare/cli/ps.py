"""`tare ps`: the list of containers."""

from __future__ import annotations

import time

from tare.cli import exit as exits
from tare.cli import flags, human, listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.context import Context
    from tare.cli.listing import Item

FORMAT = flags.Flag(
    "format",
    "",
    flags.STRING,
    "How to print: 'table', 'table TEMPLATE', 'json', or a TEMPLATE in the syntax of Go",
)
FILTER = flags.Flag("filter", "f", flags.FILTER, "Only what matches key=value; repeat to narrow further")
COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")


def created_at(seconds: int) -> str:
    """`2026-11-23 21:30:58 +0000 UTC`: Go's default layout, in the zone of this machine."""
    local = time.localtime(seconds)
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", local)


def ago(seconds: int) -> str:
    """`2 minutes ago`."""
    return f"{human.duration(time.time() - seconds)} ago"


def size_text(item: Item) -> str:
    """`5B (virtual 1.98MB)`."""
    text = human.size(item.get("SizeRw") or 0, digits=3)
    root = item.get("SizeRootFs") or 0
    return f"{text} (virtual {human.size(root, digits=3)})" if root > 0 else text


def names(item: Item) -> list[str]:
    """Names without their slash."""
    return [name.removeprefix("/") for name in item.get("Names") or []]


def own_names(item: Item) -> list[str]:
    """Names without those given by links."""
    return [name for name in names(item) if "/" not in name]


def labels(item: Item) -> str:
    """`key=value,…` sorted by key."""
    found = item.get("Labels") or {}
    return ",".join(f"{key}={found[key]}" for key in sorted(found))


def ports(found: list[dict[str, Any]]) -> str:
    """Published and exposed ports, consecutive ones joined: `90-95/tcp, 0.0.0.0:80->80/tcp`."""

    def order(port: dict[str, Any]) -> tuple[int, str, int, str]:
        return port.get("PrivatePort", 0), port.get("IP", ""), port.get("PublicPort", 0), port.get("Type", "")

    groups: dict[str, list[int]] = {}
    order_of_groups: list[str] = []
    texts: list[str] = []
    host_mapped: list[str] = []
    for port in sorted(found, key=order):
        private, public, kind = port.get("PrivatePort", 0), port.get("PublicPort", 0), port.get("Type", "")
        key = kind
        if port.get("IP"):
            if public != private:
                address = port["IP"]
                shown = f"[{address}]" if ":" in address else address
                host_mapped.append(f"{shown}:{public}->{private}/{kind}")
                continue
            key = f"{port['IP']}/{kind}"
        group = groups.get(key)
        if group is None:
            groups[key] = [private, private]
            order_of_groups.append(key)
        elif private == group[1] + 1:
            group[1] = private
        else:
            texts.append(_port_group(key, group))
            groups[key] = [private, private]
    texts.extend(_port_group(key, groups[key]) for key in order_of_groups)
    return ", ".join(texts + host_mapped)


def _port_group(key: str, group: list[int]) -> str:
    address, _, kind = key.rpartition("/")
    text = f"{group[0]}-{group[1]}" if group[0] != group[1] else str(group[0])
    if address:
        shown = f"[{address}]" if ":" in address else address
        text = f"{shown}:{text}->{text}"
    return f"{text}/{kind}"


def kind(*, full: bool) -> listing.Kind:
    """The fields of a container in a listing; `full` is --no-trunc."""

    def image(item: Item) -> str:
        name = str(item.get("Image") or "")
        if not name:
            return "<no image>"
        if full:
            return name
        if (item.get("ImageID") or "").removeprefix("sha256:") == name.removeprefix("sha256:") and len(name) >= 64:
            return listing.short_id(name)
        return name.partition("@")[0] if "@" in name else name

    def command(item: Item) -> str:
        text = str(item.get("Command") or "")
        return human.quote_go(text if full else listing.ellipsis(text, 20))

    def shown_names(item: Item) -> str:
        return ",".join(names(item) if full else own_names(item))

    def mounts(item: Item) -> str:
        texts = [str(m.get("Name") or m.get("Source") or "") for m in item.get("Mounts") or []]
        return ",".join(texts if full else [listing.ellipsis(text, 15) for text in texts])

    def local_volumes(item: Item) -> str:
        return str(sum(1 for m in item.get("Mounts") or [] if m.get("Driver") == "local"))

    def networks(item: Item) -> str:
        found = (item.get("NetworkSettings") or {}).get("Networks") or {}
        return ",".join(sorted(found))

    return listing.Kind(
        "*formatter.ContainerContext",
        {
            "ID": ("CONTAINER ID", lambda c: c["Id"] if full else listing.short_id(c["Id"])),
            "Image": ("IMAGE", image),
            "Command": ("COMMAND", command),
            "CreatedAt": ("CREATED AT", lambda c: created_at(c.get("Created", 0))),
            "RunningFor": ("CREATED", lambda c: ago(c.get("Created", 0))),
            "Ports": ("PORTS", lambda c: ports(c.get("Ports") or [])),
            "State": ("STATE", lambda c: c.get("State", "")),
            "Status": ("STATUS", lambda c: c.get("Status", "")),
            "Size": ("SIZE", size_text),
            "Names": ("NAMES", shown_names),
            "Labels": ("LABELS", labels),
            "Mounts": ("MOUNTS", mounts),
            "LocalVolumes": ("LOCAL VOLUMES", local_volumes),
            "Networks": ("NETWORKS", networks),
            "Platform": ("PLATFORM", lambda c: (c.get("ImageManifestDescriptor") or {}).get("platform")),
        },
        methods={"Label": lambda item, name: (item.get("Labels") or {}).get(name, "")},
    )


def _ps(context: Context, options: flags.Options, _: list[str]) -> int:
    layout = options.text("format")
    last = options.number("last")
    if options.on("latest") and last == -1:
        last = 1
    query: dict[str, str | int | bool] = {
        "all": options.on("all"),
        "filters": listing.filters(options.many("filter")),
        "size": options.on("size")
        or (not options.on("quiet") and any(word in layout for word in (".Size", "json .}", "json . "))),
    }
    if last > 0:
        query["limit"] = last
    if layout and layout != "json" and not options.on("quiet"):
        listing.compile_layout(layout.removeprefix("table"))
    items = context.client.get("/containers/json", query=query)
    assert isinstance(items, list)
    rows = [item for item in items if isinstance(item, dict)]
    full = options.on("no-trunc")
    if options.on("quiet") and not layout:
        listing.lines(context, [str(c["Id"]) if full else listing.short_id(str(c["Id"])) for c in rows])
        return exits.OK
    columns = [*COLUMNS, "Size"] if options.on("size") else COLUMNS
    if options.on("quiet"):
        layout = "{{.ID}}" if layout == "table" else layout
    listing.show(context, kind(full=full), rows, columns=columns, layout=layout)
    return exits.OK


PS = flags.Command(
    _ps,
    "List containers",
    flags=(
        flags.Flag("all", "a", flags.BOOL, "Show stopped containers too"),
        FILTER,
        FORMAT,
        flags.Flag("last", "n", flags.INT, "Only the given number of newest containers, running or not", default=-1),
        flags.Flag("latest", "l", flags.BOOL, "Only the newest container, running or not"),
        flags.Flag("no-trunc", "", flags.BOOL, "Do not shorten ids and commands"),
        flags.Flag("quiet", "q", flags.BOOL, "Print ids and nothing else"),
        flags.Flag("size", "s", flags.BOOL, "Show how much each container has written"),
    ),
)
