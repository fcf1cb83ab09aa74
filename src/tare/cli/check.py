"""`tare system check`: is everything the engine keeps still what it should be."""

from __future__ import annotations

from tare.cli import exit as exits
from tare.cli import flags, human, listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from tare.cli.context import Context

    Found = Mapping[str, object]


def line(finding: Found) -> str:
    """One finding for people."""
    text = f"{finding['Kind']}  {finding['Subject']}  {finding['Text']}"
    if finding.get("Mended"):
        return f"mended  {text}"
    note = finding.get("Note")
    return f"found   {text}" + (f" (not mended: {note})" if note else "")


def summary(found: Found) -> str:
    """The last line."""
    size, seconds = human.size(int(str(found["BytesRead"]))), float(str(found["Seconds"]))

    def counted(key: str, word: str) -> str:
        number = int(str(found[key]))
        return f"{number} {word}{'' if number == 1 else 's'}"

    looked = (
        f"{counted('Layers', 'layer')}, {counted('Blobs', 'blob')} ({size} read), {counted('Containers', 'container')}"
    )
    count, left = int(str(found["Findings"])), int(str(found["Left"]))
    if not count:
        verdict = "nothing is wrong"
    elif not left:
        verdict = f"{count} found, all mended"
    else:
        verdict = f"{count} found, {left} left"
    return f"{looked}, {seconds:.1f}s: {verdict}"


def _check(context: Context, options: flags.Options, _: list[str]) -> int:
    layout = options.text("format")
    if layout not in ("", "json"):
        raise exits.Exit(exits.FAILED, f"the format json is known and no other: {layout}")
    query = {"quick": options.on("quick"), "fix": options.on("fix")}
    answer = context.client.request("POST", "/tare/v1/check", query=query)
    left = 1  # until the summary says otherwise
    clean = listing.escape if context.is_terminal else str
    for step in answer.documents():
        assert isinstance(step, dict)
        if step.get("Error"):
            raise exits.Exit(exits.FAILED, str(step["Error"]))
        found = step.get("Summary")
        if isinstance(found, dict):
            left = int(str(found["Left"]))
        if layout:
            from tare.client import gojson

            context.line(gojson.dumps(step))
        elif isinstance(found, dict):
            context.line(summary(found))
        elif isinstance(finding := step.get("Finding"), dict):
            context.line(clean(line(finding)))
    return exits.FAILED if left else exits.OK


CHECK = flags.Command(
    _check,
    "Find what is damaged, missing or left over in the engine's store",
    about="Compares every blob with its digest, every unpacked layer with its blob, and every record with its files, while the "
    "engine goes on. Exits with 1 if something is wrong. docs/check.md says what each finding means.",
    flags=(
        flags.Flag("fix", "", flags.BOOL, "Mend what can be fetched, rebuilt or removed"),
        flags.Flag("format", "", flags.STRING, "Print 'json': one object a line, progress included"),
        flags.Flag("quick", "", flags.BOOL, "Names, sizes and records only: read no contents"),
    ),
)
