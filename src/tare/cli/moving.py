"""`tare pack`, `tare unpack`, `tare send`: containers that move. Docker has no such commands."""

from __future__ import annotations

import sys

from tare.cli import exit as exits
from tare.cli import flags
from tare.client.http import percent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tare.cli.context import Context
    from tare.cli.progress import Meter
    from tare.client.gojson import Json
    from tare.client.http import Answer, Client, Readable

_MAX_WITHOUT = 400
"""Digests in one request line, which has to fit into 64 KiB. What is left out is sent though it need not be."""

_STARTED = 204  # 304: it never stopped

_VOLUMES = flags.Flag("volumes", "", flags.STRING, "Volumes to take along: all, none, or names", default="all")
_LOGS = flags.Flag("logs", "", flags.BOOL, "Take along what it has written")
_STOP = flags.Flag("stop", "", flags.BOOL, "Stop it first, and leave it stopped")
_NAME = flags.Flag("name", "", flags.STRING, "Another name for it")
_NO_START = flags.Flag("no-start", "", flags.BOOL, "Do not start it, even if it ran")
_REPLACE = flags.Flag("replace", "", flags.BOOL, "Put it in the place of the container of that name")
_REPLACE_VOLUMES = flags.Flag("replace-volumes", "", flags.BOOL, "Volumes that exist get what was packed")


def pack_query(options: flags.Options) -> dict[str, str | bool | Sequence[str]]:
    """What `pack` and `send` ask of the engine that has the container."""
    return {
        "volumes": options.text("volumes") or "none",
        "logs": options.on("logs"),
        "stop": options.on("stop"),
    }


def unpack_query(options: flags.Options) -> dict[str, str | bool | Sequence[str]]:
    """What `unpack` and `send` ask of the engine that gets it."""
    return {
        "name": options.text("name"),
        "start": "0" if options.on("no-start") else "",
        "replace": options.on("replace"),
        "replacevolumes": options.on("replace-volumes"),
    }


def _pack(context: Context, options: flags.Options, operands: list[str]) -> int:
    from tare.cli.container_read import refuse_terminal, write_stream

    if options.on("stop") and options.on("pause"):
        raise exits.Exit(exits.FAILED, "--pause and --stop exclude each other")
    output = options.text("output")
    refuse_terminal(context, output)
    answer = context.client.request(
        "GET", f"/tare/v1/containers/{percent(operands[0])}/pack", query=pack_query(options)
    )
    write_stream(context, answer, output, label="pack container")
    return exits.OK


PACK = flags.Command(
    _pack,
    "Write a container with everything it is to a file",
    operands="CONTAINER",
    least=1,
    most=1,
    about="Its changes, its image with history, settings, networks, volumes, health, and whether it ran. A running container "
    "is frozen while it is read. The file is an OCI layout in a tar: other tools see the image in it.",
    flags=(
        _LOGS,
        flags.Flag("output", "o", flags.STRING, "Write to this file instead of stdout"),
        flags.Flag("pause", "", flags.BOOL, "Freeze it while it is read (the default)"),
        _STOP,
        _VOLUMES,
    ),
)


def take_in(client: Client, source: Readable, options: flags.Options) -> str:
    """Send a pack to an engine and tell on stderr what it says; the id of the container. Raises Exit, ApiError."""
    from tare.cli import progress

    answer = client.request("POST", "/tare/v1/containers/unpack", query=unpack_query(options), upload=source)
    found: list[str] = []

    def note(aux: Json) -> None:
        if isinstance(aux, dict):
            found.append(str(aux.get("ID") or ""))

    progress.show(answer.documents(), out=sys.stderr, aux=note)
    if not found:
        raise exits.Exit(exits.FAILED, "the engine did not say what became of the container")
    return found[0]


def _unpack(context: Context, options: flags.Options, _: list[str]) -> int:
    import os

    from tare.cli import progress

    path = options.text("input")
    if not path and sys.stdin.isatty():
        raise exits.Exit(exits.FAILED, "requested unpack from stdin, but stdin is empty")
    try:
        file = open(path, "rb") if path else progress.stdin()  # noqa: SIM115
    except OSError as error:
        raise exits.Exit(exits.FAILED, f"open {path}: {(error.strerror or '').lower()}") from None
    size = os.fstat(file.fileno()).st_size if path else None
    meter = progress.Meter(os.path.basename(path) or "stdin", total=size, wanted=True)
    try:
        context.line(take_in(context.client, progress.Counted(file, meter), options))
    finally:
        meter.close()
        if path:
            file.close()
    return exits.OK


UNPACK = flags.Command(
    _unpack,
    "Make the container that was packed",
    about="Prints its id. It keeps the id it had where that is free, and runs if it ran.",
    flags=(
        flags.Flag("input", "i", flags.STRING, "Read this file instead of stdin"),
        _NAME,
        _NO_START,
        _REPLACE,
        _REPLACE_VOLUMES,
    ),
)


