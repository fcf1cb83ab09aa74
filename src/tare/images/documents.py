"""The config documents of images: reading Docker's container configuration out of one, writing a new one."""

from __future__ import annotations

import platform as host
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from tare.base.errors import InvalidArgument
from tare.images.records import Layer
from tare.oci import platform as platforms
from tare.oci.image import ImageConfig, Platform
from tare.wire.config import ContainerConfig
from tare.wire.decode import convert

_OS = re.compile(r"[A-Za-z0-9_-]+(?:\([A-Za-z0-9_.-]*\))?")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SYSTEM_ALIASES = {"macos": "darwin"}
_SYSTEMS = frozenset(
    [
        "aix",
        "android",
        "darwin",
        "dragonfly",
        "freebsd",
        "hurd",
        "illumos",
        "ios",
        "js",
        "linux",
        "nacl",
        "netbsd",
        "openbsd",
        "plan9",
        "solaris",
        "windows",
        "zos",
    ]
)
_PROCESSORS = frozenset(
    [
        "386",
        "amd64",
        "amd64p32",
        "arm",
        "armbe",
        "arm64",
        "arm64be",
        "ppc64",
        "ppc64le",
        "loong64",
        "mips",
        "mipsle",
        "mips64",
        "mips64le",
        "mips64p32",
        "mips64p32le",
        "ppc",
        "riscv",
        "riscv64",
        "s390",
        "s390x",
        "sparc",
        "sparc64",
        "wasm",
    ]
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def host_architecture() -> str:
    """Go's name for this machine's processor."""
    machine = host.machine()
    return _ARCHITECTURES.get(machine, machine)


def config_of_image(document: ImageConfig) -> ContainerConfig:
    """Docker's container configuration inside an image. Raises InvalidArgument."""
    return convert(dict(document.config or {}), ContainerConfig)


def config_document(
    config: ContainerConfig,
    *,
    created: str,
    layers: Sequence[Layer],
    history: list[dict[str, Any]],
    platform: tuple[str, str, str] | None = None,
    author: str = "",
    comment: str = "",
) -> bytes:
    """The bytes of a new image config. platform: os, architecture, variant; None for this machine."""
    system, architecture, variant = platform or ("linux", host_architecture(), "")
    document: dict[str, Any] = {"architecture": architecture or host_architecture()}
    document |= {"variant": variant} if variant else {}
    document |= {"author": author} if author else {}
    document |= {"comment": comment} if comment else {}
    document |= {
        "config": msgspec.to_builtins(config),
        "created": created,
        "history": history,
        "os": system or "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
    }
    return msgspec.json.encode(document)


def parse_platform(text: str) -> tuple[str, str, str] | None:
    """`os/arch[/variant]`, or one of them for this machine's other half; None for "". Raises InvalidArgument.

    containerd's rules: only a word that stands alone must be known, since it could be either. The old spellings of
    processors get Go's names.
    """
    if not text:
        return None
    parts = text.split("/")
    if not _OS.fullmatch(parts[0]):
        raise InvalidArgument(f"{parts[0][:80]!r} is an invalid OS component of {text[:80]!r}: invalid argument")
    for part in parts[1:]:
        if not _PART.fullmatch(part):
            raise InvalidArgument(f"{part[:80]!r} is an invalid component of {text[:80]!r}: invalid argument")
    if len(parts) > 3:
        raise InvalidArgument(f"{text[:80]!r}: cannot parse platform specifier: invalid argument")
    system, *rest = (part.lower() for part in parts)
    system = _SYSTEM_ALIASES.get(system, system)
    if not rest and system not in _SYSTEMS:
        alone = platforms.normalized(Platform(system, "linux"))
        if alone.architecture not in _PROCESSORS:
            raise InvalidArgument(f"{text[:80]!r}: unknown operating system or architecture: invalid argument")
        return "linux", alone.architecture, "" if alone.variant == "v7" else alone.variant
    if system != "linux":
        raise InvalidArgument(f"operating system is not supported: {system[:80]}")
    architecture = platforms.go_name(rest[0]) if rest else host_architecture()
    return system, architecture, rest[1] if len(rest) > 1 else ""
