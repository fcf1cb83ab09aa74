"""The document about a container that travels, and what is decided about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from tare.base.clock import Nanos
from tare.base.errors import InvalidArgument, NotFound
from tare.base.ids import ContainerId
from tare.containers import package as packages
from tare.containers.container import Container, MountPoint, State
from tare.containers.health import Health, Probe
from tare.containers.package import Package, PackedImage, PackedNetwork, PackedRoot, PackedVolume
from tare.wire.config import ContainerConfig, EndpointIPAM, EndpointSettings, HostConfig
from tare.wire.networks import NetworkCreate

ID = ContainerId("a" * 64)
POINTS = (
    MountPoint(type="volume", source="/somewhere/data/_data", destination="/data", name="data", driver="local"),
    MountPoint(type="volume", source="/nfs", destination="/net", name="net", driver="local"),
    MountPoint(type="bind", source="/srv", destination="/srv"),
)
CONTAINER = Container(
    id=ID,
    name="web",
    created_at=Nanos(5),
    image_id="sha256:x",
    image_reference="app:1",
    config=ContainerConfig(Hostname="a" * 12, Env=["B=1", "A=2"], Labels={"z": "1", "a": "2"}),
    host_config=HostConfig(NetworkMode="f00", ContainerIDFile="/tmp/id"),
    runtime="crun",
    mounts=POINTS,
    asked_endpoints={
        "front": EndpointSettings(
            Aliases=["www"], IPAMConfig=EndpointIPAM(IPv4Address="10.1.0.5"), NetworkID="f00", IPAddress="10.1.0.5"
        )
    },
    state=State.EXITED,
    exit_code=3,
    started_at=Nanos(6),
    finished_at=Nanos(7),
    restart_count=2,
    health=Health(status="healthy", log=(Probe(started_at=1, ended_at=2, exit_code=0, output="fine"),)),
)


def packed(container: Container = CONTAINER) -> Package:
    return packages.package_of(
        container,
        image=PackedImage(Id="sha256:x", Reference="docker.io/library/app:1"),
        networks=[PackedNetwork(Definition=NetworkCreate(Name="front"))],
        volumes=[PackedVolume(Name="data", Content="sha256:v"), PackedVolume(Name="net")],
        root=PackedRoot(Mode=0o750, Uid=1),
        layer="sha256:l",
        log="",
        network_mode="front",
        machine="m",
        engine="e",
    )


def test_it_reads_what_it_wrote() -> None:
    package = packed()
    assert packages.decode(packages.encode(package)) == package
    assert package.contents == ["sha256:l", "sha256:v"]


def test_equal_containers_give_equal_bytes() -> None:
    other = replace(
        CONTAINER, config=ContainerConfig(Hostname="a" * 12, Env=["B=1", "A=2"], Labels={"a": "2", "z": "1"})
    )
    assert packages.encode(packed(other)) == packages.encode(packed())


def test_what_only_means_something_here_stays_here() -> None:
    package = packed()
    assert [point.source for point in package.Mounts] == ["", "", "/srv"]
    assert (package.HostConfig.NetworkMode, package.HostConfig.ContainerIDFile) == ("front", "")
    endpoint = package.Endpoints["front"]
    assert (endpoint.NetworkID, endpoint.IPAddress, endpoint.Aliases) == ("", "", ["www"])
    assert endpoint.IPAMConfig == EndpointIPAM(IPv4Address="10.1.0.5")


def arrived(package: Package, container_id: ContainerId = ID) -> Container:
    return packages.unpacked(
        package,
        container_id=container_id,
        name="web",
        image_id="sha256:x",
        host_config=package.HostConfig,
        mounts=POINTS,
        endpoints=package.Endpoints,
    )


def test_a_stopped_container_is_what_it_was() -> None:
    there = arrived(packed())
    assert (there.id, there.state, there.exit_code, there.restart_count) == (ID, State.EXITED, 3, 2)
    assert (there.health, there.started_at, there.created_at) == (CONTAINER.health, 6, 5)


@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED, State.RESTARTING])
def test_what_ran_is_created_until_it_is_started(state: State) -> None:
    package = packed(replace(CONTAINER, state=state))
    assert package.was_running
    assert package.was_paused is (state is State.PAUSED)
    there = arrived(package)
    assert (there.state, there.started_at, there.health) == (State.CREATED, 0, None)


def test_a_new_id_is_a_new_default_host_name() -> None:
    assert arrived(packed(), ContainerId("b" * 64)).config.Hostname == "b" * 12
    named = replace(CONTAINER, config=ContainerConfig(Hostname="mine"))
    assert arrived(packed(named), ContainerId("b" * 64)).config.Hostname == "mine"


def test_the_id_is_kept_on_other_machines_and_by_its_own_engine() -> None:
    package = packed()
    assert packages.keeps_id(package, machine="other", engine="x")
    assert packages.keeps_id(package, machine="m", engine="e")
    assert not packages.keeps_id(package, machine="m", engine="x")


def test_mounts_that_hold_from_the_next_start_are_the_ones_that_travel() -> None:
    assert packages.mounts_of(CONTAINER) == POINTS
    assert packages.mounts_of(replace(CONTAINER, next_mounts=POINTS[:1])) == POINTS[:1]


def test_volumes_under_other_names() -> None:
    package = packages.with_volumes(packed(), {"data": "new", "gone": "x"})
    assert [volume.Name for volume in package.Volumes] == ["new", "net"]
    assert [point.name for point in package.Mounts] == ["new", "net", ""]
    assert packages.with_volumes(package, {}) is package


@pytest.mark.parametrize(
    ("wanted", "chosen"), [(None, ("data",)), ((), ()), (("data",), ("data",)), (("/data", "data"), ("data",))]
)
def test_which_volumes_travel(wanted: tuple[str, ...] | None, chosen: tuple[str, ...]) -> None:
    assert packages.choose_volumes(POINTS, wanted, plain={"data"}) == chosen


def test_a_volume_that_is_not_there_or_elsewhere_is_refused() -> None:
    with pytest.raises(NotFound, match="no volume dta") as found:
        packages.choose_volumes(POINTS, ["dta"], plain={"data"})
    assert found.value.hint == "it has data, net"
    with pytest.raises(InvalidArgument, match="volume net shows"):
        packages.choose_volumes(POINTS, ["net"], plain={"data"})


def mount(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["Mounts"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda d: d.update(Format=2), "format 2"),
        (lambda d: d.update(Id="../../etc"), "no container id"),
        (lambda d: d["State"].update(Status="sleeping"), "unknown state"),
        (lambda d: d["Mounts"].append(d["Mounts"][0]), "Duplicate mount point"),
        (lambda d: d["Volumes"].append(d["Volumes"][0]), "twice"),
        (lambda d: d["Volumes"].pop(0), "not described"),
        (lambda d: d["Root"].update(Mode=1 << 20), "owner or mode"),
        (lambda d: d["Root"].update(ModifiedAt=-1), "time of a directory"),
        (mount(type="npipe"), "mount type"),
        (mount(destination="data"), "destination"),
        (mount(destination="/a/../b"), "destination"),
        (mount(destination="/"), "destination"),
        (mount(propagation="all"), "propagation"),
        (mount(type="bind", source="srv"), "bind source"),
        (mount(subpath="../x"), "subpath"),
    ],
)
def test_a_document_nobody_would_write_is_refused(change: Callable[[dict[str, Any]], None], error: str) -> None:
    document = json.loads(packages.encode(packed()))
    change(document)
    with pytest.raises(InvalidArgument, match=error):
        packages.decode(json.dumps(document).encode())


def test_what_is_no_document_is_refused() -> None:
    for raw in (b"", b"[]", b'{"Format":1,"Format":1}', b'{"Format":1,"Name":5}'):
        with pytest.raises(InvalidArgument):
            packages.decode(raw)
