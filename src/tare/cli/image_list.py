"""`tare images` and `tare history`."""

from __future__ import annotations

from tare.cli import exit as exits
from tare.cli import flags, human, listing
from tare.cli.ps import FILTER, FORMAT, ago, created_at
from tare.client.http import percent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tare.cli.context import Context
    from tare.cli.listing import Item

NONE = "<none>"


def split_reference(reference: str) -> tuple[str, str, str]:
    """`repository:tag` or `repository@digest` as (repository, tag, digest), absent parts empty."""
    name, _, digest = reference.partition("@")
    last = name.rfind("/") + 1
    head, colon, tag = name[last:].partition(":")
    return (name[:last] + head if colon else name), tag, digest


def expand(image: Item, *, digests: bool) -> list[Item]:
    """One row per tag (or per tag and digest) of an image, as Docker lists them: tagless digests get `<none>`."""
    tags: dict[str, list[str]] = {}
    found_digests: dict[str, list[str]] = {}
    for reference in image.get("RepoTags") or []:
        repository, tag, _ = split_reference(reference)
        if tag:
            tags.setdefault(repository, []).append(tag)
    for reference in image.get("RepoDigests") or []:
        repository, _, digest = split_reference(reference)
        if digest:
            found_digests.setdefault(repository, []).append(digest)

    def row(repository: str, tag: str, digest: str) -> Item:
        return {**image, "_repository": repository, "_tag": tag, "_digest": digest}

    tags = {name: tags[name] for name in tags if name != NONE}
    found_digests = {name: found_digests[name] for name in found_digests if name != NONE}
    rows: list[Item] = []
    for repository, found in tags.items():
        known = found_digests.pop(repository, [])
        if not digests:
            rows.extend(row(repository, tag, NONE) for tag in found)
        else:
            rows.extend(row(repository, tag, digest) for tag in found for digest in known or [NONE])
    for repository, known in found_digests.items():
        rows.extend(row(repository, NONE, digest) for digest in (known if digests else [NONE]))
    return rows or [row(NONE, NONE, NONE)]


def kind(*, full: bool) -> listing.Kind:
    """The fields of an image in a listing."""

    def shared(image: Item, key: str) -> str:
        value = image.get(key, -1)
        return "N/A" if value == -1 else human.size(value)

    def unique(image: Item) -> str:
        size, common = image.get("Size", -1), image.get("SharedSize", -1)
        return "N/A" if -1 in (size, common) else human.size(size - common)

    def containers(image: Item) -> str:
        return "N/A" if image.get("Containers", -1) == -1 else str(image["Containers"])

    return listing.Kind(
        "*formatter.imageContext",
        {
            "ID": ("IMAGE ID", lambda i: i["Id"] if full else listing.short_id(i["Id"])),
            "Repository": ("REPOSITORY", lambda i: i["_repository"]),
            "Tag": ("TAG", lambda i: i["_tag"]),
            "Digest": ("DIGEST", lambda i: i["_digest"]),
            "CreatedSince": ("CREATED", lambda i: ago(i["Created"]) if i.get("Created", 0) > 0 else "N/A"),
            "CreatedAt": ("CREATED AT", lambda i: created_at(i.get("Created", 0))),
            "Size": ("SIZE", lambda i: human.size(i.get("Size", 0), digits=3)),
            "Containers": ("CONTAINERS", containers),
            "VirtualSize": ("SIZE", lambda i: human.size(i.get("VirtualSize") or i.get("Size", 0))),
            "LastUsed": ("LAST USED", lambda i: ago(i["LastUsed"]) if i.get("LastUsed") else "N/A"),
            "SharedSize": ("SHARED SIZE", lambda i: shared(i, "SharedSize")),
            "UniqueSize": ("UNIQUE SIZE", unique),
        },
        not_in_json=("LastUsed",),
    )


