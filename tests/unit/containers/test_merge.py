"""What runs when image and container both have something to say."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from tare.base.errors import InvalidArgument
from tare.containers.merge import DEFAULT_PATH, argv_of, environment, merge, merge_env, merge_health
from tare.wire.config import ContainerConfig, Empty, HealthConfig

IMAGE = ContainerConfig(
    Entrypoint=["/entry"],
    Cmd=["serve"],
    Env=["PATH=/bin", "A=image"],
    User="www",
    WorkingDir="/srv",
    StopSignal="SIGQUIT",
    Labels={"a": "image", "b": "image"},
    ExposedPorts={"80/tcp": Empty()},
    Volumes={"/data": Empty()},
    Shell=["/bin/bash", "-c"],
    OnBuild=["RUN x"],
)


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "argv"),
    [
        (None, None, ["/entry", "serve"]),
        (None, ["other"], ["/entry", "other"]),
        (None, [], ["/entry", "serve"]),
        (["/own"], None, ["/own"]),
        (["/own"], ["x"], ["/own", "x"]),
        ("/own", "x y", ["/own", "x y"]),
        ([""], ["x"], ["x"]),
        ("", ["x"], ["x"]),
        ([], ["x"], ["x"]),
        ([], None, ["serve"]),
    ],
)
def test_program(entrypoint: list[str] | str | None, cmd: list[str] | str | None, argv: list[str]) -> None:
    """An own entrypoint drops the image's command; an empty one drops the image's entrypoint."""
    assert argv_of(merge(ContainerConfig(Entrypoint=entrypoint, Cmd=cmd), IMAGE)) == argv


@pytest.mark.parametrize("image", [None, ContainerConfig()])
def test_somebody_must_name_a_program(image: ContainerConfig | None) -> None:
    with pytest.raises(InvalidArgument, match="no command specified"):
        merge(ContainerConfig(), image)
    with pytest.raises(InvalidArgument, match="no command specified"):
        merge(ContainerConfig(Entrypoint=[""]), image)


def test_what_the_container_leaves_open_the_image_fills() -> None:
    merged = merge(ContainerConfig(Labels={"a": "own"}, Env=["A=own", "B"]), IMAGE)
    assert merged.User == "www"
    assert merged.WorkingDir == "/srv"
    assert merged.StopSignal == "SIGQUIT"
    assert merged.Shell == ["/bin/bash", "-c"]
    assert merged.OnBuild == ["RUN x"]
    assert merged.Labels == {"a": "own", "b": "image"}
    assert merged.Env == ["A=own", "B", "PATH=/bin"]
    assert merged.ExposedPorts == {"80/tcp": Empty()}
    assert merged.Volumes == {"/data": Empty()}


def test_what_the_container_says_stays() -> None:
    own = ContainerConfig(
        Cmd=["x"],
        User="0",
        WorkingDir="/w",
        StopSignal="TERM",
        Shell=["/bin/sh"],
        OnBuild=[],
        ExposedPorts={"81/tcp": Empty()},
    )
    merged = merge(own, IMAGE)
    assert (merged.User, merged.WorkingDir, merged.StopSignal) == ("0", "/w", "TERM")
    assert merged.Shell == ["/bin/sh"]
    assert merged.OnBuild == []
    assert merged.ExposedPorts == {"80/tcp": Empty(), "81/tcp": Empty()}


def test_without_anything_to_merge_sets_stay_absent() -> None:
    merged = merge(ContainerConfig(Cmd=["x"]), ContainerConfig())
    assert merged.ExposedPorts is UNSET
    assert merged.Volumes is None
    assert merged.Labels == {}
    assert merged.Healthcheck is UNSET


def test_merge_env_keeps_order_and_knows_names_without_value() -> None:
    assert merge_env(["B", "A=1"], ["A=2", "B=3", "C=4", "AB=5"]) == ["B", "A=1", "C=4", "AB=5"]


def test_merge_health_field_by_field() -> None:
    image = HealthConfig(Test=["CMD", "true"], Interval=5, Retries=2)
    merged = merge_health(HealthConfig(Interval=9), image)
    assert merged == HealthConfig(Test=["CMD", "true"], Interval=9, Retries=2)
    assert merge_health(UNSET, image) is image
    assert merge_health(image, UNSET) is image


def test_environment() -> None:
    config = ContainerConfig(Env=["A=1", "A=2", "EMPTY=", "EQ=a=b", "HOSTNAME=mine"])
    assert environment(config, hostname="box") == [
        DEFAULT_PATH,
        "HOSTNAME=mine",
        "A=2",
        "EMPTY=",
        "EQ=a=b",
    ]


def test_a_bare_name_unsets_and_a_terminal_has_a_type() -> None:
    entries = environment(ContainerConfig(Tty=True, Env=["PATH"]), hostname="box", links=["DB_PORT=1"])
    assert entries == ["HOSTNAME=box", "TERM=xterm", "DB_PORT=1"]
