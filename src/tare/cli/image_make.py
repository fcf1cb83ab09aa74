"""commit, import, tag, rmi: images that come and go on this engine."""

from __future__ import annotations

import sys

from tare.cli import exit as exits
from tare.cli import flags
from tare.cli.image_list import split_reference
from tare.client.errors import ApiError
from tare.client.http import percent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tare.cli.context import Context

_CHANGE = flags.Flag("change", "c", flags.LIST, "Apply a Dockerfile instruction to the image, as 'CMD [\"sh\"]'")


def image_path(name: str) -> str:
    """The image's path in the API."""
    return f"/images/{percent(name, '/:@')}"


def _commit(context: Context, options: flags.Options, operands: list[str]) -> int:
    repository, tag, _ = split_reference(operands[1]) if len(operands) > 1 else ("", "", "")
    query: dict[str, str | bool | Sequence[str]] = {
        "container": operands[0],
        "repo": repository,
        "tag": tag,
        "comment": options.text("message"),
        "author": options.text("author"),
        "changes": options.many("change"),
    }
    if not options.on("pause"):
        query["pause"] = "0"
    if at := options.text("timestamp") or context.environ.get("SOURCE_DATE_EPOCH", ""):
        query["timestamp"] = at
    answer = context.client.post("/commit", query=query)
    assert isinstance(answer, dict)
    context.line(str(answer["Id"]))
    return exits.OK


COMMIT = flags.Command(
    _commit,
    "Make an image of what a container has become",
    operands="CONTAINER [REPOSITORY[:TAG]]",
    least=1,
    most=2,
    flags=(
        flags.Flag("author", "a", flags.STRING, 'Author, as "Ada Lovelace <ada@example.org>"'),
        _CHANGE,
        flags.Flag("message", "m", flags.STRING, "What this version is about"),
        flags.Flag("pause", "p", flags.BOOL, "Freeze the container meanwhile", default=True),
        flags.Flag("timestamp", "", flags.STRING, "The time the image is to say, RFC 3339 or seconds since 1970"),
    ),
    about="With --timestamp, or SOURCE_DATE_EPOCH in the environment, the same state gives the same image. What changed "
    "no file adds no layer.",
)


def _import(context: Context, options: flags.Options, operands: list[str]) -> int:
    from tare.cli import progress

    source = operands[0]
    repository, tag, _ = split_reference(operands[1]) if len(operands) > 1 else ("", "", "")
    query: dict[str, str | Sequence[str]] = {
        "repo": repository,
        "tag": tag,
        "message": options.text("message"),
        "changes": options.many("change"),
        "platform": options.text("platform"),
    }
    if source.startswith(("http://", "https://")):
        answer = context.client.request("POST", "/images/create", query={**query, "fromSrc": source})
        progress.show(answer.documents())
        return exits.OK
    query["fromSrc"] = "-"
    if source == "-":
        meter = progress.Meter("stdin", total=None, wanted=not sys.stdin.isatty())
        return _send(context, query, progress.Counted(progress.stdin(), meter), meter)
    import os

    try:
        file = open(source, "rb")  # noqa: SIM115
    except OSError as error:
        raise exits.Exit(exits.FAILED, f"open {source}: {(error.strerror or '').lower()}") from None
    with file:
        size = os.fstat(file.fileno()).st_size
        meter = progress.Meter(os.path.basename(source), total=size, wanted=True)
        return _send(context, query, progress.Counted(file, meter), meter)


def _send(context: Context, query: dict[str, str | Sequence[str]], source: Counted, meter: Meter) -> int:
    from tare.cli import progress

    try:
        answer = context.client.request("POST", "/images/create", query=query, upload=source)
    finally:
        meter.close()
    progress.show(answer.documents())
    return exits.OK


IMPORT = flags.Command(
    _import,
    "Make an image from the tar archive of a file system",
    operands="file|URL|- [REPOSITORY[:TAG]]",
    least=1,
    most=2,
    flags=(
        _CHANGE,
        flags.Flag("message", "m", flags.STRING, "What this version is about"),
        flags.Flag("platform", "", flags.STRING, "Platform of its programs, os/architecture[/variant]"),
    ),
    about="The archive may be compressed with gzip, bzip2, xz or zstd. `-` reads it from stdin.",
)


def _tag(context: Context, _: flags.Options, operands: list[str]) -> int:
    source, target = operands
    repository, tag, digest = split_reference(target)
    if digest:
        raise exits.Exit(exits.FAILED, "refusing to create a tag with a digest reference")
    context.client.post(f"{image_path(source)}/tag", query={"repo": repository, "tag": tag or "latest"})
    return exits.OK


TAG = flags.Command(
    _tag,
    "Give an image a further name",
    operands="SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    least=2,
    most=2,
)


def _rmi(context: Context, options: flags.Options, operands: list[str]) -> int:
    from tare.cli.image_list import platform_query

    query: dict[str, bool | Sequence[str]] = {
        "force": options.on("force"),
        "noprune": options.on("no-prune"),
        "platforms": [platform_query(platform) for platform in options.many("platform")],
    }
    failures: list[str] = []
    fatal = False
    for name in operands:
        try:
            removed = context.client.call("DELETE", image_path(name), query=query)
        except ApiError as error:
            fatal = fatal or error.status != 404
            failures.append(str(error))
            continue
        for step in removed if isinstance(removed, list) else []:
            assert isinstance(step, dict)
            if step.get("Deleted"):
                context.line(f"Deleted: {step['Deleted']}")
            else:
                context.line(f"Untagged: {step.get('Untagged')}")
    if failures:
        context.error("\n".join(failures))
        return exits.FAILED if fatal or not options.on("force") else exits.OK
    return exits.OK


RMI = flags.Command(
    _rmi,
    "Remove images",
    operands="IMAGE [IMAGE...]",
    least=1,
    most=None,
    flags=(
        flags.Flag("force", "f", flags.BOOL, "Also when it has several names or a stopped container uses it"),
        flags.Flag("no-prune", "", flags.BOOL, "Keep unnamed images it was made from"),
        flags.Flag("platform", "", flags.STRINGS, "Only this platform of it"),
    ),
)

if TYPE_CHECKING:
    from tare.cli.progress import Counted, Meter
