"""Devices by name: what the Container Device Interface's files on this machine say, and what a container asks of them (pure).

A name is `vendor.com/class=device`. `--gpus` means devices of the class gpu of the first vendor that has some.
Source: cncf-tags/container-device-interface, SPEC.md (0.3 to 1.0); moby daemon/cdi.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from tare.base.errors import InvalidArgument
from tare.wire.config import DeviceRequest

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
DRIVER = "cdi"
_VENDOR = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?\Z")
_CLASS = re.compile(r"[A-Za-z](?:[A-Za-z0-9_-]*[A-Za-z0-9])?\Z")
_DEVICE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?\Z")
_VERSION = re.compile(r"v?(0\.[1-9]|1\.\d+)\.\d+\Z")
_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_GPU_KINDS = ("nvidia.com/gpu", "amd.com/gpu")
_ALL = "all"


class Node(Struct, frozen=True, kw_only=True):
    """A device node. host_path "" is the same as path; kind, numbers and mode None: those of the host's node."""

    path: str
    host_path: str = ""
    kind: str = ""
    major: int | None = None
    minor: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    access: str = "rwm"


class Edits(Struct, frozen=True, kw_only=True):
    """What is added to a container. mounts and hooks are in the form of the OCI specification."""

    env: tuple[str, ...] = ()
    nodes: tuple[Node, ...] = ()
    mounts: tuple[Mapping[str, Any], ...] = ()
    hooks: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    gids: tuple[int, ...] = ()

    def __add__(self, other: Edits) -> Edits:
        return Edits(
            env=self.env + other.env,
            nodes=self.nodes + other.nodes,
            mounts=self.mounts + other.mounts,
            hooks=self.hooks + other.hooks,
            gids=self.gids + other.gids,
        )


class Spec(Struct, frozen=True, kw_only=True):
    """One file. Of two that have a device the one of higher priority (a later directory) counts."""

    path: str
    kind: str
    priority: int
    common: Edits
    devices: Mapping[str, Edits]


