"""`tare inspect` and its relatives: documents of the engine as they are, or through a template."""

from __future__ import annotations

from tare.cli import exit as exits
from tare.cli import flags
from tare.client import gojson
from tare.client.errors import ApiError
from tare.client.http import percent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from tare.cli.context import Context
    from tare.client.gojson import Json

    Fetch: TypeAlias = "Callable[[str], Json]"

_TYPES = ("config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume")
_ORDER = ("container", "image", "network", "volume", "service", "task", "node", "plugin", "secret", "config")
_SWARM = frozenset({"service", "task", "node", "secret", "config"})
_PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
    "autobuild": "/tare/v1/autobuilds/{}",
    "plugin": "/plugins/{}/json",
    "service": "/services/{}",
    "task": "/tasks/{}",
    "node": "/nodes/{}",
    "secret": "/secrets/{}",
    "config": "/configs/{}",
}

# Maps by the name of the field that holds them: a key that is not there prints `<no value>` instead of failing.
_MAPS = frozenset(
    {"Labels", "Annotations", "Options", "Sysctls", "Tmpfs", "Ports", "ExposedPorts", "Volumes", "Networks", "Data"}
    | {"PortBindings", "StorageOpt", "DriverOpts", "Containers", "AuxiliaryAddresses", "Status", "Services"}
)
# Pointers in Docker's own types: absent or null they print as <nil> and are false.
_POINTERS = frozenset(
    {"Health", "Healthcheck", "OomKillDisable", "MemorySwappiness", "PidsLimit", "Init", "SizeRw", "SizeRootFs"}
    | {"IPAMConfig", "StopTimeout", "UsageData", "ImageManifestDescriptor", "BindOptions", "ClusterVolume"}
)
# Fields Docker's types have although the answer may leave them out.
_OPTIONAL = frozenset({"StopSignal", "Shell", "ArgsEscaped", "NetworkDisabled", "MacAddress", "Mounts", "Parent"})


def missing(parent: str, name: str) -> object:
    """What a key that the document lacks stands for. Raises template.Missing."""
    from tare.cli.template import Missing, Nil

    if parent in _MAPS:
        return None
    if name in _POINTERS:
        return Nil("<nil>")
    if name in _MAPS:
        return Nil("map[]")
    if name in _OPTIONAL:
        return ""
    raise Missing(f'map has no entry for key "{name}"')


def nil(name: str) -> object:
    """How a null prints, by the Go type of its field."""
    from tare.cli.template import Nil

    if name in _POINTERS:
        return Nil("<nil>")
    return Nil("map[]" if name in _MAPS else "[]")


def _show(context: Context, operands: list[str], fetch: Fetch, layout: str) -> int:
    """Fetch each operand, print what was found, then say what was not. Returns the exit code."""
    template = None
    if layout not in ("", "json"):
        from tare.cli.template import Template, TemplateError

        try:
            template = Template(layout)
        except TemplateError as error:
            raise exits.Exit(exits.FAILED, f"template parsing error: {error}") from None
    found: list[str] = []
    failures: list[str] = []
    for operand in operands:
        try:
            document = fetch(operand)
        except (ApiError, LookupError) as error:
            failures.append(str(error) if isinstance(error, ApiError) else str(error.args[0]))
            continue
        if template is None:
            found.append(gojson.dumps(document, indent="" if layout == "json" else "    ", html=False))
            continue
        try:
            found.append(template.execute(document, missing=missing, nil=nil))
        except TemplateError as error:
            context.out("".join(f"{text}\n" for text in found) + "\n")
            raise exits.Exit(exits.FAILED, f"template parsing error: {error}") from None
    if template is not None:
        context.out("".join(f"{text}\n" for text in found))
    elif layout == "json":
        context.line(f"[{','.join(found)}]")
    elif not found:
        context.line("[]")
    else:
        inner = ",\n".join("\n".join(f"    {line}" for line in text.split("\n")) for text in found)
        context.line(f"[\n{inner}\n]")
    if failures:
        context.error("\n".join(failures))
        return exits.FAILED
    return exits.OK


def _fetcher(context: Context, kind: str, *, size: bool = False, platform: str = "", verbose: bool = False) -> Fetch:
    def fetch(name: str) -> Json:
        query: dict[str, str | bool] = {"size": size, "platform": platform, "verbose": verbose}
        return context.client.get(_PATHS[kind].format(percent(name, "/:@")), query=query)

    return fetch


def _any(context: Context, *, size: bool) -> Fetch:
    """Look in every kind in Docker's order; the first that has it wins."""

    def fetch(name: str) -> Json:
        for kind in _ORDER:
            if kind in _SWARM or kind == "plugin":
                continue
            try:
                return _fetcher(context, kind, size=size and kind == "container")(name)
            except ApiError as error:
                if error.status != 404 and "no such" not in error.message.lower():
                    raise
        raise LookupError(f"Error: No such object: {name}")

    return fetch


def _inspect(context: Context, options: flags.Options, operands: list[str]) -> int:
    kind = options.text("type")
    if options.changed("type") and not kind:
        raise exits.Exit(
            exits.FAILED, 'type is empty: must be one of "config", "container", "image", "network", "volume"'
        )
    if kind and kind not in _TYPES:
        known = ", ".join(f'"{name}"' for name in _TYPES)
        raise exits.Exit(exits.FAILED, f'unknown type: "{kind}": must be one of {known}')
    size = options.on("size")
    fetch = _fetcher(context, kind, size=size and kind == "container") if kind else _any(context, size=size)
    return _show(context, operands, fetch, options.text("format"))


_FORMAT = flags.Flag("format", "f", flags.STRING, "Print 'json' or a TEMPLATE in the syntax of Go instead")
_SIZE = flags.Flag("size", "s", flags.BOOL, "Measure how much a container has written")

INSPECT = flags.Command(
    _inspect,
    "Show everything known about containers, images, networks or volumes",
    operands="NAME|ID [NAME|ID...]",
    least=1,
    most=None,
    flags=(_FORMAT, _SIZE, flags.Flag("type", "", flags.STRING, "Only look among objects of this type")),
)


def _one_kind(kind: str) -> Callable[[Context, flags.Options, list[str]], int]:
    def run(context: Context, options: flags.Options, operands: list[str]) -> int:
        size = kind == "container" and options.on("size")
        verbose = kind == "network" and options.on("verbose")
        platform = options.text("platform") if kind == "image" else ""
        if platform:
            from tare.cli.image_list import platform_query

            platform = platform_query(platform)
        fetch = _fetcher(context, kind, size=size, platform=platform, verbose=verbose)
        return _show(context, operands, fetch, options.text("format"))

    return run


def _command(kind: str, more: tuple[flags.Flag, ...] = ()) -> flags.Command:
    word = kind.upper()
    return flags.Command(
        _one_kind(kind),
        f"Show everything known about {kind}s",
        operands=f"{word} [{word}...]",
        least=1,
        most=None,
        flags=(_FORMAT, *more),
    )


CONTAINER_INSPECT = _command("container", (_SIZE,))
IMAGE_INSPECT = _command(
    "image", (flags.Flag("platform", "", flags.STRING, "The platform to show: os/architecture[/variant]"),)
)
NETWORK_INSPECT = _command("network", (flags.Flag("verbose", "v", flags.BOOL, "Ask for more, where there is more"),))
VOLUME_INSPECT = _command("volume")
AUTOBUILD_INSPECT = _command("autobuild")
