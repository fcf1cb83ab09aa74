"""`tare run` and `tare create`: create, fetch the image if need be, attach, wait, start, carry the streams."""

from __future__ import annotations

import os
import sys

from tare.cli import createspec, flags
from tare.cli import exit as exits
from tare.client.errors import ApiError, BadHost, ConnectionFailed
from tare.client.http import percent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.context import Context
    from tare.cli.createspec import Spec
    from tare.cli.streams import Signals
    from tare.client.http import Answer, Connection

_ONLY_RUN = ("detach", "detach-keys", "sig-proxy", "wait-healthy")
_RUN_FLAGS = (
    *createspec.FLAGS,
    flags.Flag("detach", "d", flags.BOOL, "Start it in the background and print its id"),
    flags.Flag("detach-keys", "", flags.STRING, "Keys that detach this terminal, ctrl-p,ctrl-q by default"),
    flags.Flag("sig-proxy", "", flags.BOOL, "Pass signals on to the process", default=True),
    flags.Flag("wait-healthy", "", flags.BOOL, "With -d: wait until its health check passes (beyond Docker)"),
)


def familiar(reference: str) -> tuple[str, str]:
    """A reference as (name, tag or digest), the tag `latest` when there is none."""
    name, at, digest = reference.partition("@")
    if at:
        return name, digest
    last = name.rfind("/") + 1
    head, colon, tag = name[last:].partition(":")
    return (name[:last] + head, tag) if colon else (name, "latest")


def normalized(name: str) -> str:
    """A name with its registry: `busybox` is `docker.io/library/busybox`."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        if first in ("docker.io", "index.docker.io"):
            return f"docker.io/{rest}" if "/" in rest else f"docker.io/library/{rest}"
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def pull(context: Context, reference: str, *, platform: str = "", quiet: bool = False) -> None:
    """Fetch an image, its progress on stderr. Raises ApiError, Exit."""
    from tare.cli import progress, registryauth

    name, tag = familiar(reference)
    query = {"fromImage": normalized(name), "tag": tag, "platform": platform}
    headers = registryauth.header(context.config_dir, reference)
    answer = context.client.request("POST", "/images/create", query=query, headers=headers)
    progress.show(answer.documents(), out=sys.stderr, quiet=quiet)


def create(context: Context, options: flags.Options, spec: Spec) -> str:
    """Create the container; the full id, also written to --cidfile. Raises ApiError, Exit."""
    path = options.text("cidfile")
    if not path:
        return _create_or_pull(context, options, spec)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        why = f"container ID file found, make sure the other container isn't running or delete {path}"
        raise exits.Exit(exits.FAILED, why) from None
    except OSError as error:
        why = f"failed to create the container ID file: open {path}: {(error.strerror or '').lower()}"
        raise exits.Exit(exits.FAILED, why) from None
    with os.fdopen(descriptor, "w") as file:
        try:
            identifier = _create_or_pull(context, options, spec)
        except BaseException:
            os.unlink(path)
            raise
        file.write(identifier)
    return identifier


def _create_or_pull(context: Context, options: flags.Options, spec: Spec) -> str:
    policy = options.text("pull")
    image = str(spec.body["Image"])
    quiet = options.on("quiet")
    if policy == "always":
        pull(context, image, platform=spec.platform, quiet=quiet)
    query = {"name": spec.name, "platform": spec.platform}
    body = body_for(context, spec)
    try:
        answer = context.client.post("/containers/create", query=query, body=body)
    except ApiError as error:
        if error.status != 404 or policy != "missing" or not _lacks_image(error.message):
            raise
        name, tag = familiar(image)
        if not quiet:
            context.error(f"Unable to find image '{name}{'@' if ':' in tag else ':'}{tag}' locally")
        pull(context, image, platform=spec.platform, quiet=quiet)
        answer = context.client.post("/containers/create", query=query, body=body)
    assert isinstance(answer, dict)
    warnings = answer.get("Warnings")
    for warning in warnings if isinstance(warnings, list) else []:
        context.error(f"WARNING: {warning}")
    return str(answer["Id"])


def _lacks_image(message: str) -> bool:
    """Whether a pull can help: there is no such image, or none for the platform asked for."""
    return "no such image" in message.lower() or "does not match the specified platform" in message


def body_for(context: Context, spec: Spec) -> dict[str, object]:
    """The body in the words of the engine's API version."""
    body = dict(spec.body)
    if not context.client.speaks("1.44"):
        networks: dict[str, dict[str, object]] = body["NetworkingConfig"]["EndpointsConfig"]
        first = next(iter(networks.values()), {})
        if first.get("MacAddress"):
            body["MacAddress"] = first["MacAddress"]
        body["NetworkingConfig"] = {
            "EndpointsConfig": {
                name: {key: value for key, value in endpoint.items() if key not in ("DNSNames", "GwPriority")}
                for name, endpoint in networks.items()
            }
        }
    return body


