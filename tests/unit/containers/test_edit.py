"""What an edit makes of a configuration."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from tare.base.errors import InvalidArgument
from tare.base.ids import ContainerId
from tare.containers.container import Container, MountPoint
from tare.containers.edit import edit_env, edit_labels, plan
from tare.wire.config import ContainerConfig, HealthConfig, HostConfig, Mount, UpdateBody

DATA = MountPoint(type="bind", source="/src", destination="/data")
VOLUME = MountPoint(type="volume", source="/v", destination="/v", name="vol")


def container(**changes: object) -> Container:
    given: dict[str, object] = {
        "config": ContainerConfig(Cmd=["sh"], Env=["A=1", "B=2"], Labels={"a": "1"}),
        "host_config": HostConfig(Binds=["/src:/data"], Mounts=[Mount(Type="volume", Source="vol", Target="/v")]),
        "mounts": (DATA, VOLUME),
    }
    return Container(
        id=ContainerId("c" * 64), name="web", created_at=1, image_id="sha256:1", image_reference="busybox",
        runtime="crun", **(given | changes),
    )  # fmt: skip


def test_nothing_asked_nothing_changed() -> None:
    for wanted in (UpdateBody(), UpdateBody(Memory=1 << 30, CpuShares=5)):
        planned = plan(container(), wanted)
        assert not planned.changes(container())
        assert planned.later == ()


def test_labels_and_environment() -> None:
    assert edit_labels({"a": "1", "b": "2"}, {"a": None, "b": "3", "c": "", "d": None}) == {"b": "3", "c": ""}
    assert edit_env(["A=1", "B=2", "C=3"], ["B=x", "A", "D=4", "E"]) == ["B=x", "C=3", "D=4"]
    with pytest.raises(InvalidArgument, match="invalid environment variable: =x"):
        edit_env([], ["=x"])
    planned = plan(container(), UpdateBody(Labels={"b": "2", "a": None}, Env=["A"]))
    assert (planned.config.Labels, planned.config.Env, planned.later) == ({"b": "2"}, ["B=2"], ("environment",))
    assert planned.changes(container())


def test_command() -> None:
    planned = plan(container(), UpdateBody(Cmd=["x"], Entrypoint=["/e"]))
    assert (planned.config.Cmd, planned.config.Entrypoint, planned.later) == (["x"], ["/e"], ("command",))
    with pytest.raises(InvalidArgument, match="no command specified"):
        plan(container(), UpdateBody(Cmd=[]))


def test_health_changes_the_members_that_are_given() -> None:
    old = ContainerConfig(Cmd=["x"], Healthcheck=HealthConfig(Test=["CMD", "true"], Retries=3))
    planned = plan(container(config=old), UpdateBody(Healthcheck=HealthConfig(Retries=9)))
    assert planned.config.Healthcheck == HealthConfig(
        Test=["CMD", "true"], Retries=9, Interval=UNSET, Timeout=UNSET, StartPeriod=UNSET, StartInterval=UNSET
    )
    assert planned.later == ()


def test_mounts_are_added_replaced_and_removed() -> None:
    planned = plan(container(), UpdateBody(Binds=["/new:/data:ro"], RemoveMounts=["/v/"]))
    assert [(point.source, point.destination, point.is_writable) for point in planned.added] == [
        ("/new", "/data", False)
    ]
    assert planned.kept == ()
    assert planned.host_config.Binds == ["/new:/data:ro"]
    assert planned.host_config.Mounts is UNSET
    assert planned.later == ("mounts",)
    planned = plan(container(), UpdateBody(Mounts=[Mount(Type="volume", Source="wol", Target="/w")]))
    assert planned.kept == (DATA, VOLUME)
    assert [mount.Target for mount in planned.host_config.Mounts or ()] == ["/v", "/w"]


def test_edits_of_mounts_add_up_until_the_next_start() -> None:
    planned = plan(container(next_mounts=(DATA,)), UpdateBody(Binds=["/new:/new"]))
    assert planned.kept == (DATA,)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (UpdateBody(RemoveMounts=["/nowhere"]), "no such mount: /nowhere"),
        (UpdateBody(Binds=["/a:/x", "/b:/x"]), "Duplicate mount point: /x"),
    ],
)
def test_what_cannot_be(wanted: UpdateBody, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        plan(container(), wanted)
