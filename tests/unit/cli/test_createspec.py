from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tare.cli import createspec, flags
from tare.cli.run import RUN


def build(*argv: str, environ: dict[str, str] | None = None, detached: bool = False) -> dict[str, Any]:
    options, operands, _ = flags.parse(RUN.flags, list(argv), interspersed=False)
    return createspec.build(options, operands, environ or {}, detached=detached).body


def at(body: dict[str, Any], path: str) -> object:
    value: Any = body
    for key in path.split("."):
        value = value.get(key, "absent")
    return value


@pytest.mark.parametrize(
    ("argv", "path", "value"),
    [
        (["x", "a", "-b"], "Cmd", ["a", "-b"]),
        (["x"], "Cmd", None),
        (["-it", "x"], "StdinOnce", True),
        (["-a", "stdout", "x"], "AttachStderr", False),
        (["--entrypoint", "", "x"], "Entrypoint", [""]),
        (["-e", "A=1", "-e", "B", "-e", "HOME", "x"], "Env", ["A=1", "B", "HOME=/h"]),
        (["-l", "b", "-l", "a=1", "x"], "Labels", {"a": "1", "b": ""}),
        (["-v", "/anon", "x"], "Volumes", {"/anon": {}}),
        (["-v", "/a:/b:ro", "x"], "HostConfig.Binds", ["/a:/b:ro"]),
        (["--tmpfs", "/t:size=1", "x"], "HostConfig.Tmpfs", {"/t": "size=1"}),
        (["--cap-add", "net_admin", "x"], "HostConfig.CapAdd", ["CAP_NET_ADMIN"]),
        (["--cap-add", "all", "x"], "HostConfig.CapAdd", ["ALL"]),
        (["--cpus", "1.5", "x"], "HostConfig.NanoCpus", 1_500_000_000),
        (["-m", "1g", "x"], "HostConfig.Memory", 1 << 30),
        (["--init=false", "x"], "HostConfig.Init", False),
        (["x"], "HostConfig.Init", "absent"),
        (["--restart", "on-failure:3", "x"], "HostConfig.RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 3}),
        (["--network", "host", "x"], "NetworkingConfig.EndpointsConfig", {}),
        (["--net", "foo", "x"], "HostConfig.NetworkMode", "foo"),
        (["--network", "foo", "--network-alias", "a", "x"], "NetworkingConfig.EndpointsConfig.foo.Aliases", ["a"]),
        (["--health-cmd", "t", "--health-retries", "2", "x"], "Healthcheck", {"Test": ["CMD-SHELL", "t"], "Retries": 2}),
        (["--no-healthcheck", "x"], "Healthcheck", {"Test": ["NONE"]}),
        (["--security-opt", "systempaths=unconfined", "x"], "HostConfig.MaskedPaths", []),
        (["--add-host", "a=::1", "x"], "HostConfig.ExtraHosts", ["a:::1"]),
        (["--stop-timeout", "0", "x"], "StopTimeout", 0),
        (["-p", "80", "--expose", "81-82/udp", "x"], "ExposedPorts", {"80/tcp": {}, "81/udp": {}, "82/udp": {}}),
    ],
)  # fmt: skip
def test_body(argv: list[str], path: str, value: object) -> None:
    assert at(build(*argv, environ={"HOME": "/h"}), path) == value


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--rm", "--restart", "always", "x"], "conflicting options: cannot specify both --restart and --rm"),
        (["--memory-swappiness", "101", "x"], "invalid value: 101. Valid memory swappiness range is 0-100"),
        (["--pid", "foo", "x"], "--pid: invalid PID mode"),
        (["--log-driver", "none", "--log-opt", "a=b", "x"], "invalid logging opts for driver none"),
        (["--storage-opt", "size", "x"], "invalid storage option"),
        (["--no-healthcheck", "--health-cmd", "x", "x"], "--no-healthcheck conflicts with --health-* options"),
        (["--health-interval", "-1s", "x"], "--health-interval cannot be negative"),
        (["--network", "a", "--network", "a", "x"], 'network "a" is specified multiple times'),
        (["--network-alias", "a", "x"], "network-scoped aliases are only supported for user-defined networks"),
        (["--mac-address", "zz", "x"], "zz is not a valid mac address"),
        (["--security-opt", "foo", "x"], 'Invalid --security-opt: "foo"'),
    ],
)
def test_refused(argv: list[str], text: str) -> None:
    with pytest.raises(ValueError) as caught:
        build(*argv)
    assert str(caught.value) == text


def test_detached_attaches_nothing() -> None:
    body = build("-di", "x", detached=True)
    assert [body[key] for key in ("AttachStdin", "AttachStdout", "AttachStderr", "OpenStdin", "StdinOnce")] == [
        False, False, False, True, False,
    ]  # fmt: skip


def test_files_are_read_on_this_side(tmp_path: Path) -> None:
    env, labels, profile = tmp_path / "env", tmp_path / "labels", tmp_path / "seccomp"
    env.write_text("\ufeff# comment\n\n  A=1 = 2\nHOME\nGONE\n")
    labels.write_text("x=y\nz\n")
    profile.write_text('{ "a": [1, "<"] }')
    body = build(
        "--env-file", str(env), "--label-file", str(labels), "--security-opt", f"seccomp={profile}", "x",
        environ={"HOME": "/h"},
    )  # fmt: skip
    assert body["Env"] == ["A=1 = 2", "HOME=/h"]
    assert body["Labels"] == {"x": "y", "z": ""}
    assert body["HostConfig"]["SecurityOpt"] == ['seccomp={"a":[1,"<"]}']


@pytest.mark.parametrize("line", ["=x", "a b=c"])
def test_bad_lines_of_a_file_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "env").write_text(line)
    with pytest.raises(ValueError, match="env"):
        createspec.read_pairs(str(tmp_path / "env"))
