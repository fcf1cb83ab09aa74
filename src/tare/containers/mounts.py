"""Which mounts a container asks for: `Binds`, `Mounts`, `Tmpfs` and `Volumes` brought into one list (pure).

Source: moby volume/mounts/linux_parser.go for spellings and texts.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from msgspec import UNSET
from msgspec.structs import replace

from tare.base.errors import InvalidArgument
from tare.containers.container import MountPoint
from tare.wire.config import (
    BindMountOptions,
    ContainerConfig,
    HostConfig,
    Mount,
    VolumeDriverConfig,
    VolumeMountOptions,
)

PROPAGATIONS = frozenset({"private", "rprivate", "slave", "rslave", "shared", "rshared"})
_MODES = frozenset({"rw", "ro", "z", "Z", "nocopy", "consistent", "cached", "delegated"})
_INHERITED_MODES = frozenset({"rw", "ro", "z", "Z"})
_LOCAL = "local"
_OPTIONS = {"BindOptions": "bind", "VolumeOptions": "volume", "ImageOptions": "image", "TmpfsOptions": "tmpfs"}
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")


def plan_mounts(
    config: ContainerConfig, host_config: HostConfig, *, inherited: Iterable[MountPoint] = ()
) -> list[MountPoint]:
    """Every mount, one per destination, in the order they are made (parents first).

    inherited: what `--volumes-from` brings; what is asked for by name takes its place.
    A volume without a name is anonymous: the caller names it. Raises InvalidArgument in dockerd's words.
    """
    points = {point.destination: point for point in inherited}
    asked: set[str] = set()

    def put(point: MountPoint) -> None:
        if point.destination in asked:
            raise InvalidArgument(f"Duplicate mount point: {point.destination}")
        asked.add(point.destination)
        points[point.destination] = point

    for text in host_config.Binds or ():
        put(parse_bind(text, driver=host_config.VolumeDriver))
    for mount in host_config.Mounts or ():
        assert isinstance(mount, Mount)
        put(from_mount(mount))
    tmpfs = host_config.Tmpfs
    if isinstance(tmpfs, dict):
        for destination, options in tmpfs.items():
            put(MountPoint(type="tmpfs", source="", destination=_absolute(destination, destination), mode=options))
    for destination in config.Volumes or {}:
        clean = _absolute(destination, destination)
        if clean not in points:
            points[clean] = MountPoint(
                type="volume",
                source="",
                destination=clean,
                driver=host_config.VolumeDriver or _LOCAL,
                is_anonymous=True,
                copies=True,
            )
    return sorted(points.values(), key=lambda point: point.destination.count("/") if point.destination != "/" else 0)


def parse_volumes_from(text: str) -> tuple[str, str]:
    """`container[:mode]`: whose mounts to take, and how ("" or a mode). Raises InvalidArgument."""
    if not text:
        raise InvalidArgument("volumes-from specification cannot be an empty string")
    name, _, mode = text.partition(":")
    words = [word for word in mode.split(",") if word]
    if any(word not in _INHERITED_MODES for word in words) or {"ro", "rw"} <= set(words):
        raise InvalidArgument(f"invalid mode: {mode}")
    return name, mode


def inherit(points: Iterable[MountPoint], mode: str) -> list[MountPoint]:
    """Another container's mounts as `--volumes-from` hands them on; `ro` makes all of them read-only.

    What fills an empty volume is the image of the container that asked for it, so nothing is copied again.
    """
    is_writable = "ro" not in mode.split(",")
    return [
        replace(point, mode="", is_writable=point.is_writable and is_writable, copies=False)
        for point in points
        if point.type in ("bind", "volume")
    ]


def parse_bind(text: str, *, driver: str = "") -> MountPoint:
    """`source:destination[:mode,…]`; a source that is no path names a volume; a lone path is an anonymous volume.

    driver: of a volume that has to be made ("": local).
    """
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        destination = _absolute(parts[0], text)
        return MountPoint(
            type="volume", source="", destination=destination, driver=driver or _LOCAL, is_anonymous=True, copies=True
        )
    source, destination = parts[0], _absolute(parts[1], text)
    mode = parts[2] if len(parts) == 3 else ""
    words = [word for word in mode.split(",") if word]
    unknown = [word for word in words if word not in _MODES and word not in PROPAGATIONS]
    if unknown or ("ro" in words and "rw" in words) or sum(word in PROPAGATIONS for word in words) > 1:
        raise InvalidArgument(f"invalid mode: {mode}")
    propagation = next((word for word in words if word in PROPAGATIONS), "")
    is_writable = "ro" not in words
    if source.startswith("/"):
        return MountPoint(
            type="bind",
            source=posixpath.normpath(source),
            destination=destination,
            mode=mode,
            is_writable=is_writable,
            propagation=propagation or "rprivate",
        )
    if not _VOLUME_NAME.match(source):
        raise InvalidArgument(
            f'create {source}: "{source}" includes invalid characters for a local volume name, '
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
    if propagation:
        raise InvalidArgument(
            f"invalid volume specification: '{text}': "
            'invalid mount config for type "volume": field BindOptions must not be specified'
        )
    return MountPoint(
        type="volume",
        source="",
        name=source,
        destination=destination,
        mode=mode or "z",
        is_writable=is_writable,
        driver=driver or _LOCAL,
        copies="nocopy" not in words,
    )


def from_mount(mount: Mount) -> MountPoint:
    """One entry of `Mounts` (the `--mount` flag)."""
    kind = mount.Type or ""
    source = mount.Source or ""
    target = mount.Target or ""
    assert isinstance(kind, str)
    assert isinstance(source, str)
    assert isinstance(target, str)
    if not target:
        raise InvalidArgument(f'invalid mount config for type "{kind}": field Target must not be empty')
    destination = _absolute(target, target, kind=kind)
    is_writable = mount.ReadOnly is not True
    _refuse_foreign_options(mount, kind)
    if kind == "bind":
        if not source:
            raise InvalidArgument('invalid mount config for type "bind": field Source must not be empty')
        if not source.startswith("/"):
            raise InvalidArgument(
                f"invalid mount config for type \"bind\": invalid mount path: '{source}' mount path must be absolute"
            )
        options = mount.BindOptions or BindMountOptions()
        if options.ReadOnlyForceRecursive and is_writable:
            raise InvalidArgument(
                'invalid mount config for type "bind": ReadOnlyForceRecursive needs a read-only mount'
            )
        propagation = options.Propagation or ""
        if propagation and propagation not in PROPAGATIONS:
            raise InvalidArgument(f"invalid propagation mode: {propagation}")
        return MountPoint(
            type="bind",
            source=posixpath.normpath(source),
            destination=destination,
            is_writable=is_writable,
            propagation=propagation or "rprivate",
            mode="",
            must_exist=not options.CreateMountpoint,
            is_recursive=not options.NonRecursive,
            is_read_only_below=not options.ReadOnlyNonRecursive,
        )
    if kind == "tmpfs":
        if source:
            raise InvalidArgument('invalid mount config for type "tmpfs": field Source must not be specified')
        return MountPoint(type="tmpfs", source="", destination=destination, is_writable=is_writable)
    if kind == "volume":
        if source and not _VOLUME_NAME.match(source):
            raise InvalidArgument(f'invalid mount config for type "volume": invalid volume name: {source}')
        return _volume_of(mount, name=source, destination=destination, is_writable=is_writable)
    if kind == "image":
        if not source:
            raise InvalidArgument('invalid mount config for type "image": field Source must not be empty')
        image = mount.ImageOptions
        subpath = _subpath((image.Subpath or "") if image else "", kind="image")
        return MountPoint(
            type="image", source="", name=source, destination=destination, is_writable=False, subpath=subpath
        )
    raise InvalidArgument(f'invalid mount config for type "{kind}": mount type unknown')


def _volume_of(mount: Mount, *, name: str, destination: str, is_writable: bool) -> MountPoint:
    wanted = mount.VolumeOptions or VolumeMountOptions()
    config = wanted.DriverConfig or VolumeDriverConfig()
    return MountPoint(
        type="volume",
        source="",
        name=name,
        destination=destination,
        mode="z",
        is_writable=is_writable,
        driver=config.Name or _LOCAL,
        is_anonymous=not name,
        copies=not wanted.NoCopy,
        subpath=_subpath(wanted.Subpath or ""),
        labels=dict(wanted.Labels or {}),
        options=dict(config.Options or {}),
    )


def _subpath(text: str, *, kind: str = "volume") -> str:
    """A directory within the volume or image; whether it is there is asked when it is mounted."""
    if text.startswith("/") or ".." in text.split("/") or "\0" in text:
        raise InvalidArgument(
            f'invalid mount config for type "{kind}": subpath must be a relative path within the volume'
        )
    return text


def _refuse_foreign_options(mount: Mount, kind: str) -> None:
    for name, owner in _OPTIONS.items():
        if owner != kind and getattr(mount, name) is not UNSET:
            raise InvalidArgument(f'invalid mount config for type "{kind}": field {name} must not be specified')


def _absolute(path: str, spec: str, *, kind: str = "") -> str:
    if not path.startswith("/"):
        where = f'invalid mount config for type "{kind}": ' if kind else ""
        raise InvalidArgument(f"{where}invalid mount path: '{path}' mount path must be absolute")
    clean = posixpath.normpath(path)
    clean = "/" + clean.lstrip("/")
    if clean == "/":
        raise InvalidArgument(
            f"invalid volume specification: '{spec}': invalid specification: destination can't be '/'"
        )
    return clean
