"""Create bodies: what came in is what inspect shows, absent and null kept apart."""

from __future__ import annotations

import json

import msgspec
import pytest
from msgspec import UNSET

from tare.base.errors import InvalidArgument
from tare.wire.config import ContainerConfig, CreateBody, HostConfig, as_list, config_of
from tare.wire.decode import decode


def test_an_empty_body_is_the_zero_value() -> None:
    body = decode(b"{}", CreateBody)
    assert config_of(body) == ContainerConfig()
    assert body.HostConfig == HostConfig()


def test_null_stays_null_and_absent_stays_absent() -> None:
    shown = json.loads(msgspec.json.encode(ContainerConfig()))
    assert shown["Cmd"] is None
    assert shown["Env"] is None
    assert {"ExposedPorts", "Healthcheck", "StopSignal", "StopTimeout", "Shell", "NetworkDisabled"} & set(
        shown
    ) == set()
    host = json.loads(msgspec.json.encode(HostConfig()))
    assert host["Binds"] is None
    assert host["MemorySwappiness"] is None
    assert host["ConsoleSize"] == [0, 0]
    assert {"Mounts", "Init", "Tmpfs", "Annotations", "KernelMemory"} & set(host) == set()


def test_what_is_sent_is_what_is_shown() -> None:
    sent = {
        "Image": "nginx",
        "Cmd": ["a", "b"],
        "Env": [],
        "StopTimeout": 0,
        "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {
            "Binds": ["/a:/b"],
            "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}], "81/tcp": None},
            "OomKillDisable": False,
            "PidsLimit": -1,
            "Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 5}}],
            "Init": False,
        },
    }
    body = decode(json.dumps(sent).encode(), CreateBody)
    config = json.loads(msgspec.json.encode(config_of(body)))
    host = json.loads(msgspec.json.encode(body.HostConfig))
    assert {name: config[name] for name in sent if name != "HostConfig"} == {
        name: value for name, value in sent.items() if name != "HostConfig"
    }
    assert {name: host[name] for name in sent["HostConfig"]} == sent["HostConfig"]


def test_the_config_has_none_of_the_bodys_own_members() -> None:
    assert {"HostConfig", "NetworkingConfig", "Runtime"}.isdisjoint(ContainerConfig.__struct_fields__)
    assert set(ContainerConfig.__struct_fields__) < set(CreateBody.__struct_fields__)
    assert type(config_of(CreateBody(Image="x"))) is ContainerConfig


@pytest.mark.parametrize(
    "text", ['{"Env": "A=b"}', '{"HostConfig": {"Memory": "1g"}}', '{"Tty": 1}', '{"HostConfig": {"Binds": [1]}}']
)
def test_wrong_types_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid JSON"):
        decode(text.encode(), CreateBody)


def test_structs_are_not_edited() -> None:
    with pytest.raises(AttributeError):
        ContainerConfig().Image = "x"  # type: ignore[misc]


def test_defaults_are_not_shared() -> None:
    assert HostConfig().ConsoleSize is not HostConfig().ConsoleSize


def test_as_list() -> None:
    assert as_list("a b") == ["a b"]
    assert as_list(["a"]) == ["a"]
    assert as_list(None) is None
    assert ContainerConfig().Shell is UNSET