def fail(context: Context, error: Exception, code: int = exits.USAGE) -> exits.Exit:
    """The error as docker run prints it."""
    name = context.path
    return exits.Exit(code, f"tare: {error}\n\nRun '{name} --help' for more information")


def _check_policy(policy: str) -> None:
    if policy not in ("always", "missing", "never"):
        raise ValueError(f'invalid pull option: \'{policy}\': must be one of "always", "missing" or "never"')


def _spec(context: Context, options: flags.Options, operands: list[str], *, detached: bool = False) -> Spec:
    wrong = [f'"--{name}"' for name in createspec.WINDOWS_ONLY if options.changed(name)]
    if wrong:
        why = "is only supported on a daemon running on windows, but the tare daemon is running on linux"
        raise exits.Exit(exits.FAILED, "\n".join(f"{name} {why}" for name in wrong))
    try:
        _check_policy(options.text("pull"))
        spec = createspec.build(options, operands, context.environ, detached=detached)
    except ValueError as error:
        raise fail(context, error) from None
    except OSError as error:
        raise fail(context, ValueError(f"open {error.filename}: {(error.strerror or '').lower()}")) from None
    if options.on("use-api-socket"):
        raise fail(context, ValueError("--use-api-socket is not supported: mount the socket with -v where it is meant"))
    return spec


def _create(context: Context, options: flags.Options, operands: list[str]) -> int:
    spec = _spec(context, options, operands)
    context.line(create(context, options, spec))
    return exits.OK


CREATE = flags.Command(
    _create,
    "Make a container without starting it",
    operands="IMAGE [COMMAND] [ARG...]",
    flags=createspec.FLAGS,
    least=1,
    most=None,
    interspersed=False,
)


class Session:
    """A container with this terminal attached: one attach connection, one pending wait, signals passed on."""

    def __init__(self, context: Context, identifier: str, *, tty: bool, stdin: bool) -> None:
        self.context = context
        self.client = context.client
        self.identifier = identifier
        self.path = f"/containers/{percent(identifier)}"
        self.tty = tty
        self.stdin = stdin
        self.connection: Connection | None = None
        self.multiplexed = not tty
        self.stdout = True
        self.stderr = True
        self.started = False

    def attach(self, *, stdout: bool, stderr: bool, detach_keys: str, logs: bool = False) -> None:
        """Open the streams. Raises ApiError."""
        self.stdout, self.stderr = stdout, stderr
        query: dict[str, str | bool] = {
            "stream": True,
            "stdin": self.stdin,
            "stdout": stdout,
            "stderr": stderr,
            "detachKeys": detach_keys,
            "logs": logs,
        }
        self.connection, kind = self.client.hijack(f"{self.path}/attach", query=query)
        if kind == "application/vnd.docker.multiplexed-stream":
            self.multiplexed = True

    def wait(self, condition: str) -> Answer:
        """Register for the exit on a connection of its own; the answer's headers mean that it is registered."""
        return self.client.request("POST", f"{self.path}/wait", query={"condition": condition})

    def on_signal(self, number: int) -> None:
        """SIGWINCH resizes, everything else is the container's."""
        import signal

        from tare.cli import streams

        if number == signal.SIGWINCH:
            streams.resize(self.client, self.path)
        elif self.started:
            streams.kill(self.client, self.identifier, number)

    def signals(self, *, proxy: bool) -> Signals:
        """The signals this session listens to."""
        import signal

        from tare.cli import streams

        numbers = [int(getattr(signal, f"SIG{name}")) for name in streams.PROXIED] if proxy else []
        if self.tty:
            numbers.append(int(signal.SIGWINCH))
        return streams.Signals(numbers, self.on_signal)

    def pump(self, signals: Signals, *, detach: bytes) -> bool:
        """Carry the streams until they end; True when detached."""
        from tare.cli import streams

        assert self.connection is not None
        sys.stdout.flush()
        try:
            return streams.pump(
                self.connection,
                stdin=self.stdin,
                multiplexed=self.multiplexed,
                detach=detach if self.tty else b"",
                signals=signals,
                stdout=self.stdout,
                stderr=self.stderr,
            )
        finally:
            self.connection.close()


