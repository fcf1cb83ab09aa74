"""`tare image artifacts`: what is here from registries beside images."""

from __future__ import annotations

from tare.cli import exit as exits
from tare.cli import flags, human, listing
from tare.cli.image_list import NONE
from tare.cli.ps import FORMAT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.context import Context
    from tare.cli.listing import Item


def kind(*, full: bool) -> listing.Kind:
    """The fields of an artifact in a listing; `_name` is one of its names."""

    def shortened(digest: str) -> str:
        return digest if full or not digest else listing.short_id(digest)

    return listing.Kind(
        "*formatter.artifactContext",
        {
            "Name": ("NAME", lambda i: i["_name"]),
            "Digest": ("DIGEST", lambda i: shortened(i["Digest"])),
            "Type": ("TYPE", lambda i: i["Type"]),
            "Subject": ("ABOUT", lambda i: shortened(i.get("Subject") or "")),
            "Size": ("SIZE", lambda i: human.size(i.get("Size", 0), digits=3)),
        },
    )


def expand(artifact: Item) -> list[Item]:
    """One row for each name, one without where there is none."""
    return [{**artifact, "_name": name} for name in artifact.get("Names") or [NONE]]


def _artifacts(context: Context, options: flags.Options, _: list[str]) -> int:
    answer = context.client.get("/tare/v1/artifacts")
    assert isinstance(answer, list)
    rows = [row for found in answer if isinstance(found, dict) for row in expand(found)]
    full = options.on("no-trunc")
    if options.on("quiet") and not options.text("format"):
        digests = dict.fromkeys(str(row["Digest"]) for row in rows)
        listing.lines(context, [digest if full else listing.short_id(digest) for digest in digests])
        return exits.OK
    columns = ("Name", "Digest", "Type", "Subject", "Size")
    listing.show(context, kind(full=full), rows, columns=columns, layout=options.text("format"))
    return exits.OK


ARTIFACTS = flags.Command(
    _artifacts,
    "List what was pulled or loaded and is no image",
    about="Charts, signatures, attestations and the like. pull, push, tag, save, load and rmi take them as they take images.",
    flags=(
        FORMAT,
        flags.Flag("no-trunc", "", flags.BOOL, "Do not shorten digests"),
        flags.Flag("quiet", "q", flags.BOOL, "Print digests and nothing else"),
    ),
)