class Passage:
    """The bytes of an answer as the source of an upload, counted. `error` is what ended them too early."""

    def __init__(self, answer: Answer, meter: Meter) -> None:
        self._answer = answer
        self._meter = meter
        self.count = 0
        self.error: BaseException | None = None

    def read(self, _: int, /) -> bytes:
        """The next piece, however long it is."""
        try:
            data = self._answer.read()
        except BaseException as error:
            self.error = error
            raise
        self.count += len(data)
        self._meter.add(len(data))
        return data


def _already_there(here: Client, there: Client, path: str) -> tuple[int, list[str]]:
    """How many layers its image has, and the digests of those that the other engine has."""
    layers = here.get(f"{path}/layers")
    rows = [row for row in layers if isinstance(row, dict)] if isinstance(layers, list) else []
    asked = [str(row[key]) for row in rows for key in ("Digest", "ChainID")]
    answer = there.post("/tare/v1/missing", body={"Digests": asked})
    named = answer.get("Missing") if isinstance(answer, dict) else None
    missing = set(map(str, named)) if isinstance(named, list) else set(asked)
    return len(rows), [str(row["Digest"]) for row in rows if {str(row["Digest"]), str(row["ChainID"])} - missing]


def _send(context: Context, options: flags.Options, operands: list[str]) -> int:
    from tare.cli import human, progress
    from tare.client.errors import ApiError

    here, there = context.client, context.engine_at(operands[1])
    path = f"/tare/v1/containers/{percent(operands[0])}"
    try:
        count, known = _already_there(here, there, path)
    except ApiError as error:
        if error.status == 404 and "page not found" in error.message:
            raise exits.Exit(exits.FAILED, f"{operands[1]} is no tare engine, or an older one") from None
        raise
    context.error(f"{count} layer{'' if count == 1 else 's'}, {len(known)} of them there already")
    info = here.get(f"/containers/{percent(operands[0])}/json")
    assert isinstance(info, dict)
    identity, state = str(info["Id"]), info.get("State")
    was_running = isinstance(state, dict) and bool(state.get("Running"))
    host_config = info.get("HostConfig")
    is_own = isinstance(host_config, dict) and bool(host_config.get("AutoRemove"))
    if not options.on("replace"):
        _refuse_taken(there, options.text("name") or str(info["Name"]).removeprefix("/"))
    stops = options.on("stop") or (options.on("remove") and not is_own)
    query = pack_query(options) | {"stop": stops, "without": ",".join(known[:_MAX_WITHOUT])}
    meter = progress.Meter(operands[0], total=None, wanted=True)
    try:
        passage = Passage(here.request("GET", f"/tare/v1/containers/{identity}/pack", query=query), meter)
        try:
            found = take_in(there, passage, options)
        except BaseException:
            if passage.error is not None:
                raise passage.error from None
            raise
    except BaseException:
        if stops and was_running:
            _start_again(context, identity)
        raise
    finally:
        meter.close()
    if options.on("remove"):
        here.call("DELETE", f"/containers/{identity}", query={"force": True})
    context.error(f"sent {human.size(passage.count)}")
    context.line(found)
    return exits.OK


def _refuse_taken(there: Client, name: str) -> None:
    """Say that the name is taken before anything is stopped or sent. Raises Exit."""
    from tare.client.errors import ApiError

    try:
        found = there.get(f"/containers/{percent(name)}/json")
    except ApiError:
        return
    if isinstance(found, dict) and found.get("Name") == f"/{name}":
        raise exits.Exit(
            exits.FAILED,
            f"there is a container {name} at {there.host.text}: --name gives this one another name, --replace puts it in"
            " the place of that one",
        )


def _start_again(context: Context, identity: str) -> None:
    """What was stopped to be sent goes on here; a connection of its own, whatever state the other is in."""
    from tare.client.errors import ApiError, ConnectionFailed
    from tare.client.http import Client as Fresh

    client = Fresh(context.client.host, version=context.client.version, user_agent="tare-cli")
    try:
        answer = client.request("POST", f"/containers/{identity}/start")
        if answer.status == _STARTED:
            context.error("it was started again here")
    except (ApiError, ConnectionFailed) as error:
        context.error(f"it could not be started again here: {error}")
    finally:
        client.close()


SEND = flags.Command(
    _send,
    "Move or copy a container to another engine",
    operands="CONTAINER HOST",
    least=2,
    most=2,
    about="HOST is unix:///path, tcp://name:port, ssh://[user@]host[:port][/socket] or a context of the stock client. Layers "
    "that are there already are not sent. Prints the id it has there.",
    flags=(
        _LOGS,
        _NAME,
        _NO_START,
        flags.Flag("remove", "", flags.BOOL, "Stop it first, and remove it here once it is there"),
        _REPLACE,
        _REPLACE_VOLUMES,
        _STOP,
        _VOLUMES,
    ),
)
