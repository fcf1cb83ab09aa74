"""Mounts: the spellings of three generations of clients, brought into one list."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from tare.base.errors import InvalidArgument
from tare.containers.container import MountPoint
from tare.containers.mounts import from_mount, parse_bind, plan_mounts
from tare.wire.config import (
    BindMountOptions,
    ContainerConfig,
    Empty,
    HostConfig,
    Mount,
    TmpfsMountOptions,
    VolumeMountOptions,
)


def bind(source: str = "/a", destination: str = "/b", **changes: object) -> MountPoint:
    given: dict[str, object] = {"mode": "", "is_writable": True, "propagation": "rprivate"} | changes
    return MountPoint(type="bind", source=source, destination=destination, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("/a:/b", bind()),
        ("/a/:/b/", bind()),
        ("/a/../c:/b/./d", bind("/c", "/b/d")),
        ("/a://b", bind()),
        ("/a:/b:ro", bind(mode="ro", is_writable=False)),
        ("/a:/b:rw,z", bind(mode="rw,z")),
        ("/a:/b:ro,rshared", bind(mode="ro,rshared", is_writable=False, propagation="rshared")),
        ("/a:/b:Z,cached", bind(mode="Z,cached")),
        ("data:/b", MountPoint(type="volume", source="", name="data", destination="/b", mode="z", driver="local")),
        (
            "data:/b:ro,nocopy",
            MountPoint(
                type="volume",
                source="",
                name="data",
                destination="/b",
                mode="ro,nocopy",
                is_writable=False,
                driver="local",
            ),
        ),
        ("/b", MountPoint(type="volume", source="", destination="/b", driver="local")),
    ],
)
def test_parse_bind(text: str, point: MountPoint) -> None:
    assert parse_bind(text) == point


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid volume specification"),
        (":/b", "invalid volume specification"),
        ("/a:", "invalid volume specification"),
        ("/a:/b:", "invalid volume specification"),
        ("/a:/b:ro:x", "invalid volume specification"),
        ("/a:b", "mount path must be absolute"),
        ("b", "mount path must be absolute"),
        ("/a:/", "destination can't be '/'"),
        ("/a:/x/..", "destination can't be '/'"),
        ("/a:/b:huh", "invalid mode: huh"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:shared,slave", "invalid mode"),
        ("./a:/b", "includes invalid characters for a local volume name"),
        ("x:/b", "includes invalid characters"),
        ("data:/b:shared", "invalid volume specification"),
    ],
)
def test_refused_binds(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        parse_bind(text)


def test_from_mount() -> None:
    assert from_mount(Mount(Type="bind", Source="/a", Target="/b")) == bind()
    assert from_mount(
        Mount(Type="bind", Source="/a", Target="/b", ReadOnly=True, BindOptions=BindMountOptions(Propagation="slave"))
    ) == bind(is_writable=False, propagation="slave")
    assert from_mount(
        Mount(Type="tmpfs", Target="/t", ReadOnly=True, TmpfsOptions=TmpfsMountOptions(SizeBytes=4096, Mode=0o1777))
    ) == MountPoint(type="tmpfs", source="", destination="/t", mode="ro,size=4096,mode=1777")
    assert from_mount(Mount(Type="volume", Target="/v")).name == ""
    assert from_mount(Mount(Type="volume", Source="data", Target="/v")).name == "data"


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        (Mount(Type="bind", Source="/a"), "field Target must not be empty"),
        (Mount(Type="bind", Source="/a", Target="b"), "mount path must be absolute"),
        (Mount(Type="bind", Source="/a", Target="/"), "destination can't be '/'"),
        (Mount(Type="bind", Target="/b"), "field Source must not be empty"),
        (Mount(Type="bind", Source="a", Target="/b"), "mount path must be absolute"),
        (Mount(Type="tmpfs", Source="/a", Target="/b"), "field Source must not be specified"),
        (Mount(Type="volume", Source="/a", Target="/b"), "invalid volume name: /a"),
        (Mount(Type="npipe", Target="/b"), "mount type unknown"),
        (Mount(Target="/b"), "mount type unknown"),
        (
            Mount(Type="bind", Source="/a", Target="/b", BindOptions=BindMountOptions(Propagation="up")),
            "invalid propagation mode: up",
        ),
        (
            Mount(Type="bind", Source="/a", Target="/b", VolumeOptions=VolumeMountOptions()),
            "field VolumeOptions must not be specified",
        ),
        (
            Mount(Type="volume", Target="/b", TmpfsOptions=TmpfsMountOptions()),
            "field TmpfsOptions must not be specified",
        ),
    ],
)
def test_refused_mounts(mount: Mount, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        from_mount(mount)


def test_parents_come_first_and_an_image_volume_yields() -> None:
    config = ContainerConfig(Volumes={"/data": Empty(), "/data/deep/er": Empty()})
    host = HostConfig(
        Binds=["/a:/data/deep", "/h:/data"],
        Mounts=[Mount(Type="bind", Source="/x", Target="/z")],
        Tmpfs={"/run": "size=1m"},
    )
    points = plan_mounts(config, host)
    assert [(point.destination, point.type) for point in points] == [
        ("/data", "bind"),
        ("/z", "bind"),
        ("/run", "tmpfs"),
        ("/data/deep", "bind"),
        ("/data/deep/er", "volume"),
    ]


@pytest.mark.parametrize(
    "host",
    [
        HostConfig(Binds=["/a:/b", "/c:/b/"]),
        HostConfig(Binds=["/a:/b"], Mounts=[Mount(Type="tmpfs", Target="/b")]),
        HostConfig(Binds=["/a:/b"], Tmpfs={"/b": ""}),
    ],
)
def test_two_mounts_at_one_place(host: HostConfig) -> None:
    with pytest.raises(InvalidArgument, match="Duplicate mount point: /b"):
        plan_mounts(ContainerConfig(), host)


def test_nothing_asked_nothing_planned() -> None:
    assert plan_mounts(ContainerConfig(), HostConfig(Mounts=UNSET)) == []
