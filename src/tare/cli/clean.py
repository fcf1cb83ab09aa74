"""`tare image clean`: remove what nobody used for long, or what is too much."""

from __future__ import annotations

from tare.cli import flags, human, listing
from tare.cli.ps import ago

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.context import Context
    from tare.cli.listing import Item


def rows(images: list[Item]) -> list[list[str]]:
    """The table of what was chosen."""
    table = [["IMAGE", "ID", "LAST USED", "SIZE", "WHY", "REMOVED"]]
    for image in images:
        tags = [name for name in image["Names"] if "@" not in name]
        table.append(
            [
                listing.escape(", ".join(tags or image["Names"][:1]) or "<none>"),
                listing.short_id(str(image["Id"])),
                ago(int(image["LastUsed"])),
                human.size(int(image["Size"]), digits=3),
                str(image["Reason"]),
                "yes" if image["Removed"] else "no",
            ]
        )
    return table


def _clean(context: Context, options: flags.Options, _: list[str]) -> int:
    query: dict[str, str | bool] = {"policy": options.text("policy"), "dry-run": options.on("dry-run")}
    report = context.client.post("/tare/v1/images/clean", query=query)
    assert isinstance(report, dict)
    listed = report.get("Images")
    images = [image for image in listed if isinstance(image, dict)] if isinstance(listed, list) else []
    if images:
        context.out(listing.table(rows(images)))
    word = "Would reclaim:" if options.on("dry-run") else "Total reclaimed space:"
    context.line(f"{word} {human.size(int(str(report.get('SpaceReclaimed') or 0)))}")
    return 0


CLEAN = flags.Command(
    _clean,
    "Remove images by age, number and size",
    about="Never removes an image that a container has, running or not, that is mounted, that another image was made from, or "
    "that has the label tare.keep. Without --policy the daemon's (--image-gc) holds.",
    flags=(
        flags.Flag("dry-run", "", flags.BOOL, "Only say what would be removed, and why"),
        flags.Flag("policy", "", flags.STRING, "Any of max-age=30d,max-count=100,max-space=20GB"),
    ),
)
