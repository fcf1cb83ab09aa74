"""The config documents of images: reading Docker's container configuration out of one, writing a new one."""

from __future__ import annotations

import platform as host
from collections.abc import Sequence
from typing import Any

import msgspec

from tare.base.errors import InvalidArgument
from tare.images.records import Layer
from tare.oci.image import ImageConfig
from tare.wire.config import ContainerConfig
from tare.wire.decode import convert

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
    """`os/arch[/variant]` or `os`; None for "". Raises InvalidArgument."""
    if not text:
        return None
    parts = text.lower().split("/")
    if len(parts) > 3 or not all(part.replace("_", "").replace(".", "").replace("-", "").isalnum() for part in parts):
        raise InvalidArgument(f"{text[:80]!r}: unknown operating system or architecture: invalid argument")
    if parts[0] != "linux":
        raise InvalidArgument(f"operating system {parts[0]!r} is not supported")
    return parts[0], parts[1] if len(parts) > 1 else host_architecture(), parts[2] if len(parts) > 2 else ""