def exit_status(context: Context, document: object) -> int:
    """The program's exit code out of the answer to wait; an error of the wait itself is printed and 125."""
    if not isinstance(document, dict):
        return exits.USAGE
    error = document.get("Error")
    if isinstance(error, dict) and error.get("Message"):
        context.error(f"Error waiting for container: {error['Message']}")
        return exits.USAGE
    return int(document.get("StatusCode", exits.USAGE))


def _run(context: Context, options: flags.Options, operands: list[str]) -> int:
    from tare.cli import streams

    detached = options.on("detach")
    if detached and options.many("attach"):
        raise fail(context, ValueError("conflicting options: cannot specify both --attach and --detach"))
    if options.on("wait-healthy") and not detached:
        raise fail(context, ValueError("--wait-healthy goes with --detach"))
    spec = _spec(context, options, operands, detached=detached)
    tty, body = bool(spec.body["Tty"]), spec.body
    try:
        keys = streams.detach_bytes(options.text("detach-keys"))
    except ValueError as error:
        raise fail(context, ValueError(f"invalid detach keys ({options.text('detach-keys')}): {error}")) from None
    if tty and body["AttachStdin"] and not os.isatty(0):
        raise fail(context, ValueError("the input device is not a TTY"), exits.FAILED)
    if tty and not detached:
        body["HostConfig"]["ConsoleSize"] = list(streams.terminal_size())
    try:
        identifier = create(context, options, spec)
    except exits.Exit as leaving:
        raise fail(context, ValueError(leaving.message)) from None
    except (ApiError, ConnectionFailed, BadHost) as error:
        raise fail(context, error) from None
    session = Session(context, identifier, tty=tty, stdin=bool(body["AttachStdin"]))
    if detached or not (body["AttachStdin"] or body["AttachStdout"] or body["AttachStderr"]):
        return _run_detached(session, options)
    with session.signals(proxy=options.on("sig-proxy")) as signals:
        return _run_attached(session, options, signals, keys)


def _run_detached(session: Session, options: flags.Options) -> int:
    try:
        session.client.post(f"{session.path}/start", query={"detachKeys": options.text("detach-keys")})
    except (ApiError, ConnectionFailed) as error:
        raise fail(session.context, error, exits.of_start_error(str(error))) from None
    session.context.line(session.identifier)
    if options.on("wait-healthy"):
        from tare.cli.lifecycle import wait_for

        try:
            wait_for(session.client, session.identifier, "healthy")
        except (ApiError, ConnectionFailed) as error:
            raise fail(session.context, error, exits.FAILED) from None
    return exits.OK


def _run_attached(session: Session, options: flags.Options, signals: Signals, keys: bytes) -> int:
    from tare.cli import streams

    context, wanted = session.context, {name.lower() for name in options.many("attach")} or {"stdout", "stderr"}
    waiting: Answer | None = None
    try:
        session.attach(stdout="stdout" in wanted, stderr="stderr" in wanted, detach_keys=options.text("detach-keys"))
        waiting = session.wait("removed" if options.on("rm") else "next-exit")
        session.client.post(f"{session.path}/start", query={"detachKeys": options.text("detach-keys")})
    except (ApiError, ConnectionFailed) as error:
        if session.connection is not None:
            session.connection.close()
        if waiting is not None and options.on("rm"):
            streams.await_answer(waiting, signals)  # the engine removes what could not start
        raise fail(context, error, exits.of_start_error(str(error))) from None
    session.started = True
    with streams.RawTerminal(session.tty and session.stdin):
        if session.tty:
            streams.resize(session.client, session.path)
        detached = session.pump(signals, detach=keys)
    if detached:
        return exits.OK
    return exit_status(context, streams.await_answer(waiting, signals))


RUN = flags.Command(
    _run,
    "Make a container from an image and start it",
    operands="IMAGE [COMMAND] [ARG...]",
    flags=_RUN_FLAGS,
    least=1,
    most=None,
    interspersed=False,
    about=(
        "The image is fetched when it is not here. The exit code is that of the program; 125 means that tare itself"
        " failed, 126 that the command cannot be executed, 127 that it was not found."
    ),
)
