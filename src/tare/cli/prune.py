"""Removing what is not in use: `prune` of builder, container, image, network, volume and system."""

from __future__ import annotations

import sys

from tare.cli import exit as exits
from tare.cli import flags, human, listing
from tare.client.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tare.cli.context import Context

_FILTER = flags.Flag("filter", "", flags.FILTER, "Only what matches, as until=24h or label=name")
_FORCE = flags.Flag("force", "f", flags.BOOL, "Do not ask")


def confirm(warning: str, *, end: str = "\n") -> None:
    """Ask on the terminal; anything but yes ends the command without a word, as Docker's does. Raises Exit."""
    sys.stdout.write(f"{warning}{end}Are you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    answer = sys.stdin.readline().strip().lower()
    if answer not in ("y", "yes"):
        raise exits.Exit(exits.OK)


def _call(context: Context, what: str, pairs: list[str]) -> dict[str, Any]:
    answer = context.client.post(f"/{what}/prune", query={"filters": listing.filters(pairs)})
    return answer if isinstance(answer, dict) else {}


def _containers(context: Context, pairs: list[str]) -> tuple[str, int]:
    report = _call(context, "containers", pairs)
    names = report.get("ContainersDeleted") or []
    text = "".join(["Deleted Containers:\n", *(f"{name}\n" for name in names), "\n"]) if names else ""
    return text, report.get("SpaceReclaimed") or 0


def _images(context: Context, pairs: list[str], *, everything: bool) -> tuple[str, int]:
    dangling = "false" if everything else "true"
    report = _call(context, "images", [*pairs, f"dangling={dangling}"])
    lines = ["Deleted Images:\n"]
    for step in report.get("ImagesDeleted") or []:
        lines.append(f"untagged: {step['Untagged']}\n" if step.get("Untagged") else f"deleted: {step['Deleted']}\n")
    return ("".join([*lines, "\n"]) if len(lines) > 1 else ""), report.get("SpaceReclaimed") or 0


def _networks(context: Context, pairs: list[str]) -> tuple[str, int]:
    names = _call(context, "networks", pairs).get("NetworksDeleted") or []
    return ("".join(["Deleted Networks:\n", *(f"{name}\n" for name in names), "\n"]) if names else ""), 0


def _volumes(context: Context, pairs: list[str], *, everything: bool) -> tuple[str, int]:
    if everything and context.client.speaks("1.42"):
        pairs = [*pairs, "all=true"]
    report = _call(context, "volumes", pairs)
    names = report.get("VolumesDeleted") or []
    text = "".join(["Deleted Volumes:\n", *(f"{name}\n" for name in names), "\n"]) if names else ""
    return text, report.get("SpaceReclaimed") or 0


def _builds(context: Context, pairs: list[str], *, everything: bool, keep: int = 0) -> tuple[str, int]:
    query: dict[str, str | int | None] = {"filters": listing.filters(pairs), "keep-storage": keep or None}
    answer = context.client.post("/build/prune", query={**query, "all": everything})
    report: dict[str, Any] = answer if isinstance(answer, dict) else {}
    names = report.get("CachesDeleted") or []
    text = "".join(["Deleted build cache objects:\n", *(f"{name}\n" for name in names), "\n"]) if names else ""
    return text, report.get("SpaceReclaimed") or 0


def _builds_if_any(context: Context, pairs: list[str], *, everything: bool) -> tuple[str, int]:
    if not context.client.speaks("1.31"):
        return "", 0
    try:
        return _builds(context, pairs, everything=everything)
    except ApiError as error:
        if error.status != 404:
            raise
        return "", 0  # an engine without a builder (podman) has no cache to prune


def _reclaimed(context: Context, text: str, space: int) -> int:
    context.out(f"{text}Total reclaimed space: {human.size(space)}\n")
    return exits.OK


def _container_prune(context: Context, options: flags.Options, _: list[str]) -> int:
    if not options.on("force"):
        confirm("WARNING! This will remove all stopped containers.")
    return _reclaimed(context, *_containers(context, options.many("filter")))


def _image_prune(context: Context, options: flags.Options, _: list[str]) -> int:
    everything = options.on("all")
    if not options.on("force"):
        which = "all images without at least one container associated to them" if everything else "all dangling images"
        confirm(f"WARNING! This will remove {which}.")
    return _reclaimed(context, *_images(context, options.many("filter"), everything=everything))


def _network_prune(context: Context, options: flags.Options, _: list[str]) -> int:
    if not options.on("force"):
        confirm("WARNING! This will remove all custom networks not used by at least one container.")
    text, _space = _networks(context, options.many("filter"))
    context.out(text)
    return exits.OK


def _volume_prune(context: Context, options: flags.Options, _: list[str]) -> int:
    everything = options.on("all")
    if not options.on("force"):
        which = "all" if everything else "anonymous"
        if not context.client.speaks("1.42"):
            which = "all"  # older engines know no difference
        confirm(f"WARNING! This will remove {which} local volumes not used by at least one container.")
    return _reclaimed(context, *_volumes(context, options.many("filter"), everything=everything))


def _builder_prune(context: Context, options: flags.Options, _: list[str]) -> int:
    everything = options.on("all")
    if not options.on("force"):
        confirm(f"WARNING! This will remove all {'' if everything else 'dangling '}build cache.", end=" ")
    keep = options.number("keep-storage")
    return _reclaimed(context, *_builds(context, options.many("filter"), everything=everything, keep=keep))


def _system_prune(context: Context, options: flags.Options, _: list[str]) -> int:
    pairs, everything, volumes = options.many("filter"), options.on("all"), options.on("volumes")
    if volumes and any(pair.startswith("until=") for pair in pairs):
        raise exits.Exit(exits.FAILED, 'ERROR: The "until" filter is not supported with "--volumes"')
    if not options.on("force"):
        lines = ["all stopped containers", "all networks not used by at least one container"]
        if volumes:
            lines.append("all anonymous volumes not used by at least one container")
        lines.append(
            "all images without at least one container associated to them" if everything else "all dangling images"
        )
        lines.append("all build cache" if everything else "unused build cache")
        confirm("WARNING! This will remove:\n" + "".join(f"  - {line}\n" for line in lines))
    parts = [_containers(context, pairs), _networks(context, pairs)]
    if volumes:
        parts.append(_volumes(context, pairs, everything=False))
    parts.append(_images(context, pairs, everything=everything))
    parts.append(_builds_if_any(context, pairs, everything=everything))
    return _reclaimed(context, "".join(text for text, _space in parts), sum(space for _text, space in parts))


BUILDER_PRUNE = flags.Command(
    _builder_prune,
    "Remove the build cache",
    flags=(
        flags.Flag("all", "a", flags.BOOL, "Also what a further build would use"),
        _FILTER,
        _FORCE,
        flags.Flag("keep-storage", "", flags.BYTES, "Keep so much of it"),
    ),
)
CONTAINER_PRUNE = flags.Command(_container_prune, "Remove all stopped containers", flags=(_FILTER, _FORCE))
IMAGE_PRUNE = flags.Command(
    _image_prune,
    "Remove images that nothing uses",
    flags=(flags.Flag("all", "a", flags.BOOL, "Also those that have a name"), _FILTER, _FORCE),
)
NETWORK_PRUNE = flags.Command(_network_prune, "Remove networks that no container uses", flags=(_FILTER, _FORCE))
VOLUME_PRUNE = flags.Command(
    _volume_prune,
    "Remove volumes that no container uses",
    flags=(flags.Flag("all", "a", flags.BOOL, "Also those that were given a name"), _FILTER, _FORCE),
)
SYSTEM_PRUNE = flags.Command(
    _system_prune,
    "Remove everything that is not in use",
    flags=(
        flags.Flag("all", "a", flags.BOOL, "Also images that have a name"),
        _FILTER,
        _FORCE,
        flags.Flag("volumes", "", flags.BOOL, "Also unnamed volumes"),
    ),
)
