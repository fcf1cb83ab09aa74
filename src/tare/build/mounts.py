"""`RUN --mount`: what is put into the sandbox of one step beside its file system.

Source: ENGINE-API 4.5.
"""

from __future__ import annotations

import csv
import posixpath
import re

from msgspec import Struct
from msgspec.structs import replace

from tare.build.instructions import Run

_KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
_SAME = {
    "dst": "target",
    "destination": "target",
    "src": "source",
    "readwrite": "rw",
    "readonly": "ro",
}
_ALLOWED = {
    "bind": {"target", "source", "from", "rw", "ro"},
    "cache": {"target", "id", "sharing", "from", "source", "mode", "uid", "gid", "ro", "rw"},
    "tmpfs": {"target", "size"},
    "secret": {"id", "target", "env", "required", "mode", "uid", "gid"},
    "ssh": {"id", "target", "required", "mode", "uid", "gid"},
}
_SWITCHES = {"rw", "ro", "required"}
_OCTAL = re.compile(r"[0-7]+\Z")
_MAX_DIGITS = 18  # of numbers that mean anything; Python refuses to read thousands
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}


class Mount(Struct, frozen=True, kw_only=True):
    """One mount. `origin` is the stage, image or context; "" means the build context for a bind, nothing for a cache.

    `mode` in octal as a number, `size` in bytes (0 for no limit). `target` is "" for a secret that is only `env`.
    """

    kind: str
    target: str = ""
    source: str = ""
    origin: str = ""
    id: str = ""
    writable: bool = False
    sharing: str = "shared"
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size: int = 0
    env: str = ""
    required: bool = False


def parse_mount(run: Run, text: str, *, workdir: str) -> Mount:
    """One `--mount` with its variables replaced. Raises DockerfileError."""
    error = run.line.error
    fields = _fields(run, text)
    kind = fields.pop("type", "bind")
    if kind not in _KINDS:
        raise error(f"unsupported mount type {kind!r}: use one of {', '.join(_KINDS)}")
    for name in fields:
        if name not in _ALLOWED[kind]:
            raise error(f"unexpected key '{name}' for mount type '{kind}'")
    if "rw" in fields and "ro" in fields:
        raise error("a mount is either read-only or writable")
    mount = Mount(
        kind=kind,
        target=_target(fields.get("target", ""), workdir),
        source=fields.get("source", ""),
        origin=fields.get("from", ""),
        id=fields.get("id", ""),
        writable=_is_writable(fields, kind == "cache"),
        sharing=fields.get("sharing", "shared"),
        uid=_number(run, "uid", fields.get("uid", "0")),
        gid=_number(run, "gid", fields.get("gid", "0")),
        size=_bytes(run, fields.get("size", "0")),
        env=fields.get("env", ""),
        required=fields.get("required") == "true",
        mode=_mode(run, fields.get("mode", {"secret": "0400", "ssh": "0600"}.get(kind, "0755"))),
    )
    return _completed(run, mount)


def _completed(run: Run, mount: Mount) -> Mount:
    error = run.line.error
    if mount.kind in ("bind", "cache", "tmpfs") and not mount.target:
        raise error(f"invalid mount target for type={mount.kind}: it needs a target")
    if mount.target == "/":
        raise error(f"invalid mount target {mount.target!r}")
    if mount.kind == "cache":
        if mount.sharing not in ("shared", "private", "locked"):
            raise error(f"unsupported sharing value {mount.sharing!r}: use shared, private or locked")
        return replace(mount, id=mount.id or mount.target)
    if mount.kind == "secret":
        if not mount.id and not mount.target:
            raise error("a secret needs an id or a target")
        name = mount.id or posixpath.basename(mount.target)
        default = "" if mount.env else f"/run/secrets/{posixpath.basename(name)}"
        return replace(mount, id=name, target=mount.target or default)
    if mount.kind == "ssh":
        return replace(mount, id=mount.id or "default", target=mount.target or "/run/buildkit/ssh_agent.0")
    return mount


def _fields(run: Run, text: str) -> dict[str, str]:
    try:
        parts = next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration):
        raise run.line.error(f"cannot read mount {text!r}") from None
    fields: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.strip().partition("=")
        name = _SAME.get(name.lower(), name.lower())
        if not equals:
            if name not in _SWITCHES:
                raise run.line.error(f"invalid field '{part}' must be a key=value pair")
            value = "true"
        elif name in _SWITCHES:
            if value.lower() not in ("true", "false", "1", "0"):
                raise run.line.error(f"invalid value for {name}: {value}")
            value = "true" if value.lower() in ("true", "1") else "false"
        if name == "from" and "$" in value:
            raise run.line.error("'from' doesn't support variable expansion, define alias stage instead")
        if name not in {"type", *(key for allowed in _ALLOWED.values() for key in allowed)}:
            raise run.line.error(f"unexpected key '{name}' in '{part}'")
        fields[name] = value.lower() if name == "type" else value
    return fields


def _is_writable(fields: dict[str, str], by_default: bool) -> bool:
    if "rw" in fields:
        return fields["rw"] == "true"
    return fields["ro"] != "true" if "ro" in fields else by_default


def _target(text: str, workdir: str) -> str:
    return posixpath.normpath(posixpath.join("/", workdir, text)).replace("//", "/") if text else ""


def _number(run: Run, name: str, text: str) -> int:
    if not text.isdecimal() or len(text) > _MAX_DIGITS or int(text) > 2**32 - 2:
        raise run.line.error(f"invalid value {text} for {name}")
    return int(text)


def _mode(run: Run, text: str) -> int:
    if not _OCTAL.match(text) or int(text, 8) > 0o7777:
        raise run.line.error(f"invalid value {text} for mode")
    return int(text, 8)


def _bytes(run: Run, text: str) -> int:
    digits = text.rstrip("bBkKmMgG")
    unit = text[len(digits) :].lower()
    if not digits.isdecimal() or len(digits) > _MAX_DIGITS or unit not in _UNITS:
        raise run.line.error(f"invalid value {text} for size")
    return int(digits) * _UNITS[unit]
