"""`tare system df`: what takes up the disk."""

from __future__ import annotations

from tare.cli import artifacts, flags, human, image_list, listing, ps, volume
from tare.cli import exit as exits
from tare.cli.ps import FORMAT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.context import Context
    from tare.cli.listing import Item

_RUNNING = ("running", "paused", "restarting")


def _reclaimable(part: int, whole: int) -> str:
    if whole <= 0:
        return human.size(part)
    return f"{human.size(part)} ({part * 100 // whole}%)"


def summary(report: Item) -> list[Item]:
    """The lines of the table from the engine's report (API 1.51 and older): Docker's four, and one for artifacts where
    there are some, which are no part of the first then."""
    images, containers = report.get("Images") or [], report.get("Containers") or []
    volumes, cache = report.get("Volumes") or [], report.get("BuildCache") or []
    known, besides = report.get("Artifacts") or [], int(report.get("ArtifactsSize") or 0)
    layers = int(report.get("LayersSize") or 0) - besides
    used = sum(
        int(i.get("Size") or 0) - int(i.get("SharedSize") or 0)
        for i in images
        if i.get("Containers") and -1 not in (i.get("Size"), i.get("SharedSize"))
    )
    written = sum(int(c.get("SizeRw") or 0) for c in containers)
    stopped = sum(int(c.get("SizeRw") or 0) for c in containers if c.get("State") not in _RUNNING)
    kept = [v for v in volumes if (v.get("UsageData") or {}).get("Size", -1) != -1]
    held = sum(int(v["UsageData"]["Size"]) for v in kept)
    free = sum(int(v["UsageData"]["Size"]) for v in kept if not v["UsageData"].get("RefCount"))
    cached = sum(int(c.get("Size") or 0) for c in cache if not c.get("Shared"))
    in_use = sum(int(c.get("Size") or 0) for c in cache if c.get("InUse") and not c.get("Shared"))
    rows = [
        {
            "Type": "Images",
            "TotalCount": str(len(images)),
            "Active": str(sum(1 for i in images if (i.get("Containers") or 0) > 0)),
            "Size": human.size(layers),
            "Reclaimable": _reclaimable(layers - used, layers),
        },
        {
            "Type": "Containers",
            "TotalCount": str(len(containers)),
            "Active": str(sum(1 for c in containers if c.get("State") in _RUNNING)),
            "Size": human.size(written),
            "Reclaimable": _reclaimable(stopped, written),
        },
        {
            "Type": "Local Volumes",
            "TotalCount": str(len(volumes)),
            "Active": str(sum(1 for v in volumes if ((v.get("UsageData") or {}).get("RefCount") or 0) > 0)),
            "Size": human.size(held),
            "Reclaimable": _reclaimable(free, held),
        },
        {
            "Type": "Build Cache",
            "TotalCount": str(len(cache)),
            "Active": str(sum(1 for c in cache if c.get("InUse"))),
            "Size": human.size(cached),
            "Reclaimable": human.size(cached - in_use),
        },
    ]
    if known:
        rows.append(
            {
                "Type": "Artifacts",
                "TotalCount": str(len(known)),
                "Active": "0",
                "Size": human.size(besides),
                "Reclaimable": _reclaimable(besides, besides),
            }
        )
    return rows


_KIND = listing.Kind(
    "*formatter.diskUsageImagesContext",
    {
        "Type": ("TYPE", lambda row: row["Type"]),
        "TotalCount": ("TOTAL", lambda row: row["TotalCount"]),
        "Active": ("ACTIVE", lambda row: row["Active"]),
        "Size": ("SIZE", lambda row: row["Size"]),
        "Reclaimable": ("RECLAIMABLE", lambda row: row["Reclaimable"]),
    },
)


def _df(context: Context, options: flags.Options, _: list[str]) -> int:
    if options.on("verbose") and options.text("format") not in ("", "table", "json"):
        raise exits.Exit(exits.FAILED, "the verbose and the format options conflict")
    report = context.client.get("/system/df")
    assert isinstance(report, dict)
    if not options.on("verbose"):
        columns = ("Type", "TotalCount", "Active", "Size", "Reclaimable")
        listing.show(context, _KIND, summary(report), columns=columns, layout=options.text("format"))
        return exits.OK
    if options.text("format") == "json":
        from tare.client import gojson

        context.line(gojson.dumps(report))
        return exits.OK
    _verbose(context, report)
    return exits.OK


def _verbose(context: Context, report: Item) -> None:
    images = [row for image in report.get("Images") or [] for row in image_list.expand(image, digests=False)[:1]]
    context.out("Images space usage:\n\n")
    columns: tuple[str, ...] = (
        "Repository",
        "Tag",
        "ID",
        "CreatedSince",
        "Size",
        "SharedSize",
        "UniqueSize",
        "Containers",
    )
    listing.show(context, image_list.kind(full=False), images, columns=columns)
    context.out("\nContainers space usage:\n\n")
    columns = ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")
    containers = [{**c, "SizeRootFs": 0} for c in report.get("Containers") or []]
    listing.show(context, ps.kind(full=False), containers, columns=columns)
    context.out("\nLocal Volumes space usage:\n\n")
    listing.show(context, volume.KIND, report.get("Volumes") or [], columns=("Name", "Links", "Size"))
    besides = [row for artifact in report.get("Artifacts") or [] for row in artifacts.expand(artifact)[:1]]
    if besides:
        context.out("\nArtifacts space usage:\n\n")
        columns = ("Name", "Digest", "Type", "Subject", "Size")
        listing.show(context, artifacts.kind(full=False), besides, columns=columns)
    cache = report.get("BuildCache") or []
    context.out(
        f"\nBuild cache usage: {human.size(sum(int(c.get('Size') or 0) for c in cache if not c.get('Shared')))}\n\n"
    )
    rows = [["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"]]
    rows += [_cache_row(entry) for entry in cache]
    context.out(listing.table(rows))


def _cache_row(entry: Item) -> list[str]:
    def since(key: str) -> str:
        at = human.parse_time(str(entry.get(key) or ""))
        return ps.ago(at[0]) if at else ""

    shared = "true" if entry.get("Shared") else "false"
    size, used = human.size(entry.get("Size") or 0, digits=3), str(entry.get("UsageCount", 0))
    return [
        str(entry.get("ID"))[:12],
        str(entry.get("Type")),
        size,
        since("CreatedAt"),
        since("LastUsedAt"),
        used,
        shared,
    ]


DF = flags.Command(
    _df,
    "Show what takes up the disk",
    flags=(FORMAT, flags.Flag("verbose", "v", flags.BOOL, "One line for each thing instead of a sum")),
)
