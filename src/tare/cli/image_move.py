"""pull, push, save, load, search: images on their way."""

from __future__ import annotations

import sys

from tare.cli import exit as exits
from tare.cli import flags, listing
from tare.cli.image_list import platform_query, split_reference
from tare.cli.ps import FILTER, FORMAT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tare.cli.context import Context
    from tare.client.gojson import Json

_PLATFORM = flags.Flag("platform", "", flags.STRING, "Platform of the image, os/architecture[/variant]")
_TRUST = flags.Flag("disable-content-trust", "", flags.BOOL, "Accepted for compatibility", default=True, hidden=True)
_QUIET = flags.Flag("quiet", "q", flags.BOOL, "Print no progress")


def _pull(context: Context, options: flags.Options, operands: list[str]) -> int:
    from tare.cli import progress, registryauth
    from tare.cli.run import normalized

    name, tag, digest = split_reference(operands[0])
    quiet = options.on("quiet")
    if options.on("all-tags"):
        if tag or digest:
            raise exits.Exit(exits.FAILED, "tag can't be used with --all-tags/-a")
    elif not tag and not digest:
        tag = "latest"
        if not quiet:
            context.line("Using default tag: latest")
            sys.stdout.flush()
    query: dict[str, str | bool] = {
        "fromImage": normalized(name),
        "tag": digest or tag,
        "platform": options.text("platform"),
        "all-platforms": options.on("all-platforms"),
        "referrers": options.on("referrers"),
    }
    headers = registryauth.header(context.config_dir, name)
    answer = context.client.request("POST", "/images/create", query=query, headers=headers)
    progress.show(answer.documents(), quiet=quiet)
    end = f"@{digest}" if digest else f":{tag}" if tag else ""
    context.line(f"{normalized(name)}{end}")
    return exits.OK


PULL = flags.Command(
    _pull,
    "Fetch an image from a registry",
    operands="NAME[:TAG|@DIGEST]",
    least=1,
    most=1,
    flags=(
        flags.Flag("all-platforms", "", flags.BOOL, "Fetch the image for every platform it is for"),
        flags.Flag("all-tags", "a", flags.BOOL, "Fetch every tag of the repository"),
        _TRUST,
        _PLATFORM,
        _QUIET,
        flags.Flag("referrers", "", flags.BOOL, "Fetch signatures and other artifacts about the image, too"),
    ),
)


def _push(context: Context, options: flags.Options, operands: list[str]) -> int:
    from tare.cli import progress, registryauth
    from tare.client.http import percent

    name, tag, digest = split_reference(operands[0])
    quiet = options.on("quiet")
    if digest:
        raise exits.Exit(exits.FAILED, "cannot push a digest reference")
    if options.on("all-tags"):
        if tag:
            raise exits.Exit(exits.FAILED, "tag can't be used with --all-tags/-a")
    elif not tag:
        tag = "latest"
        if not quiet:
            context.line("Using default tag: latest")
    query: dict[str, str | bool | list[str]] = {
        "tag": tag,
        "platform": platform_query(options.text("platform")),
        "referrers": options.on("referrers"),
    }
    headers = registryauth.header(context.config_dir, name)
    answer = context.client.request("POST", f"/images/{percent(name, '/:')}/push", query=query, headers=headers)
    notes: list[str] = []

    def note(aux: Json) -> None:
        if isinstance(aux, dict) and aux.get("manifestPushedInsteadOfIndex"):
            index, manifest = aux.get("originalIndex"), aux.get("selectedManifest")
            pair = [str(one.get("digest")) for one in (index, manifest) if isinstance(one, dict)]
            notes.append(listing.escape(" -> ".join(pair)))

    progress.show(answer.documents(), quiet=quiet, aux=note)
    for text in notes:
        context.error("Not all of the index is here: one of its images was pushed in its place")
        context.error(text)
    if quiet:
        context.line(f"{name}:{tag}" if tag else name)
    return exits.OK


PUSH = flags.Command(
    _push,
    "Send an image to a registry",
    operands="NAME[:TAG]",
    least=1,
    most=1,
    flags=(
        flags.Flag("all-tags", "a", flags.BOOL, "Send every tag of the repository"),
        _TRUST,
        _PLATFORM,
        _QUIET,
        flags.Flag("referrers", "", flags.BOOL, "Send signatures and other artifacts about the image, too"),
    ),
)


def _save(context: Context, options: flags.Options, operands: list[str]) -> int:
    from tare.cli.container_read import refuse_terminal, write_stream

    output = options.text("output")
    refuse_terminal(context, output)
    query: dict[str, str | bool | Sequence[str]] = {
        "names": operands,
        "platform": platform_query(options.text("platform")),
        "referrers": options.on("referrers"),
    }
    answer = context.client.request("GET", "/images/get", query=query)
    write_stream(context, answer, output, label="save image")
    return exits.OK


