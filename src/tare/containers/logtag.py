"""The tag of a forwarded log line, and what of labels and environment goes with it (pure).

A tag is a Go template over the facts of a container: `{{.Name}}/{{.ID}}`, `{{lower .ImageName}}`. Known are its fields,
pipes, `index`, `json`, `lower`, `upper`, `title` and `truncate`; anything else is refused in words.
Source: docs.docker.com/engine/logging/log_tags; moby daemon/logger/loginfo.go.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping

from msgspec import Struct, field

from tare.base.clock import rfc3339nano
from tare.base.errors import InvalidArgument
from tare.containers.container import Container

DEFAULT = "{{.ID}}"
_SHORT = 12
_ACTION = re.compile(r"\{\{(-\s)?\s*(.*?)\s*(\s-)?\}\}", re.DOTALL)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`|[^\s|]+|\|')

Value = str | dict[str, str]
_TEXT_FIELDS = [
    "ID",
    "FullID",
    "Name",
    "ImageID",
    "ImageFullID",
    "ImageName",
    "Command",
    "Hostname",
    "DaemonName",
    "ContainerID",
    "ContainerName",
    "ContainerEntrypoint",
    "ContainerArgs",
    "ContainerImageID",
    "ContainerImageName",
    "ContainerCreated",
    "ContainerEnv",
    "LogPath",
]
_MAP_FIELDS = ("ContainerLabels", "Config")
_TEXTS: Mapping[str, Callable[[str], str]] = {"lower": str.lower, "upper": str.upper, "title": str.title}


class Facts(Struct, frozen=True):
    """What a tag may name. `fields` as in Go's `.Name`; `attributes` what labels and environment add."""

    fields: Mapping[str, Value]
    attributes: Mapping[str, str] = field(default_factory=dict)


def facts_of(container: Container, options: Mapping[str, str], *, path: str = "") -> Facts:
    """The facts of a container. path: of its log. Raises InvalidArgument for a wrong regular expression."""
    config = container.config
    argv = [*_words(config.Entrypoint), *_words(config.Cmd)]
    env = list(config.Env or ())
    attributes = attributes_of(options, labels=container.labels, env=env)
    return Facts(
        fields={
            "ID": container.id[:_SHORT],
            "FullID": container.id,
            "Name": container.name,
            "ImageID": container.image_id[:_SHORT],
            "ImageFullID": container.image_id,
            "ImageName": container.image_reference,
            "Command": " ".join(argv),
            "Hostname": os.uname().nodename,
            "DaemonName": "tare",
            "ContainerID": container.id,
            "ContainerName": f"/{container.name}",
            "ContainerEntrypoint": argv[0] if argv else "",
            "ContainerArgs": "[" + " ".join(argv[1:]) + "]",
            "ContainerImageID": container.image_id,
            "ContainerImageName": container.image_reference,
            "ContainerCreated": rfc3339nano(container.created_at),
            "ContainerLabels": dict(container.labels),
            "ContainerEnv": "[" + " ".join(env) + "]",
            "Config": dict(options),
            "LogPath": path,
        },
        attributes=attributes,
    )


def check(options: Mapping[str, str]) -> None:
    """Refuse a tag or expression that no container could have. Raises InvalidArgument."""
    attributes_of(options, labels={"a": ""}, env=["a=b"])
    fields: dict[str, Value] = {name: name for name in _TEXT_FIELDS}
    render(options.get("tag") or DEFAULT, Facts(fields | {name: {} for name in _MAP_FIELDS}))


def _words(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(word) for word in value] if isinstance(value, list) else []


def attributes_of(options: Mapping[str, str], *, labels: Mapping[str, str], env: list[str]) -> dict[str, str]:
    """The labels and variables that the options `labels`, `labels-regex`, `env` and `env-regex` choose."""
    variables = dict(entry.partition("=")[::2] for entry in env)
    out: dict[str, str] = {}
    for name, source in (("labels", labels), ("env", variables)):
        wanted = [key for key in options.get(name, "").split(",") if key in source]
        if expression := options.get(f"{name}-regex", ""):
            wanted += [key for key in source if _compiled(expression).search(key)]
        out.update((key, source[key]) for key in wanted)
    return out


def _compiled(expression: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except (re.error, RecursionError):
        raise InvalidArgument(f"error parsing regexp: {expression}") from None


def render(template: str, facts: Facts) -> str:
    """The tag. Raises InvalidArgument in Go's words for what the template cannot mean."""
    out: list[str] = []
    at, trims = 0, False
    for match in _ACTION.finditer(template):
        text = template[at : match.start()]
        text = text.lstrip() if trims else text
        out.append(text.rstrip() if match[1] else text)
        out.append(_shown(_evaluate(match[2], facts)))
        at, trims = match.end(), bool(match[3])
    rest = template[at:]
    if "{{" in rest:
        raise InvalidArgument("template: log-tag:1: unclosed action")
    out.append(rest.lstrip() if trims else rest)
    return "".join(out)


def _evaluate(action: str, facts: Facts) -> Value:
    words: list[str] = _WORD.findall(action)
    if not words:
        raise InvalidArgument("template: log-tag:1: missing value for command")
    value: Value | None = None
    while True:
        bar = words.index("|") if "|" in words else len(words)
        value = _command(words[:bar], value, facts)
        if bar >= len(words):
            return value
        words = words[bar + 1 :]


def _command(words: list[str], piped: Value | None, facts: Facts) -> Value:
    if not words:
        raise InvalidArgument("template: log-tag:1: missing value for command")
    name, *rest = words
    if name == ".ExtraAttributes" and rest == ["nil"]:
        return dict(facts.attributes)
    if name[0] in '."`':
        if rest or piped is not None:
            raise InvalidArgument(f"template: log-tag:1: {name} is not a function but has arguments")
        return _operand(name, facts)
    arguments = [_operand(word, facts) for word in rest] + ([piped] if piped is not None else [])
    return _call(name, arguments)


def _operand(word: str, facts: Facts) -> Value:
    if word[0] == '"':
        try:
            return str(json.loads(word))
        except ValueError:
            raise InvalidArgument("template: log-tag:1: unterminated quoted string") from None
    if word[0] == "`":
        return word[1:-1]
    if word[0] == ".":
        found = facts.fields.get(word[1:])
        if found is None:
            raise InvalidArgument(
                f'template: log-tag:1: executing "log-tag" at <{word}>: '
                f"can't evaluate field {word[1:]} in type *logger.Info"
            )
        return found
    return word  # a number


def _call(name: str, arguments: list[Value]) -> Value:
    first = arguments[0] if arguments else ""
    if name in _TEXTS and len(arguments) == 1:
        return _TEXTS[name](_shown(first))
    if name == "json" and len(arguments) == 1:
        return json.dumps(first, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    if name == "truncate" and len(arguments) == 2 and isinstance(arguments[1], str) and arguments[1].isdecimal():
        return _shown(first)[: int(arguments[1][:9])]
    if name == "index" and len(arguments) == 2 and isinstance(first, dict):
        return first.get(_shown(arguments[1]), "")
    if name in (*_TEXTS, "json", "truncate", "index"):
        raise InvalidArgument(f"template: log-tag:1: wrong arguments for {name}")
    raise InvalidArgument(f'template: log-tag:1: function "{name}" not defined')


def _shown(value: Value) -> str:
    if isinstance(value, str):
        return value
    return "map[" + " ".join(f"{key}:{value[key]}" for key in sorted(value)) + "]"
