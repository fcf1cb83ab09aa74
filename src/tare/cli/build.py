"""`tare build`: the flags of a build as the request they stand for, and the engine's account of it as Docker prints it.

The request is the stock docker's, query member by query member, and four that only this engine reads: the headers
`X-Tare-Secrets`, the query's `nocachefilter` and `contexts`. Source: ENGINE-API W45 to W50; docker 28.2.
"""

from __future__ import annotations

import sys

from tare.cli import exit as exits
from tare.cli import flags
from tare.cli.createspec import check_env, check_host, host_line, labels
from tare.cli.flags import BOOL, BYTES, INT, LIST, STRING, STRINGS, Flag
from tare.cli.mountspec import ulimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import ExitStack
    from typing import Any

    from tare.cli.buildcontext import Local, Stream
    from tare.cli.context import Context
    from tare.client.gojson import Json
    from tare.client.http import QueryValue

MAX_SECRETS = 48 * 1024
"""Bytes of the header with all secrets: a request's headers have a limit."""
_LIMITS, _BEYOND = "Limits", "Beyond Docker"
_PROGRESS = ("auto", "plain", "tty", "quiet")
_IMAGE_SCHEME = "docker-image://"
_CACHE_MORE = "[,mode=min|max][,mounts=false]"


# -- what the flags say


def _label(text: str) -> None:
    if not text or text.startswith("="):
        raise ValueError(f"invalid label '{text}': empty name")


def _tag(text: str) -> None:
    from tare.base.errors import InvalidArgument
    from tare.base.reference import parse_reference

    try:
        reference = parse_reference(text)
    except InvalidArgument as error:
        raise ValueError(str(error)) from None
    if reference.digest:
        raise ValueError("refusing to create a tag with a digest reference")


def build_args(given: Sequence[str], environ: Mapping[str, str]) -> dict[str, str | None]:
    """--build-arg as the wire's object: a bare name takes this shell's value, or is declared without one (None)."""
    found: dict[str, str | None] = {}
    for text in given:
        name, equals, value = text.partition("=")
        found[name] = value if equals else environ.get(name)
    return dict(sorted(found.items()))


