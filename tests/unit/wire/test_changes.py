"""`--change`, as a table."""

from __future__ import annotations

import msgspec
import pytest

from tare.base.errors import InvalidArgument
from tare.wire.changes import apply_changes, parse_duration
from tare.wire.config import ContainerConfig


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        (["CMD ls -l"], "Cmd", ["/bin/sh", "-c", "ls -l"]),
        (['cmd ["ls","-l"]'], "Cmd", ["ls", "-l"]),
        (['ENTRYPOINT ["a"]'], "Entrypoint", ["a"]),
        (["ENV A=1 B='x y' C=a\\ b", "ENV A=2"], "Env", ["A=2", "B=x y", "C=a b"]),
        (["ENV A some words"], "Env", ["A=some words"]),
        (["EXPOSE 80 53/udp 90-91"], "ExposedPorts", {"80/tcp": {}, "53/udp": {}, "90/tcp": {}, "91/tcp": {}}),
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
        ("EXPOSE x", "invalid containerPort: x"),
        ("EXPOSE 70000", "invalid containerPort"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("HEALTHCHECK --x=1 CMD y", "unknown flag: x"),
        ("HEALTHCHECK FOO", "unknown type"),
        ("HEALTHCHECK CMD", "missing command"),
        ("USER a b", "exactly one"),
        ("LABEL a='b", "matching '-quote"),
        ("STOPSIGNAL a b", "exactly one"),
    ],
)
def test_refused(change: str, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        apply_changes(ContainerConfig(), [change])


def test_durations() -> None:
    assert parse_duration("1h1.5s") == 3_601_500_000_000
    assert parse_duration("0") == 0
    with pytest.raises(InvalidArgument):
        parse_duration("1x")