class Known(Struct, frozen=True):
    """All files that can be understood, and what is wrong with the others."""

    specs: tuple[Spec, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Every device by its full name."""
        return sorted({f"{spec.kind}={name}" for spec in self.specs for name in spec.devices})

    def find(self, name: str) -> tuple[Spec, Edits] | None:
        """The file and the edits of a device; None where none has it. Raises InvalidArgument when two do equally."""
        kind, _, device = name.partition("=")
        having = [spec for spec in self.specs if spec.kind == kind and device in spec.devices]
        if not having:
            return None
        top = max(spec.priority for spec in having)
        best = [spec for spec in having if spec.priority == top]
        if len(best) > 1:
            raise InvalidArgument(
                f"CDI device injection failed: conflicting device {name}: " + ", ".join(spec.path for spec in best)
            )
        return best[0], best[0].devices[device]


# --- reading


def parse(document: object, *, path: str, priority: int) -> Spec:
    """One file's content. Raises InvalidArgument for what the specification does not allow."""
    top = _object(document, "the file")
    version, kind = _text(top, "cdiVersion"), _text(top, "kind")
    if not _VERSION.match(version):
        raise InvalidArgument(f"unknown cdiVersion {version!r}")
    vendor, slash, name = kind.partition("/")
    if not (slash and _VENDOR.match(vendor) and _CLASS.match(name)):
        raise InvalidArgument(f"invalid kind {kind!r}")
    devices: dict[str, Edits] = {}
    for entry in _list(top, "devices"):
        device = _object(entry, "a device")
        known = _text(device, "name")
        if not _DEVICE.match(known):
            raise InvalidArgument(f"invalid device name {known!r}")
        if known in devices:
            raise InvalidArgument(f"the device {known!r} is there twice")
        devices[known] = _edits(device.get("containerEdits"))
    if not devices:
        raise InvalidArgument("no devices")
    return Spec(path=path, kind=kind, priority=priority, common=_edits(top.get("containerEdits")), devices=devices)


def _edits(value: object) -> Edits:
    if value is None:
        return Edits()
    edits = _object(value, "containerEdits")
    env = [_string(entry, "a variable") for entry in _list(edits, "env")]
    if wrong := next((entry for entry in env if "=" not in entry), None):
        raise InvalidArgument(f"invalid variable {wrong!r}")
    return Edits(
        env=tuple(env),
        nodes=tuple(_node(_object(entry, "a device node")) for entry in _list(edits, "deviceNodes")),
        mounts=tuple(_mount(_object(entry, "a mount")) for entry in _list(edits, "mounts")),
        hooks=tuple(_hook(_object(entry, "a hook")) for entry in _list(edits, "hooks")),
        gids=tuple(_number(entry, "additionalGids") for entry in _list(edits, "additionalGids")),
    )


def _node(entry: Mapping[str, object]) -> Node:
    access = _text(entry, "permissions", default="") or "rwm"
    kind = _text(entry, "type", default="")
    if set(access) - set("rwm") or kind not in ("", "b", "c", "u", "p"):
        raise InvalidArgument(f"invalid device node {entry.get('path')!r}")

    def number(name: str) -> int | None:
        return _number(entry[name], name) if entry.get(name) is not None else None

    return Node(
        path=_absolute(entry, "path"),
        host_path=_text(entry, "hostPath", default=""),
        kind="c" if kind == "u" else kind,
        major=number("major"),
        minor=number("minor"),
        mode=number("fileMode"),
        uid=number("uid"),
        gid=number("gid"),
        access=access,
    )


def _mount(entry: Mapping[str, object]) -> dict[str, Any]:
    return {
        "destination": _absolute(entry, "containerPath"),
        "type": _text(entry, "type", default="") or "bind",
        "source": _text(entry, "hostPath"),
        "options": [_string(option, "an option") for option in _list(entry, "options")]
        or ["ro", "nosuid", "nodev", "bind"],
    }


def _hook(entry: Mapping[str, object]) -> tuple[str, dict[str, Any]]:
    name = _text(entry, "hookName")
    if name not in _HOOKS:
        raise InvalidArgument(f"invalid hook {name!r}")
    hook: dict[str, Any] = {"path": _absolute(entry, "path")}
    for key in ("args", "env"):
        if words := [_string(word, key) for word in _list(entry, key)]:
            hook[key] = words
    if entry.get("timeout") is not None:
        hook["timeout"] = _number(entry["timeout"], "timeout")
    return name, hook


def _object(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidArgument(f"{what} is not an object")
    return value


def _list(owner: Mapping[str, object], name: str) -> Sequence[object]:
    value = owner.get(name)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidArgument(f"{name} is not a list")
    return value


def _string(value: object, what: str) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise InvalidArgument(f"{what} is not a text")
    return value


def _text(owner: Mapping[str, object], name: str, *, default: str | None = None) -> str:
    value = owner.get(name)
    if value is None and default is not None:
        return default
    if value in (None, ""):
        raise InvalidArgument(f"{name} is missing")
    return _string(value, name)


def _absolute(owner: Mapping[str, object], name: str) -> str:
    text = _text(owner, name)
    if not text.startswith("/"):
        raise InvalidArgument(f"{name} {text!r} is not absolute")
    return text


def _number(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise InvalidArgument(f"{what} is not a number")
    return value


# --- asking


def names_of(requests: Iterable[DeviceRequest], known: Known) -> list[str]:
    """The full names that requests mean, in order, each once. Raises InvalidArgument with dockerd's texts."""
    names: list[str] = []
    for request in requests:
        if request.Driver == DRIVER:
            names += request.DeviceIDs or []
        else:
            names += _gpus(request, known)
    return list(dict.fromkeys(names))


def _gpus(request: DeviceRequest, known: Known) -> list[str]:
    """`--gpus`: by name, by count, or all."""
    wanted = [set(group) for group in request.Capabilities or ()]
    vendors = {"": _GPU_KINDS, "nvidia": _GPU_KINDS[:1], "amd": _GPU_KINDS[1:]}.get(request.Driver, ())
    there = known.names()
    kind = next((kind for kind in vendors if any(name.startswith(f"{kind}=") for name in there)), None)
    if kind is None or not any("gpu" in group for group in wanted):
        shown = "[" + " ".join("[" + " ".join(group) + "]" for group in request.Capabilities or ()) + "]"
        raise InvalidArgument(
            f'could not select device driver "{request.Driver}" with capabilities: {shown}',
            hint=f"GPUs are handed in by the CDI files of {' or '.join(vendors or _GPU_KINDS)}"
            f" in {' and '.join(DIRECTORIES)}",
        )
    devices = [name.partition("=")[2] for name in there if name.startswith(f"{kind}=")]
    if request.DeviceIDs:
        if request.Count:
            raise InvalidArgument("cannot set both Count and DeviceIDs on device request")
        return [f"{kind}={device}" for device in request.DeviceIDs]
    if request.Count < 0:
        return [f"{kind}={_ALL}"] if _ALL in devices else [f"{kind}={device}" for device in devices]
    single = _singles(devices)
    if request.Count > len(single):
        raise InvalidArgument(f"could not select {request.Count} devices of {kind}: there are {len(single)}")
    return [f"{kind}={device}" for device in single[: request.Count]]


def _singles(devices: Sequence[str]) -> list[str]:
    """The devices that are one each: by number where they have numbers (names beside these are other words for them)."""
    numbered = sorted((device for device in devices if device.isdecimal()), key=int)
    return numbered or [device for device in devices if device != _ALL]


def edits_of(names: Sequence[str], known: Known) -> Edits:
    """Everything that devices add: what is common to a file once, before its first device. Raises InvalidArgument."""
    missing = [name for name in names if known.find(name) is None]
    if missing:
        there = ", ".join(known.names()) or "none"
        problems = "".join(f"; {path}: {why}" for path, why in sorted(known.problems.items()))
        raise InvalidArgument(
            f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}",
            hint=f"known devices: {there}{problems}",
        )
    edits, seen = Edits(), set[str]()
    for name in names:
        found = known.find(name)
        assert found is not None
        spec, own = found
        if spec.path not in seen:
            seen.add(spec.path)
            edits += spec.common
        edits += own
    return edits


# --- applying


def apply(config: dict[str, Any], edits: Edits, numbered: Callable[[Node], Mapping[str, Any]]) -> None:
    """Edit an OCI specification in place. numbered: a node with what the host knows of it, in the form of `linux.devices`.

    A node or mount replaces what is at its place; a variable the one of its name.
    """
    process, linux = config["process"], config["linux"]
    names = {entry.partition("=")[0] for entry in edits.env}
    process["env"] = [entry for entry in process["env"] if entry.partition("=")[0] not in names] + list(edits.env)
    for node in edits.nodes:
        device = dict(numbered(node))
        uid, gid = process["user"]["uid"], process["user"]["gid"]
        device.update({"uid": device["uid"] if node.uid is not None else uid})
        device.update({"gid": device["gid"] if node.gid is not None else gid})
        linux["devices"] = [other for other in linux["devices"] if other["path"] != node.path] + [device]
        if device["type"] in ("b", "c"):
            linux["resources"]["devices"].append(
                {"allow": True, "access": node.access} | {key: device[key] for key in ("type", "major", "minor")}
            )
    for mount in edits.mounts:
        rest = [other for other in config["mounts"] if other["destination"] != mount["destination"]]
        config["mounts"] = [*rest, dict(mount)]
    for name, hook in edits.hooks:
        config.setdefault("hooks", {}).setdefault(name, []).append(dict(hook))
    groups = process["user"].setdefault("additionalGids", [])
    groups += [gid for gid in dict.fromkeys(edits.gids) if gid and gid not in groups]
