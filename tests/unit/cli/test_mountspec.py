from __future__ import annotations

import pytest

from tare.cli import mountspec


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("80", [("80/tcp", "", "")]),
        ("8080:80/udp", [("80/udp", "", "8080")]),
        ("127.0.0.1::5000", [("5000/tcp", "127.0.0.1", "")]),
        ("[::1]:81:80", [("80/tcp", "::1", "81")]),
        ("90-91:80-81", [("80/tcp", "", "90"), ("81/tcp", "", "91")]),
        ("8000-8010:80", [("80/tcp", "", "8000-8010")]),
        ("target=80,published=81,protocol=sctp", [("80/sctp", "", "81")]),
    ],
)
def test_publish(text: str, found: list[tuple[str, str, str]]) -> None:
    assert [(port, b["HostIp"], b["HostPort"]) for port, b in mountspec.publish(text)] == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("99999:80", "invalid hostPort: 99999"),
        ("80:x", "invalid containerPort: x"),
        ("80:80/foo", "invalid proto: foo"),
        ("1.2.3:80:80", "invalid IP address: 1.2.3"),
        ("80-82:90-91", "invalid ranges specified for container and host Ports: 90-91 and 80-82"),
    ],
)
def test_publish_refuses(text: str, why: str) -> None:
    with pytest.raises(ValueError) as caught:
        mountspec.publish(text)
    assert str(caught.value) == why


def test_mount() -> None:
    assert mountspec.mount('type=bind,"src=/a,b",dst=/c,ro,bind-propagation=rshared') == {
        "Type": "bind",
        "Source": "/a,b",
        "Target": "/c",
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rshared"},
    }


@pytest.mark.parametrize(
    "text",
    ["type=bind", "type=bind,foo=bar", "type=bind,foo", "type=bind,dst=/x,tmpfs-size=1", "dst=/x,readonly=maybe", ""],
)
def test_mount_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        mountspec.mount(text)


@pytest.mark.parametrize(
    ("text", "inside", "mode"),
    [
        ("/dev/a", "/dev/a", "rwm"),
        ("/dev/a:r", "/dev/a", "r"),
        ("/dev/a:/dev/b", "/dev/b", "rwm"),
        ("/a:/b:rw", "/b", "rw"),
    ],
)
def test_device(text: str, inside: str, mode: str) -> None:
    found = mountspec.device(text)
    assert (found["PathInContainer"], found["CgroupPermissions"]) == (inside, mode)


def test_ulimit() -> None:
    assert mountspec.ulimit("nofile=1:2") == {"Name": "nofile", "Soft": 1, "Hard": 2}
    with pytest.raises(ValueError, match="soft limit must be less than or equal"):
        mountspec.ulimit("nofile=5:2")


def test_gpus() -> None:
    assert mountspec.gpus("all")["Count"] == -1
    assert mountspec.gpus('"device=0,1"')["DeviceIDs"] == ["0", "1"]


def test_network_advanced_syntax() -> None:
    found = mountspec.network("name=a,alias=b,ip=1.2.3.4,driver-opt=k=v")
    assert (found["Target"], found["Aliases"], found["IPv4"], found["DriverOpts"]) == (
        "a",
        ["b"],
        "1.2.3.4",
        {"k": "v"},
    )
    with pytest.raises(ValueError, match="network name/id is not specified"):
        mountspec.network("alias=b")


@pytest.mark.parametrize("text", ["on-failure:x", ":3"])
def test_restart_policy_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="invalid restart policy format"):
        mountspec.restart_policy(text)