def tree(images: Sequence[Item]) -> list[list[str]]:
    """The rows of a table: every image by its names, and below it its platforms, those that are not here with a dash."""
    rows = [["IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "IN USE"]]
    for image in images:
        shown = [entry for entry in image["Manifests"] if entry.get("Kind") == "image"]
        sizes = [entry.get("Size") or {} for entry in image["Manifests"]]
        names = sorted(image.get("RepoTags") or [NONE])
        rows += [[listing.escape(name)] for name in names[:-1]]
        rows.append(
            [
                listing.escape(names[-1]),
                listing.short_id(image["Id"]),
                *(human.size(sum(size.get(key, 0) for size in sizes), digits=3) for key in ("Total", "Content")),
                "yes" if any((entry.get("ImageData") or {}).get("Containers") for entry in shown) else "",
            ]
        )
        for number, entry in enumerate(shown, start=1):
            data, size = entry.get("ImageData") or {}, entry.get("Size") or {}
            platform = data.get("Platform") or {}
            parts = (platform.get(key) for key in ("os", "architecture", "variant"))
            rows.append(
                [
                    f"{'└─' if number == len(shown) else '├─'} {listing.escape('/'.join(filter(None, parts)))}",
                    listing.short_id(entry["ID"]),
                    *(
                        human.size(size.get(key, 0), digits=3) if entry.get("Available") else "-"
                        for key in ("Total", "Content")
                    ),
                    "yes" if data.get("Containers") else "",
                ]
            )
    return rows


def _images(context: Context, options: flags.Options, operands: list[str]) -> int:
    layout = options.text("format")
    wanted = list(options.many("filter"))
    if operands:
        wanted.append(f"reference={operands[0]}")
    query: dict[str, str | bool] = {"all": options.on("all"), "filters": listing.filters(wanted)}
    if options.on("tree"):
        for flag in ("quiet", "digests", "no-trunc", "format"):
            if options.text(flag) if flag == "format" else options.on(flag):
                raise exits.Exit(exits.FAILED, f"the --tree and --{flag} options conflict")
        answer = context.client.get("/images/json", query={**query, "manifests": True})
        assert isinstance(answer, list)
        images = [image for image in answer if isinstance(image, dict)]
        context.out(listing.table(tree([image for image in images if isinstance(image.get("Manifests"), list)])))
        return exits.OK
    if ".LastUsed" in layout:
        query["last-used"] = True
    answer = context.client.get("/images/json", query=query)
    assert isinstance(answer, list)
    images = [image for image in answer if isinstance(image, dict)]
    full = options.on("no-trunc")
    digests = options.on("digests") or ".Digest" in layout
    if options.on("quiet") and not layout:
        ids = [str(row["Id"]) for image in images for row in expand(image, digests=False)]
        listing.lines(context, ids if full else [listing.short_id(i) for i in ids])
        return exits.OK
    columns = ["Repository", "Tag", "ID", "CreatedSince", "Size"]
    if options.on("digests"):
        columns.insert(2, "Digest")
    rows = [row for image in images for row in expand(image, digests=digests)]
    listing.show(context, kind(full=full), rows, columns=columns, layout=layout)
    return exits.OK


IMAGES = flags.Command(
    _images,
    "List images",
    operands="[REPOSITORY[:TAG]]",
    most=1,
    flags=(
        flags.Flag("all", "a", flags.BOOL, "Show images that only serve as a base of others too"),
        flags.Flag("digests", "", flags.BOOL, "Add a column with the digest of the manifest"),
        FILTER,
        FORMAT,
        flags.Flag("no-trunc", "", flags.BOOL, "Do not shorten ids"),
        flags.Flag("quiet", "q", flags.BOOL, "Print ids and nothing else"),
        flags.Flag("tree", "", flags.BOOL, "Show the platforms of each image"),
    ),
)


def _history_kind(*, full: bool, people: bool) -> listing.Kind:
    def identifier(step: Item) -> str:
        return str(step["Id"]) if full else listing.short_id(str(step["Id"]))

    def created_by(step: Item) -> str:
        text = str(step.get("CreatedBy") or "").replace("\t", " ")
        return text if full else listing.ellipsis(text, 45)

    def at(step: Item) -> str:
        seconds = int(step.get("Created") or 0)
        return "" if seconds <= -62135596800 else f"{human.civil(seconds)}Z"

    def created(step: Item) -> str:
        if not people:
            return at(step)
        return ago(int(step["Created"])) if int(step.get("Created") or 0) > -62135596800 else "N/A"

    def size(step: Item) -> str:
        return human.size(step.get("Size", 0), digits=3) if people else str(step.get("Size", 0))

    return listing.Kind(
        "*formatter.historyContext",
        {
            "ID": ("IMAGE", identifier),
            "CreatedSince": ("CREATED" if people else "CREATED AT", created),
            "CreatedAt": ("CREATED AT", at),
            "CreatedBy": ("CREATED BY", created_by),
            "Size": ("SIZE", size),
            "Comment": ("COMMENT", lambda s: s.get("Comment", "")),
        },
    )


def platform_query(text: str) -> str:
    """`linux/arm64/v8` as the JSON the wire takes; "" when not given."""
    if not text:
        return ""
    from tare.client import gojson

    parts = text.split("/")
    names = ("os", "architecture", "variant")
    return gojson.dumps({names[i]: part for i, part in enumerate(parts[:3])})


def _history(context: Context, options: flags.Options, operands: list[str]) -> int:
    if options.on("graph"):
        from tare.cli import graph

        return graph.run(context, operands[0] if operands else "", full=options.on("no-trunc"))
    if not operands:
        strict = flags.Command(_history, HISTORY.summary, operands="IMAGE", least=1, most=1, flags=HISTORY.flags)
        raise exits.Exit(exits.FAILED, flags.operand_error(strict, context.path, 0) or "")
    query = {"platform": platform_query(options.text("platform"))}
    answer = context.client.get(f"/images/{percent(operands[0], '/:@')}/history", query=query)
    assert isinstance(answer, list)
    steps = [step for step in answer if isinstance(step, dict)]
    full = options.on("no-trunc")
    if options.on("quiet") and not options.text("format"):
        listing.lines(context, [str(s["Id"]) if full else listing.short_id(str(s["Id"])) for s in steps])
        return exits.OK
    shown = _history_kind(full=full, people=options.on("human"))
    columns = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")
    listing.show(context, shown, steps, columns=columns, layout=options.text("format"))
    return exits.OK


HISTORY = flags.Command(
    _history,
    "Show the steps an image was made by",
    operands="IMAGE",
    most=1,
    about="With --graph an image is not needed: the layers of all images as a tree, or of those that share the lowest layer of one.",
    flags=(
        FORMAT,
        flags.Flag("graph", "", flags.BOOL, "Show what stands on what, with the names of images where they are"),
        flags.Flag("human", "H", flags.BOOL, "Sizes and times for people", default=True),
        flags.Flag("no-trunc", "", flags.BOOL, "Do not shorten ids and commands"),
        flags.Flag("platform", "", flags.STRING, "The platform whose history to show: os/architecture[/variant]"),
        flags.Flag("quiet", "q", flags.BOOL, "Print ids and nothing else"),
    ),
)