SAVE = flags.Command(
    _save,
    "Write images to a tar archive",
    operands="IMAGE [IMAGE...]",
    least=1,
    most=None,
    flags=(
        flags.Flag("output", "o", flags.STRING, "Write to this file instead of stdout"),
        _PLATFORM,
        flags.Flag("referrers", "", flags.BOOL, "Write signatures and other artifacts about the images, too"),
    ),
)


def _load(context: Context, options: flags.Options, _: list[str]) -> int:
    import os

    from tare.cli import progress

    path = options.text("input")
    if not path:
        if sys.stdin.isatty():
            raise exits.Exit(exits.FAILED, "requested load from stdin, but stdin is empty")
        return _send(context, options, progress.stdin(), progress.Meter("stdin", total=None, wanted=True))
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise exits.Exit(exits.FAILED, f"open {path}: {(error.strerror or '').lower()}") from None
    with file:
        size = os.fstat(file.fileno()).st_size
        return _send(context, options, file, progress.Meter(os.path.basename(path), total=size, wanted=True))


def _send(context: Context, options: flags.Options, source: object, meter: Meter) -> int:
    from tare.cli import progress

    quiet = options.on("quiet") or not context.is_terminal
    query = {"quiet": "1" if quiet else "0", "platform": platform_query(options.text("platform"))}
    counted = progress.Counted(source, meter)
    try:
        answer = context.client.request("POST", "/images/load", query=query, upload=counted)
    finally:
        meter.close()
    if answer.content_type == "application/json":
        progress.show(answer.documents(), quiet=False)
        return exits.OK
    for piece in answer:
        sys.stdout.buffer.write(piece)
    return exits.OK


LOAD = flags.Command(
    _load,
    "Read images from a tar archive",
    flags=(
        flags.Flag("input", "i", flags.STRING, "Read this file instead of stdin"),
        _PLATFORM,
        flags.Flag("quiet", "q", flags.BOOL, "Print the result only"),
    ),
    about="What `tare save` and `docker save` write, and OCI layouts in a tar; compressed or not.",
)


def _search_kind(*, full: bool) -> listing.Kind:
    def description(item: listing.Item) -> str:
        text = str(item.get("description") or "").replace("\n", " ").replace("\r", " ")
        return text if full else listing.ellipsis(text, 45)

    return listing.Kind(
        "*formatter.searchContext",
        {
            "Name": ("NAME", lambda i: i.get("name", "")),
            "Description": ("DESCRIPTION", description),
            "StarCount": ("STARS", lambda i: str(i.get("star_count", 0))),
            "IsOfficial": ("OFFICIAL", lambda i: "[OK]" if i.get("is_official") else ""),
            "IsAutomated": ("AUTOMATED", lambda i: "[OK]" if i.get("is_automated") else ""),
        },
    )


def _search(context: Context, options: flags.Options, operands: list[str]) -> int:
    from tare.cli import registryauth

    query: dict[str, str | int] = {"term": operands[0], "filters": listing.filters(options.many("filter"))}
    if options.number("limit"):
        query["limit"] = options.number("limit")
    headers = registryauth.header(context.config_dir, operands[0])
    answer = context.client.request("GET", "/images/search", query=query, headers=headers).json()
    rows = [item for item in answer if isinstance(item, dict)] if isinstance(answer, list) else []
    columns = ("Name", "Description", "StarCount", "IsOfficial")
    listing.show(
        context, _search_kind(full=options.on("no-trunc")), rows, columns=columns, layout=options.text("format")
    )
    return exits.OK


SEARCH = flags.Command(
    _search,
    "Search a registry for images",
    operands="TERM",
    least=1,
    most=1,
    flags=(
        FILTER,
        FORMAT,
        flags.Flag("limit", "", flags.INT, "At most so many results"),
        flags.Flag("no-trunc", "", flags.BOOL, "Do not shorten descriptions"),
    ),
)


def _tags(context: Context, _: flags.Options, operands: list[str]) -> int:
    from tare.cli import registryauth
    from tare.client.http import percent

    headers = registryauth.header(context.config_dir, operands[0])
    answer = context.client.request("GET", f"/tare/v1/tags/{percent(operands[0], '/:')}", headers=headers).json()
    tags = answer.get("Tags") if isinstance(answer, dict) else None
    for tag in tags if isinstance(tags, list) else []:
        context.line(listing.escape(str(tag)))
    return exits.OK


TAGS = flags.Command(_tags, "List the tags a repository has at its registry", operands="REPOSITORY", least=1, most=1)

if TYPE_CHECKING:
    from tare.cli.progress import Meter
