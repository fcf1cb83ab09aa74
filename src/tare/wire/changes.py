"""`--change` of import and commit: Dockerfile instructions applied to a configuration. Pure.

Variables are those of the configuration: `ENV PATH=/opt/bin:$PATH` adds to what the image has.

Source: Dockerfile reference, the instructions' own sections; ENGINE-API W82.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from msgspec import UNSET

from tare.base.errors import InvalidArgument
from tare.wire.config import ContainerConfig, Empty, HealthConfig
from tare.wire.expand import expand, expand_words, split_words
from tare.wire.signals import parse_signal

NOT_STRINGS = "when using JSON array syntax, arrays must be comprised of strings only"

INSTRUCTIONS = frozenset(
    [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ]
)
_DEFAULT_SHELL = ["/bin/sh", "-c"]
_OUTSIDE = re.compile(r"(?:(?:(?:[0-9.]{7,15}|\[?[0-9a-fA-F:.]*\]?):)?(?:\d{1,5}(?:-\d{1,5})?)?)?\Z")
"""What may stand before the port where somebody meant to publish it: an address and a port of the host."""
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?\Z", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNIT_NANOS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_MIN_HEALTH_NANOS = 10**6

Config = ContainerConfig


def apply_changes(config: ContainerConfig, changes: Sequence[str]) -> ContainerConfig:
    """`config` after the instructions, in order. Raises InvalidArgument naming the instruction."""
    for change in changes:
        for line in _lines(change):
            config = _apply(config, line)
    return config


def _lines(text: str) -> list[str]:
    joined = re.sub(r"\\[ \t]*\r?\n", "", text)
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _apply(config: Config, line: str) -> Config:
    word, _, rest = line.partition(" ") if " " in line else line.partition("\t")
    name, rest = word.upper(), rest.strip()
    handler = _HANDLERS.get(name)
    if handler is None:
        if name in INSTRUCTIONS:
            raise InvalidArgument(f"{name} is not a valid change command")
        raise InvalidArgument(f"dockerfile parse error: unknown instruction: {name}")
    if not rest and name not in ("CMD", "ENTRYPOINT"):
        raise InvalidArgument(f"{name} requires at least one argument")
    return handler(config, rest)


def _json_form(rest: str) -> list[str] | None:
    """The words of an exec form, None for a shell form. Raises InvalidArgument for a list of other things."""
    if not rest.startswith("["):
        return None
    try:
        found = json.loads(rest)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list):
        return None
    if not all(isinstance(word, str) for word in found):
        raise InvalidArgument(NOT_STRINGS)
    return found


def _command(config: Config, rest: str) -> list[str] | None:
    words = _json_form(rest)
    if words is not None:
        return words
    if not rest:
        return None
    shell = config.Shell if config.Shell is not UNSET else _DEFAULT_SHELL
    return [*shell, rest]


def _cmd(config: Config, rest: str) -> Config:
    return msgspec.structs.replace(config, Cmd=_command(config, rest))


def _entrypoint(config: Config, rest: str) -> Config:
    return msgspec.structs.replace(config, Entrypoint=_command(config, rest))


def _variables(config: Config) -> dict[str, str]:
    """What `$NAME` means in a change: the environment as it is so far."""
    return {name: value for name, _, value in (entry.partition("=") for entry in config.Env or ())}


def _pairs(rest: str, name: str, variables: Mapping[str, str]) -> list[tuple[str, str]]:
    """Names and values. The variables are those from before the line, also for what it sets itself."""
    first = re.split(r"\s", rest, maxsplit=1)[0]
    if "=" not in first:  # the old form: KEY the rest is the value
        key, _, value = rest.partition(" ")
        if not value.strip():
            raise InvalidArgument(f"{name} must have two arguments")
        return [(expand(key, variables), expand(value.strip(), variables))]
    pairs = []
    for word in split_words(rest):
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidArgument(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
        key = expand(key, variables)
        if not key:
            raise InvalidArgument(f"{name} names can not be blank")
        pairs.append((key, expand(value, variables)))
    return pairs


def set_env(config: Config, pairs: Iterable[tuple[str, str]]) -> Config:
    """Set variables, each in the place where it was before."""
    env = list(config.Env or [])
    for key, value in pairs:
        for position, known in enumerate(env):
            if known.partition("=")[0] == key:
                env[position] = f"{key}={value}"
                break
        else:
            env.append(f"{key}={value}")
    return msgspec.structs.replace(config, Env=env)


def _env(config: Config, rest: str) -> Config:
    return set_env(config, _pairs(rest, "ENV", _variables(config)))


def set_labels(config: Config, pairs: Iterable[tuple[str, str]]) -> Config:
    """Add labels to those that are there."""
    return msgspec.structs.replace(config, Labels={**(config.Labels or {}), **dict(pairs)})


def _label(config: Config, rest: str) -> Config:
    return set_labels(config, _pairs(rest, "LABEL", _variables(config)))


def expose(config: Config, words: Sequence[str]) -> Config:
    """Name ports: `80`, `80-90/udp`. Of `127.0.0.1:8080:80`, as one writes it to publish, 80 counts. Raises InvalidArgument."""
    ports = dict(config.ExposedPorts) if config.ExposedPorts is not UNSET else {}
    for word in words:
        outside, _, inside = word.rpartition(":")
        match = _PORT.match(inside) if _OUTSIDE.match(outside) else None
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not match or not 0 < first <= last <= 65535:
            raise InvalidArgument(f"invalid containerPort: {word}")
        for port in range(first, last + 1):
            ports[f"{port}/{(match[3] or 'tcp').lower()}"] = Empty()
    return msgspec.structs.replace(config, ExposedPorts=ports)


def _expose(config: Config, rest: str) -> Config:
    return expose(config, expand_words(rest, _variables(config)))


def add_volumes(config: Config, paths: Sequence[str]) -> Config:
    """Name places that get a volume of their own. Raises InvalidArgument."""
    volumes = dict(config.Volumes or {})
    for path in paths:
        if not path.strip():
            raise InvalidArgument("VOLUME specified can not be an empty string")
        volumes[path.strip()] = Empty()
    return msgspec.structs.replace(config, Volumes=volumes)


def _volume(config: Config, rest: str) -> Config:
    form = _json_form(rest)
    variables = _variables(config)
    if form is None:
        return add_volumes(config, expand_words(rest, variables))
    return add_volumes(config, [expand(path, variables) for path in form])


def _user(config: Config, rest: str) -> Config:
    words = expand_words(rest, _variables(config))
    if len(words) != 1:
        raise InvalidArgument("USER requires exactly one argument")
    return msgspec.structs.replace(config, User=words[0])


def _workdir(config: Config, rest: str) -> Config:
    return set_workdir(config, expand(rest, _variables(config)))


def set_workdir(config: Config, path: str) -> Config:
    """Change directory; a relative path goes on from the last one."""
    path = posixpath.normpath(posixpath.join(config.WorkingDir or "/", path))
    return msgspec.structs.replace(config, WorkingDir="/" + path.lstrip("/"))


def set_stop_signal(config: Config, rest: str) -> Config:
    """Which signal asks the container to end: a name or a number. Raises InvalidArgument."""
    if len(rest.split()) != 1:
        raise InvalidArgument("STOPSIGNAL requires exactly one argument")
    if not rest.isdecimal() or not int(rest):  # any other number may be a signal of some kernel
        parse_signal(rest)
    return msgspec.structs.replace(config, StopSignal=rest)


def _stop_signal(config: Config, rest: str) -> Config:
    return set_stop_signal(config, expand(rest, _variables(config)))


def add_trigger(config: Config, rest: str) -> Config:
    """ONBUILD: an instruction for the images built on this one. Raises InvalidArgument."""
    trigger = rest.split()[0].upper()
    if trigger == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise InvalidArgument(f"{trigger} isn't allowed as an ONBUILD trigger")
    return msgspec.structs.replace(config, OnBuild=[*(config.OnBuild or []), rest])


def parse_duration(text: str) -> int:
    """Go's durations (`1m30s`, `1.5h`) in nanoseconds. Raises InvalidArgument."""
    total, at = 0.0, 0
    while at < len(text):
        match = _DURATION.match(text, at)
        if match is None:
            break
        total += float(match[1]) * _UNIT_NANOS[match[2]]
        at = match.end()
    if at != len(text) or not text:
        if text == "0":
            return 0
        raise InvalidArgument(f'time: invalid duration "{text}"')
    if total >= 2**63:
        raise InvalidArgument(f'time: invalid duration "{text[:40]}"')
    return round(total)


