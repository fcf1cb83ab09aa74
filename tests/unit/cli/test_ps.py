from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tare.cli import ps

CONTAINER = {
    "Id": "6c9797483e27" + "0" * 52,
    "Names": ["/web", "/other/link"],
    "Image": "busybox",
    "Command": "sh -c 'echo hello \"world\"; sleep'",
    "Created": 0,
    "Ports": [{"PrivatePort": 90, "Type": "tcp"}, {"PrivatePort": 91, "Type": "tcp"}],
    "Status": "Up 2 minutes",
    "State": "running",
    "Labels": {"b": "2", "a": "1"},
    "Mounts": [{"Name": "vol", "Driver": "local"}],
    "NetworkSettings": {"Networks": {"bridge": {}}},
}


def test_the_table(engine: Any, tare: Any) -> None:
    engine.answers["GET /containers/json"] = (200, [{**CONTAINER, "Created": int(time.time()) - 130}])
    assert tare("ps") == (
        0,
        "CONTAINER ID   IMAGE     COMMAND                   CREATED         STATUS         PORTS       NAMES\n"
        '6c9797483e27   busybox   "sh -c \'echo hello \\"…"   2 minutes ago   Up 2 minutes   90-91/tcp   web\n',
        "",
    )


def test_query_and_quiet(engine: Any, tare: Any) -> None:
    engine.answers["GET /containers/json"] = (200, [{**CONTAINER, "Created": int(time.time()) - 130}])
    assert tare("ps", "-aq", "-n", "3", "-f", "name=x", "--no-trunc")[1] == CONTAINER["Id"] + "\n"
    assert engine.requests[-1][1] == "/containers/json?all=1&filters=%7B%22name%22%3A%7B%22x%22%3Atrue%7D%7D&limit=3"


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ("{{.Names}} {{.Labels}}", "web a=1,b=2\n"),
        ('{{.Label "a"}}|{{.Mounts}}|{{.Networks}}|{{.LocalVolumes}}', "1|vol|bridge|1\n"),
        ("table {{.ID}}\\t{{.Label \"a.long-name\"}}", "CONTAINER ID   long name\n6c9797483e27   \n"),
    ],
)  # fmt: skip
def test_formats(engine: Any, tare: Any, layout: str, text: str) -> None:
    engine.answers["GET /containers/json"] = (200, [{**CONTAINER, "Created": int(time.time()) - 130}])
    assert tare("ps", "--format", layout) == (0, text, "")


def test_json(engine: Any, tare: Any) -> None:
    engine.answers["GET /containers/json"] = (200, [{**CONTAINER, "Created": int(time.time()) - 130}])
    found = json.loads(tare("ps", "--format", "json")[1])
    assert list(found) == sorted(found)
    assert (found["ID"], found["Names"], found["Platform"]) == ("6c9797483e27", "web", None)


@pytest.mark.parametrize(
    ("layout", "error"),
    [
        ("{{.Foo}}", 'failed to execute template: template: :1:2: executing "" at <.Foo>: can\'t evaluate field Foo in type *formatter.ContainerContext\n'),
        ("{{", "failed to parse template: template: :1: unclosed action\n"),
    ],
)  # fmt: skip
def test_bad_formats(engine: Any, tare: Any, layout: str, error: str) -> None:
    engine.answers["GET /containers/json"] = (200, [{**CONTAINER, "Created": int(time.time()) - 130}])
    assert tare("ps", "--format", layout) == (1, "", error)


def test_ports_join_and_sort() -> None:
    ports = [
        {"IP": "::", "PrivatePort": 9000, "PublicPort": 9000, "Type": "udp"},
        {"IP": "0.0.0.0", "PrivatePort": 9000, "PublicPort": 9000, "Type": "udp"},
        {"IP": "0.0.0.0", "PrivatePort": 9001, "PublicPort": 9001, "Type": "udp"},
        {"IP": "127.0.0.1", "PrivatePort": 80, "PublicPort": 32768, "Type": "tcp"},
        {"PrivatePort": 70, "Type": "tcp"},
    ]
    assert ps.ports(ports) == ("70/tcp, 0.0.0.0:9000-9001->9000-9001/udp, [::]:9000->9000/udp, 127.0.0.1:32768->80/tcp")


def test_an_error_of_the_engine(engine: Any, tare: Any) -> None:
    engine.answers["GET /containers/json"] = (400, {"message": "Invalid filter 'foo'"})
    assert tare("ps", "-f", "foo=bar") == (1, "", "Error response from daemon: Invalid filter 'foo'\n")
