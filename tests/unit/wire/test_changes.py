"""`--change`, as a table."""

from __future__ import annotations

import msgspec
import pytest

from tare.base.errors import InvalidArgument
from tare.wire.changes import (
    add_volumes,
    apply_changes,
    expose,
    parse_duration,
    set_env,
    set_labels,
    set_workdir,
)
from tare.wire.config import ContainerConfig


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        (["CMD ls -l"], "Cmd", ["/bin/sh", "-c", "ls -l"]),
        (['cmd ["ls","-l"]'], "Cmd", ["ls", "-l"]),
        (['ENTRYPOINT ["a"]'], "Entrypoint", ["a"]),
        (["ENV A=1 B='x y' C=a\\ b", "ENV A=2"], "Env", ["A=2", "B=x y", "C=a b"]),
        (["ENV A some words"], "Env", ["A=some words"]),
        (
            ["EXPOSE 8080:80 127.0.0.1:53:54/udp [::1]::90-91 1-2:3"],
            "ExposedPorts",
            {"80/tcp": {}, "54/udp": {}, "90/tcp": {}, "91/tcp": {}, "3/tcp": {}},
        ),
        (["EXPOSE 80 53/udp 90-91"], "ExposedPorts", {"80/tcp": {}, "53/udp": {}, "90/tcp": {}, "91/tcp": {}}),
        (["ENV A=1", "ENV A=0:$A B=${A}2 C='$A'", "ENV D $B c"], "Env", ["A=0:1", "B=12", "C=$A", "D=12 c"]),
        (["ENV P=80 D=/d U=me", "EXPOSE $P ${Q:-53}/udp"], "ExposedPorts", {"80/tcp": {}, "53/udp": {}}),
        (["ENV D=/d", 'VOLUME ["$D/a"]', "VOLUME $D/b"], "Volumes", {"/d/a": {}, "/d/b": {}}),
        (["ENV D=/d", "WORKDIR $D/a"], "WorkingDir", "/d/a"),
        (["ENV U=me", "USER $U:1"], "User", "me:1"),
        (["ENV S=SIGINT", "STOPSIGNAL $S"], "StopSignal", "SIGINT"),
        (["ENV V=1", "LABEL v=$V"], "Labels", {"v": "1"}),
        (["ENV V=1", "CMD echo $V"], "Cmd", ["/bin/sh", "-c", "echo $V"]),
        (['LABEL a=b "c d"="e"'], "Labels", {"a": "b", "c d": "e"}),
        (["ONBUILD RUN x"], "OnBuild", ["RUN x"]),
        (["STOPSIGNAL SIGINT"], "StopSignal", "SIGINT"),
        (["USER 1:2"], "User", "1:2"),
        (['VOLUME ["/a"]', "VOLUME /b /c"], "Volumes", {"/a": {}, "/b": {}, "/c": {}}),
        (["WORKDIR /a", "WORKDIR b/../c"], "WorkingDir", "/a/c"),
        (
            ["HEALTHCHECK --interval=1m30s --retries=3 CMD true"],
            "Healthcheck",
            {"Test": ["CMD-SHELL", "true"], "Interval": 90 * 10**9, "Retries": 3},
        ),
        (["HEALTHCHECK NONE"], "Healthcheck", {"Test": ["NONE"]}),
        (["# nothing\nCMD \\\n x"], "Cmd", ["/bin/sh", "-c", "x"]),
    ],
)
def test_applied(changes: list[str], field: str, value: object) -> None:
    assert msgspec.to_builtins(apply_changes(ContainerConfig(), changes))[field] == value


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("RUN x", "RUN is not a valid change command"),
        ("FOO x", "unknown instruction: FOO"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV =b", "ENV names can not be blank"),
        ("LABEL a=b c", "can't find ="),
        ("EXPOSE a:80", "invalid containerPort: a:80"),
        ("EXPOSE 80:", "invalid containerPort: 80:"),
        ("EXPOSE x", "invalid containerPort: x"),
        ("EXPOSE 70000", "invalid containerPort"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("HEALTHCHECK --x=1 CMD y", "unknown flag: x"),
        ("HEALTHCHECK FOO", "unknown type"),
        ("HEALTHCHECK CMD", "missing command"),
        ("USER a b", "exactly one"),
        ("LABEL a='b", "matching single-quote"),
        ("STOPSIGNAL a b", "exactly one"),
    ],
)
def test_refused(change: str, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        apply_changes(ContainerConfig(), [change])


def test_durations() -> None:
    assert parse_duration("1h1.5s") == 3_601_500_000_000
    assert parse_duration("0") == 0
    for text in ("1x", "", "9" * 400 + "s", "1s "):
        with pytest.raises(InvalidArgument, match="invalid duration"):
            parse_duration(text)


def test_variables_keep_their_places() -> None:
    config = set_env(ContainerConfig(Env=["A=1", "B=2"]), [("B", "x=y"), ("C", ""), ("A", "3"), ("C", "4")])
    assert config.Env == ["A=3", "B=x=y", "C=4"]
    assert set_env(ContainerConfig(), [("A", "1")]).Env == ["A=1"]


def test_labels_are_added() -> None:
    assert set_labels(ContainerConfig(Labels={"a": "1", "b": "2"}), [("b", "3"), ("c", "")]).Labels == {
        "a": "1",
        "b": "3",
        "c": "",
    }


def test_ports_are_added() -> None:
    config = expose(expose(ContainerConfig(), ["80"]), ["80/TCP", "90-91/udp"])
    assert msgspec.to_builtins(config)["ExposedPorts"] == {"80/tcp": {}, "90/udp": {}, "91/udp": {}}


@pytest.mark.parametrize("word", ["", "0", "65536", "90-80", "80/icmp", "a", "80:a", "80/", "-80"])
def test_ports_refused(word: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid containerPort"):
        expose(ContainerConfig(), [word])


def test_volumes_are_added() -> None:
    config = add_volumes(add_volumes(ContainerConfig(), ["/a"]), [" /b ", "/a"])
    assert msgspec.to_builtins(config)["Volumes"] == {"/a": {}, "/b": {}}
    with pytest.raises(InvalidArgument, match="VOLUME specified can not be an empty string"):
        add_volumes(ContainerConfig(), ["/a", " "])


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ("", "a", "/a"),
        ("", ".", "/"),
        ("/a", "b/", "/a/b"),
        ("/a", "../../..", "/"),
        ("/a", "/b", "/b"),
        ("/a", "//b//c", "/b/c"),
    ],
)
def test_directories_go_on_from_the_last_one(before: str, path: str, after: str) -> None:
    assert set_workdir(ContainerConfig(WorkingDir=before), path).WorkingDir == after