def set_health(config: Config, rest: str) -> Config:
    """HEALTHCHECK with its flags. Raises InvalidArgument."""
    fields: dict[str, int] = {}
    names = {
        "interval": "Interval",
        "timeout": "Timeout",
        "start-period": "StartPeriod",
        "start-interval": "StartInterval",
        "retries": "Retries",
    }
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        key, _, value = flag[2:].partition("=")
        rest = rest.strip()
        if key not in names:
            raise InvalidArgument(f"unknown flag: {key}")
        if key == "retries":
            if not value.isdecimal() or len(value) > 9 or int(value) < 1:
                raise InvalidArgument("--retries cannot be less than 1 or is not a number")
            fields["Retries"] = int(value)
            continue
        nanos = parse_duration(value)
        if 0 < nanos < _MIN_HEALTH_NANOS:
            raise InvalidArgument(f'interval "{key}" cannot be less than 1ms')
        fields[names[key]] = nanos
    kind, _, rest = rest.partition(" ")
    if kind.upper() == "NONE":
        if rest.strip():
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        return msgspec.structs.replace(config, Healthcheck=HealthConfig(Test=["NONE"]))
    if kind.upper() != "CMD":
        raise InvalidArgument(f'unknown type "{kind}" in HEALTHCHECK (try CMD)')
    form = _json_form(rest.strip())
    if not rest.strip() or form == []:
        raise InvalidArgument("missing command after HEALTHCHECK CMD")
    test = ["CMD", *form] if form is not None else ["CMD-SHELL", rest.strip()]
    return msgspec.structs.replace(config, Healthcheck=HealthConfig(Test=test, **fields))


_HANDLERS: dict[str, Callable[[Config, str], Config]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": set_health,
    "LABEL": _label,
    "ONBUILD": add_trigger,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