def named_contexts(given: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """--build-context NAME=DIRECTORY, docker-image://REFERENCE or URL: what the query says, and what is sent.

    The second is directories by the prefix their files have in the tar. Raises ValueError.
    """
    import os
    import secrets

    from tare.cli.buildcontext import is_remote

    found: dict[str, str] = {}
    sent: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals or not value:
            raise ValueError(f"invalid context value: {text}, expected key=value")
        if value.startswith("oci-layout://"):
            raise ValueError(f"--build-context {text}: load the layout and name the image, as {_IMAGE_SCHEME}REFERENCE")
        if value.startswith(_IMAGE_SCHEME) or is_remote(value):
            if value == _IMAGE_SCHEME:
                raise ValueError(f"invalid context value: {text}, expected {_IMAGE_SCHEME}REFERENCE")
            found[name] = value.removeprefix(_IMAGE_SCHEME)
        elif os.path.isdir(value):
            prefix = f".tare-context-{secrets.token_hex(8)}"
            found[name] = f"local:{prefix}"
            sent[prefix] = value
        else:
            raise ValueError(f"--build-context {text}: {value} is no directory")
    return dict(sorted(found.items())), sent


def provenance_mode(text: str) -> str:
    """--provenance `true`, `false`, `mode=min|max` as the engine's mode, "" for none. Raises ValueError."""
    fields = dict(part.partition("=")[::2] for part in text.split(",") if part)
    if not fields or fields.keys() & {"false", "0"}:
        return ""
    mode = fields.pop("mode", "min")
    if mode not in ("min", "max") or fields.keys() - {"true", "1"}:
        raise ValueError(f"invalid value {text!r} of --provenance: use true, false, mode=min or mode=max")
    return mode


def agents_of(given: Sequence[str], environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """--ssh `ID[=SOCKET|KEY[,KEY]]`: sockets by id, and keys by id for which an agent is still to be started.

    Without a path the agent of this shell is meant. Raises ValueError.
    """
    import os
    import stat

    sockets: dict[str, str] = {}
    keys: dict[str, list[str]] = {}
    for text in given:
        name, _, value = text.partition("=")
        name = name or "default"
        if name in sockets or name in keys:
            raise ValueError(f"invalid duplicate ID {name}")
        paths = [path for path in value.split(",") if path] or [environ.get("SSH_AUTH_SOCK", "")]
        if paths == [""]:
            raise ValueError(f"--ssh {text}: the environment has no SSH_AUTH_SOCK: name a socket or a key")
        try:
            kinds = [stat.S_ISSOCK(os.stat(path).st_mode) for path in paths]
        except OSError as error:
            raise ValueError(f"--ssh {text}: {error.filename}: {(error.strerror or '').lower()}") from None
        if any(kinds) and len(paths) > 1:
            raise ValueError(f"--ssh {text}: either one socket or keys")
        if kinds[0]:
            sockets[name] = os.path.abspath(paths[0])
        else:
            keys[name] = [os.path.abspath(path) for path in paths]
    return sockets, keys


def ssh_header(context: Context, options: flags.Options, stack: ExitStack) -> dict[str, str]:
    """The header with the sockets of all agents; those for keys live as long as the stack. Raises Exit, ValueError."""
    import base64

    from tare.cli import sshagent
    from tare.client import gojson

    if not options.many("ssh"):
        return {}
    if not context.client.host.path:
        raise exits.Exit(exits.FAILED, "--ssh is served over the engine's own unix socket only, not over the network")
    sockets, keys = agents_of(options.many("ssh"), context.environ)
    for name, paths in keys.items():
        sockets[name] = stack.enter_context(sshagent.with_keys(paths))
    return {"X-Tare-Ssh": base64.urlsafe_b64encode(gojson.dumps(dict(sorted(sockets.items()))).encode()).decode()}


def read_secret(text: str, environ: Mapping[str, str]) -> tuple[str, bytes]:
    """One --secret `id=NAME[,type=file|env][,src=FILE][,env=VARIABLE]`: its id and value. Raises ValueError.

    Without a source, the environment variable called like the id is taken, else the file.
    """
    from tare.cli.csvline import fields

    known: dict[str, str] = {}
    for field in fields(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        if not equals:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        if key not in ("id", "type", "src", "source", "env"):
            raise ValueError(f"unexpected key '{key}' in '{field}'")
        known["src" if key == "source" else key] = value
    name, kind = known.get("id", ""), known.get("type", "")
    if kind not in ("", "file", "env"):
        raise ValueError(f"unsupported secret type {kind!r}")
    path, variable = known.get("src", ""), known.get("env", "")
    if kind == "env" and path and not variable:
        path, variable = "", path
    name = name or path.rpartition("/")[2] or variable
    if not name:
        raise ValueError(f"secret '{text}' has no id")
    if not path and not variable:
        path, variable = ("", name) if kind != "file" and name in environ else (name, "")
    if variable:
        if variable not in environ:
            raise ValueError(f"secret {name}: the environment has no {variable}")
        return name, environ[variable].encode("utf-8", "surrogateescape")
    return name, _secret_file(name, path)


def _secret_file(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_SECRETS + 1)
    except OSError as error:
        raise ValueError(f"secret {name}: open {path}: {(error.strerror or '').lower()}") from None
    if len(data) > MAX_SECRETS:
        raise ValueError(f"secret {name}: {path} is longer than {MAX_SECRETS} bytes")
    return data


def secrets_header(given: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """The header with all secrets; {} when there are none. Raises ValueError when they are too long together."""
    import base64

    from tare.client import gojson

    if not given:
        return {}
    values = dict(read_secret(text, environ) for text in given)
    document = gojson.dumps({name: base64.b64encode(value).decode() for name, value in values.items()})
    header = base64.urlsafe_b64encode(document.encode()).decode()
    if len(header) > MAX_SECRETS:
        raise ValueError(f"the secrets are too long: {len(header)} bytes encoded, at most {MAX_SECRETS} can be sent")
    return {"X-Tare-Secrets": header}


def query_of(
    options: flags.Options,
    environ: Mapping[str, str],
    contexts: Mapping[str, str] | None = None,
    caches: Sequence[str] | None = None,
) -> dict[str, QueryValue]:
    """The query of the request but for `dockerfile` and `remote`. Raises ValueError.

    contexts: from `named_contexts`. caches: from `buildcache.sources`; without, --cache-from as it stands.
    """
    from tare.cli import buildcache, buildoutput
    from tare.client import gojson

    if caches is None:
        caches = buildcache.sources(options.many("cache-from"))[0]
    targets = [target.text for target in buildcache.targets(options.many("cache-to"))]

    ulimits = sorted((ulimit(text) for text in options.many("ulimit")), key=lambda limit: str(limit["Name"]))
    arguments = build_args(options.many("build-arg"), environ)
    marked = labels([], options.many("label"))
    network = options.text("network")
    found = buildoutput.parse_all(options.many("output"))
    outputs = [output for output in found if output.is_read]
    stored = [name for output in found if not output.is_read for name in output.names]
    return {
        "version": "1",
        "t": [*options.many("tag"), *stored],
        "securityopt": options.many("security-opt"),
        "extrahosts": [host_line(text) for text in options.many("add-host")],
        "q": options.on("quiet"),
        "nocache": options.on("no-cache"),
        "nocachefilter": options.many("no-cache-filter"),
        "allow": options.many("allow"),
        "rm": None if options.on("rm") else "0",
        "forcerm": options.on("force-rm"),
        "pull": options.on("pull"),
        "squash": options.on("squash"),
        "check": options.on("check"),
        "provenance": provenance_mode(options.text("provenance")),
        "isolation": options.text("isolation"),
        "networkmode": "" if network == "default" else network,
        "cpusetcpus": options.text("cpuset-cpus"),
        "cpusetmems": options.text("cpuset-mems"),
        "cpushares": options.number("cpu-shares") or None,
        "cpuquota": options.number("cpu-quota") or None,
        "cpuperiod": options.number("cpu-period") or None,
        "memory": options.number("memory") or None,
        "memswap": options.number("memory-swap") or None,
        "cgroupparent": options.text("cgroup-parent"),
        "shmsize": options.number("shm-size") or None,
        "pidslimit": options.number("pids-limit") or None,
        "target": options.text("target"),
        "platform": options.text("platform").lower(),
        "ulimits": gojson.dumps(ulimits) if ulimits else "",
        "buildargs": gojson.dumps(arguments) if arguments else "",
        "labels": gojson.dumps(marked) if marked else "",
        "cachefrom": gojson.dumps(list(caches)) if caches else "",
        "cacheto": gojson.dumps(targets) if targets else "",
        "contexts": gojson.dumps(dict(contexts)) if contexts else "",
        "outputs": gojson.dumps([{"Type": output.kind} for output in outputs]) if outputs else "",
    }


# -- what is sent


def prepare(
    where: str, file: str, named: Mapping[str, str] | None = None, caches: Sequence[Local] = ()
) -> tuple[Iterator[bytes] | None, str, str]:
    """The context: (its tar or None, the query's `dockerfile`, the query's `remote`). Raises Exit.

    named: further directories that go into the same tar, by their prefix in it; caches: exported ones, as they are.
    """
    import os

    from tare.cli import buildcontext

    if (named or caches) and (where == "-" or not os.path.lexists(where)):
        what = "a further context" if named else "a cache"
        text = f"a directory can be {what} beside a directory only, as its files go into the same tar"
        raise exits.Exit(exits.FAILED, text)
    if where == "-":
        return _from_stdin(file)
    if os.path.lexists(where):
        given = sys.stdin.buffer.read() if file == "-" else None
        local = buildcontext.read_directory(where, file=file, dockerfile=given)
        further = [*(buildcontext.read_named(path, prefix) for prefix, path in (named or {}).items()), *caches]
        return buildcontext.pack(local, *further), local.dockerfile, ""
    if not buildcontext.is_remote(where):
        raise exits.Exit(exits.FAILED, f'unable to prepare context: path "{where}" not found')
    if file == "-":
        raise exits.Exit(exits.FAILED, "the Dockerfile cannot come from stdin when the engine fetches the context")
    return None, file, where


def _from_stdin(file: str) -> tuple[Iterator[bytes], str, str]:
    from tare.cli import buildcontext, progress

    if file == "-":
        raise exits.Exit(exits.FAILED, "invalid argument: can't use stdin for both build context and dockerfile")
    archive, pieces = buildcontext.read_stdin(progress.stdin())
    if archive:
        return pieces, file, ""
    if file:
        text = "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles"
        raise exits.Exit(exits.FAILED, f"unable to prepare context: {text}")
    return buildcontext.single(buildcontext.DOCKERFILE, b"".join(pieces)), buildcontext.DOCKERFILE, ""


# -- what comes back


class Account:
    """The answer's messages on their way to the screen: remembers the image, turns an error into its exit code."""

    def __init__(self, *, is_live: bool = False) -> None:
        """is_live: the messages are those of `progress=steps`, and a person watches."""
        self.is_live = is_live
        self.image = ""
        self.cache = ""
        self.said: list[str] = []

    def watch(self, messages: Iterable[Json]) -> Iterator[dict[str, Any]]:
        """The same messages, those of the image's id taken out. Raises Exit for an error."""
        for message in messages:
            if not isinstance(message, dict):
                continue
            aux = message.get("aux")
            if isinstance(aux, dict):
                self.image = str(aux.get("ID") or self.image)
                self.cache = str(aux.get("Cache") or self.cache)
                continue
            fail(message)
            yield message

    def show(self, messages: Iterable[Json]) -> None:
        """Print it as it comes: what the build says as it is, the progress of a pull as lines or bars. Raises Exit."""
        from tare.cli import progress

        rest = self.watch(messages)
        if self.is_live:
            from tare.cli import buildlive

            buildlive.watch(rest)
            return
        held: list[dict[str, Any]] = []

        def until_stream(first: dict[str, Any]) -> Iterator[Json]:
            yield first
            for message in rest:
                if message.get("stream"):
                    held.append(message)
                    return
                yield message

        for message in rest:
            held.append(message)
            if not message.get("stream"):
                progress.show(until_stream(held.pop()))
            for said in held:
                sys.stdout.write(str(said["stream"]))
                sys.stdout.flush()
            held.clear()

    def collect(self, messages: Iterable[Json]) -> None:
        """Keep what -q does not show; without aux (API before 1.30) its last line is the id."""
        from tare.cli.progress import line_of

        for message in self.watch(messages):
            self.said.append(line_of(message))
        lines = "".join(self.said).split()
        self.image = lines[-1] if lines and not self.image else self.image


def fail(message: dict[str, Any]) -> None:
    """Raise Exit when the message is an error; a failed RUN's exit code becomes ours."""
    from tare.cli import progress

    detail = message.get("errorDetail")
    code = detail.get("code") if isinstance(detail, dict) else None
    try:
        progress.check(message)
    except exits.Exit as leaving:
        if isinstance(code, int) and 0 < code < 256:
            raise exits.Exit(code if code != 401 else exits.FAILED, leaving.message) from None
        raise


def _show(context: Context, documents: Iterable[Json], *, quiet: bool, is_live: bool = False) -> Account:
    """Print the account; its image is "" when the engine names none."""
    account = Account(is_live=is_live)
    if not quiet:
        account.show(documents)
        return account
    try:
        account.collect(documents)
    except exits.Exit:
        context.error("".join(account.said).rstrip("\n"))
        raise
    context.line(account.image)
    return account


def _record(options: flags.Options, image: str, provenance: Json = None) -> None:
    """Write --iidfile and --metadata-file."""
    from tare.base.reference import parse_reference
    from tare.client import gojson

    if path := options.text("iidfile"):
        if not image:
            raise exits.Exit(exits.FAILED, f"server did not provide an image ID. Cannot write {path}")
        _write(path, image)
    if path := options.text("metadata-file"):
        names = [parse_reference(text).with_default_tag().canonical() for text in options.many("tag")]
        found: dict[str, Json] = {"containerimage.config.digest": image}
        if isinstance(provenance, dict):
            found["buildx.build.provenance"] = provenance["predicate"]
        if names:
            found["image.name"] = ",".join(names)
        _write(path, gojson.dumps(found, indent="  ", html=False) + "\n")


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError as error:
        raise exits.Exit(exits.FAILED, f"open {path}: {(error.strerror or '').lower()}") from None


def _forget(path: str) -> None:
    """An old file must not pass for the new image's when the build fails."""
    import os

    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise exits.Exit(exits.FAILED, f"removing {path}: {(error.strerror or '').lower()}") from None


def _build(context: Context, options: flags.Options, operands: list[str]) -> int:
    import contextlib

    from tare.cli import buildcache, buildcontext, buildoutput, progress, registryauth

    contexts, named = named_contexts(options.many("build-context"))
    said, directories = buildcache.sources(options.many("cache-from"))
    targets = buildcache.targets(options.many("cache-to"))
    buildcache.check(targets)
    caches = {place: buildcache.read(context, path, place) for place, path in directories.items()}
    lost = {f"type=tar,src={place}" for place, found in caches.items() if found is None}
    query = query_of(options, context.environ, contexts, [text for text in said if text not in lost])
    headers = secrets_header(options.many("secret"), context.environ)
    sent = [found for found in caches.values() if found is not None]
    pieces, query["dockerfile"], query["remote"] = prepare(operands[0], options.text("file"), named, sent)
    for name in ("iidfile", "metadata-file"):
        if path := options.text(name):
            _forget(path)
    credentials, wrong = registryauth.config_header(context.config_dir)
    for text in wrong:
        context.error(f"WARNING: {text}")
    headers |= credentials
    if options.on("check"):
        return _check(context, query, headers, pieces)
    quiet = options.on("quiet") or options.text("progress") == "quiet"
    query["q"] = quiet
    outputs = buildoutput.parse_all(options.many("output"))
    with contextlib.ExitStack() as stack:
        headers |= ssh_header(context, options, stack)
        if any(output.dest == "-" for output in outputs):  # stdout is the result's
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        is_live = not quiet and _is_live(options.text("progress"))
        query["progress"] = "steps" if is_live else ""
        if pieces is None:
            answer = context.client.request("POST", "/build", query=query, headers=headers)
            account = _show(context, answer.documents(), quiet=quiet, is_live=is_live)
        else:
            if options.on("compress"):
                pieces = buildcontext.compressed(pieces)
            meter = progress.Meter("build context", total=None, wanted=not quiet, stays=False)
            stream = buildcontext.Stream(pieces, meter.add)
            account = _send(context, query, headers, stream, meter, quiet=quiet, is_live=is_live)
    image = account.image
    told: Json = None
    if query["provenance"] and options.text("metadata-file"):
        told = context.client.get(f"/tare/v1/builds/{image}/provenance")
    buildoutput.fetch(context, image, outputs, tags=options.many("tag"))
    for target in targets:
        if target.dest:
            buildcache.write(context, account.cache, target)
    _record(options, image, told)
    return exits.OK


def _is_live(progress: str) -> bool:
    """Whether steps are drawn as they go: --progress tty, or auto where a person watches. Raises Exit."""
    from tare.cli.progress import has_rich

    if progress == "plain":
        return False
    can = sys.stdout.isatty() and has_rich()
    if progress == "tty" and not can:
        raise exits.Exit(exits.FAILED, "--progress tty: failed to get console: provided file is not a console")
    return can


def _progress(text: str) -> None:
    if text not in _PROGRESS:
        raise ValueError(f"invalid progress mode {text}: use one of {', '.join(_PROGRESS)}")


def _check(
    context: Context, query: dict[str, QueryValue], headers: dict[str, str], pieces: Iterator[bytes] | None
) -> int:
    """--check: print what is unwise; 1 if anything is, as with buildx."""
    from tare.cli import buildcontext

    stream = buildcontext.Stream(pieces) if pieces is not None else None
    found = context.client.request("POST", "/build", query=query, headers=headers, upload=stream).json()
    warnings: Any = found["Warnings"] if isinstance(found, dict) else []
    if not warnings:
        context.line("Check complete, no warnings found.")
        return exits.OK
    many = "1 warning has" if len(warnings) == 1 else f"{len(warnings)} warnings have"
    context.line(f"Check complete, {many} been found!")
    for warned in warnings:
        context.line(f"\nWARNING: {warned['Rule']} - {warned['URL']}\n{warned['Message']}")
        context.line(f"{warned['File']}:{warned['Line']}")
    return exits.FAILED


def _send(
    context: Context,
    query: dict[str, QueryValue],
    headers: dict[str, str],
    stream: Stream,
    meter: Meter,
    *,
    quiet: bool,
    is_live: bool,
) -> Account:
    """Send the context and print the account. Raises what stopped the stream, if anything did."""
    from tare.cli import human

    try:
        try:
            answer = context.client.request("POST", "/build", query=query, headers=headers, upload=stream)
        finally:
            meter.close()
            if stream.error is None and stream.count and not quiet and not is_live:
                context.line(f"Sending build context to Docker daemon  {human.size(stream.count)}")
                sys.stdout.flush()
        return _show(context, answer.documents(), quiet=quiet, is_live=is_live)
    except Exception:
        if stream.error is not None:
            raise stream.error from None
        raise


BUILD = flags.Command(
    _build,
    "Make an image from a Dockerfile",
    operands="PATH | URL | -",
    least=1,
    most=1,
    flags=(
        Flag("add-host", "", LIST, "A further line of /etc/hosts while it is built, name:ip", check=check_host),
        Flag("allow", "", STRINGS, "Let RUN leave the sandbox: security.insecure, network.host", group=_BEYOND),
        Flag("build-arg", "", LIST, "Set an ARG of the Dockerfile, name=value", check=check_env),
        Flag("build-context", "", LIST, f"A further context, NAME=DIR, a URL, or {_IMAGE_SCHEME}REF", group=_BEYOND),
        Flag("cache-from", "", LIST, "Take steps over: of these images, or type=local,src=DIR, type=registry,ref=REF"),
        Flag(
            "cache-to",
            "",
            LIST,
            f"Where the cache goes: type=local,dest=DIR or type=registry,ref=REF{_CACHE_MORE}",
            group=_BEYOND,
        ),
        Flag("cgroup-parent", "", STRING, "Parent of the control groups of RUN", group=_LIMITS),
        Flag("check", "", BOOL, "Say what is unwise in the Dockerfile and build nothing", group=_BEYOND),
        Flag("compress", "", BOOL, "Send the context compressed with gzip"),
        Flag("cpu-period", "", INT, "Length of a CPU period in microseconds", group=_LIMITS),
        Flag("cpu-quota", "", INT, "CPU time in a period in microseconds", group=_LIMITS),
        Flag("cpu-shares", "c", INT, "Weight among others that want the CPU", group=_LIMITS),
        Flag("cpuset-cpus", "", STRING, "Run on these CPUs only, as 0-3 or 0,1", group=_LIMITS),
        Flag("cpuset-mems", "", STRING, "Use these memory nodes only, as 0-3 or 0,1", group=_LIMITS),
        Flag("disable-content-trust", "", BOOL, "Accepted for compatibility", default=True, hidden=True),
        Flag("file", "f", STRING, "The Dockerfile; - reads it from stdin; PATH/Dockerfile when not given"),
        Flag("force-rm", "", BOOL, "Remove intermediate containers also after a failure"),
        Flag("iidfile", "", STRING, "Write the image's id to this file"),
        Flag("isolation", "", STRING, "Accepted for compatibility; without effect on Linux", hidden=True),
        Flag("label", "", LIST, "A label of the image, name=value", check=_label),
        Flag("memory", "m", BYTES, "Memory limit of RUN", group=_LIMITS),
        Flag("memory-swap", "", BYTES, "Limit of memory and swap together, -1 for no limit", group=_LIMITS),
        Flag("metadata-file", "", STRING, "Write id and names of the image to this file as JSON", group=_BEYOND),
        Flag("network", "", STRING, "Network of RUN: a name, host, none, container:NAME", default="default"),
        Flag("no-cache", "", BOOL, "Do every step anew"),
        Flag("no-cache-filter", "", STRINGS, "Do every step of these stages anew", group=_BEYOND),
        Flag("output", "o", LIST, "Where the result goes: DIR, or type=local|tar|oci|docker,dest=PATH", group=_BEYOND),
        Flag("pids-limit", "", INT, "How many processes a RUN may have, -1 for no limit", group=_BEYOND),
        Flag("platform", "", STRING, "Build for this platform, os/architecture[/variant]"),
        Flag(
            "progress",
            "",
            STRING,
            "How it is told: auto, plain, tty, quiet",
            default="auto",
            group=_BEYOND,
            check=_progress,
        ),
        Flag("provenance", "", STRING, "Keep what was read: true, mode=min or mode=max", group=_BEYOND),
        Flag("pull", "", BOOL, "Look for newer versions of the images it starts from"),
        Flag("quiet", "q", BOOL, "Print the image's id only"),
        Flag("rm", "", BOOL, "Remove intermediate containers after a success", default=True),
        Flag("secret", "", LIST, "A secret for RUN --mount: id=NAME,src=FILE or id=NAME,env=VARIABLE", group=_BEYOND),
        Flag("security-opt", "", STRINGS, "A security option"),
        Flag("shm-size", "", BYTES, "Size of /dev/shm in RUN", group=_LIMITS),
        Flag("squash", "", BOOL, "Put the layers that are new into one"),
        Flag("ssh", "", LIST, "An ssh agent for RUN --mount=type=ssh: ID[=SOCKET|KEY[,KEY]]", group=_BEYOND),
        Flag("tag", "t", LIST, "Name of the image, name[:tag]", check=_tag),
        Flag("target", "", STRING, "Stop after this stage"),
        Flag("ulimit", "", flags.ULIMIT, "A resource limit of RUN, name=soft[:hard]", group=_LIMITS, check=ulimit),
    ),
    about=(
        "PATH is a directory; NAME.dockerignore beside the Dockerfile, else .dockerignore, says what of it stays here."
        " A URL, of a Git repository or of a tar or Dockerfile, is fetched by the engine. `-` reads a tar archive or a"
        " Dockerfile from stdin."
    ),
)

if TYPE_CHECKING:
    from tare.cli.progress import Meter
