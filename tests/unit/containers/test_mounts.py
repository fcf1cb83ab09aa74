"""Spellings of mounts: one list, one entry per destination, dockerd's words for what cannot be."""

from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument
from tare.containers.container import MountPoint
from tare.containers.mounts import from_mount, inherit, parse_bind, parse_volumes_from, plan_mounts
from tare.wire.config import (
    BindMountOptions,
    ContainerConfig,
    Empty,
    HostConfig,
    ImageMountOptions,
    Mount,
    VolumeDriverConfig,
    VolumeMountOptions,
)


def volume(name: str, destination: str, mode: str = "z", **more: object) -> MountPoint:
    given: dict[str, object] = {"driver": "local", "copies": True, **more}
    return MountPoint(type="volume", source="", name=name, destination=destination, mode=mode, **given)  # type: ignore[arg-type]


def test_binds() -> None:
    assert parse_bind("nn:/b") == volume("nn", "/b")
    assert parse_bind("nn:/b/:ro") == volume("nn", "/b", "ro", is_writable=False)
    assert parse_bind("nn:/b:nocopy", driver="other") == volume("nn", "/b", "nocopy", copies=False, driver="other")
    assert parse_bind("/b") == volume("", "/b", "", is_anonymous=True)
    bound = parse_bind("/host//x:/b:ro,rshared")
    assert (bound.type, bound.source, bound.is_writable, bound.propagation) == ("bind", "/host/x", False, "rshared")
    assert not bound.must_exist


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nn:/b:xx", "invalid mode: xx"),
        ("nn:/b:ro,rw", "invalid mode: ro,rw"),
        ("nn:/b:rshared", "field BindOptions must not be specified"),
        ("nn:b", "mount path must be absolute"),
        ("nn:/", "destination can't be '/'"),
        ("a b:/x", "includes invalid characters for a local volume name"),
        ("nn::ro", "invalid volume specification"),
    ],
)
def test_binds_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        parse_bind(text)


def test_mounts() -> None:
    assert from_mount(Mount(Type="volume", Source="nn", Target="/v", ReadOnly=True)) == volume(
        "nn", "/v", is_writable=False
    )
    options = VolumeMountOptions(
        NoCopy=True,
        Labels={"a": "b"},
        Subpath="in/side",
        DriverConfig=VolumeDriverConfig(Name="other", Options={"o": "x"}),
    )
    assert from_mount(Mount(Type="volume", Target="/v", VolumeOptions=options)) == volume(
        "",
        "/v",
        is_anonymous=True,
        copies=False,
        driver="other",
        labels={"a": "b"},
        options={"o": "x"},
        subpath="in/side",
    )
    bound = from_mount(Mount(Type="bind", Source="/a", Target="/v"))
    assert (bound.must_exist, bound.is_recursive, bound.propagation) == (True, True, "rprivate")
    loose = BindMountOptions(CreateMountpoint=True, NonRecursive=True)
    bound = from_mount(Mount(Type="bind", Source="/a", Target="/v", BindOptions=loose))
    assert (bound.must_exist, bound.is_recursive) == (False, False)
    shallow = BindMountOptions(ReadOnlyNonRecursive=True)
    assert not from_mount(Mount(Type="bind", Source="/a", Target="/v", BindOptions=shallow)).is_read_only_below
    deep = BindMountOptions(ReadOnlyForceRecursive=True)
    with pytest.raises(InvalidArgument, match="needs a read-only mount"):
        from_mount(Mount(Type="bind", Source="/a", Target="/v", BindOptions=deep))


def test_an_image_is_read_only_and_needs_a_name() -> None:
    point = from_mount(Mount(Type="image", Source="web:1", Target="/i", ImageOptions=ImageMountOptions(Subpath="srv")))
    assert (point.type, point.name, point.is_writable, point.subpath) == ("image", "web:1", False, "srv")
    with pytest.raises(InvalidArgument, match="field Source must not be empty"):
        from_mount(Mount(Type="image", Target="/i"))
    with pytest.raises(InvalidArgument, match="field ImageOptions must not be specified"):
        from_mount(Mount(Type="volume", Target="/i", ImageOptions=ImageMountOptions()))


@pytest.mark.parametrize("subpath", ["/abs", "..", "a/../../b", "a\0b"])
def test_subpaths_stay_inside(subpath: str) -> None:
    with pytest.raises(InvalidArgument, match="relative path within the volume"):
        from_mount(Mount(Type="volume", Source="nn", Target="/v", VolumeOptions=VolumeMountOptions(Subpath=subpath)))


def test_volumes_from() -> None:
    assert parse_volumes_from("web") == ("web", "")
    assert parse_volumes_from("web:ro") == ("web", "ro")
    for text in ("", "web:rshared", "web:nocopy", "web:ro,rw"):
        with pytest.raises(InvalidArgument):
            parse_volumes_from(text)
    points = [volume("nn", "/v"), MountPoint(type="tmpfs", source="", destination="/t")]
    assert inherit(points, "ro") == [volume("nn", "/v", "", is_writable=False, copies=False)]
    assert inherit(points, "") == [volume("nn", "/v", "", copies=False)]


def test_what_is_asked_for_takes_the_place_of_what_is_inherited() -> None:
    inherited = [volume("old", "/a", ""), volume("old", "/b", ""), volume("old", "/c", "")]
    host = HostConfig(Binds=["new:/a"], Mounts=[Mount(Type="volume", Source="new", Target="/b")], VolumeDriver="local")
    config = ContainerConfig(Volumes={"/c": Empty(), "/d/e": Empty()})
    points = {point.destination: point.name for point in plan_mounts(config, host, inherited=inherited)}
    assert points == {"/a": "new", "/b": "new", "/c": "old", "/d/e": ""}
    with pytest.raises(InvalidArgument, match="Duplicate mount point: /a"):
        plan_mounts(config, HostConfig(Binds=["x1:/a", "x2:/a"]))
