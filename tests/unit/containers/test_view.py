"""What clients see of a record."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tare.base.clock import Nanos
from tare.containers import view
from tare.containers.container import MountPoint, Process, State
from tare.wire.config import ContainerConfig, Empty, HostConfig, PortBinding

SECOND = 1_000_000_000
NOW = 1_700_010_000 * SECOND
PROCESS = Process(pid=77, pid_started=1, monitor_pid=2, monitor_started=3, boot_id="x")
FILES = view.Files(resolv_conf="/d/resolv.conf", hostname="/d/hostname", hosts="/d/hosts", log="/d/log")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "Created"),
        ({"state": State.RUNNING, "started_at": NOW - 3 * SECOND}, "Up 3 seconds"),
        ({"state": State.RUNNING, "started_at": NOW + 3 * SECOND}, "Up Less than a second"),
        ({"state": State.PAUSED, "started_at": NOW - 90 * SECOND}, "Up About a minute (Paused)"),
        ({"state": State.EXITED, "exit_code": 0, "finished_at": NOW - 7200 * SECOND}, "Exited (0) 2 hours ago"),
        ({"state": State.EXITED, "exit_code": 137, "finished_at": NOW}, "Exited (137) Less than a second ago"),
        ({"state": State.RESTARTING, "exit_code": 1, "finished_at": NOW - 4 * SECOND}, "Restarting (1) 4 seconds ago"),
        ({"state": State.REMOVING}, "Removal In Progress"),
        ({"state": State.DEAD}, "Dead"),
    ],
)
def test_status(made: Any, changes: dict[str, Any], text: str) -> None:
    assert view.status_text(made(**changes), NOW) == text


def body(container: Any, **changes: Any) -> Any:
    given = view.inspect_body(container, files=FILES, graph_driver={"Name": "overlay2", "Data": None}, **changes)
    return json.loads(msgspec.json.encode(given))


def test_inspect_of_a_running_container(made: Any) -> None:
    found = body(made(state=State.RUNNING, process=PROCESS, started_at=Nanos(NOW)))
    assert found["Name"] == "/web"
    assert (found["Path"], found["Args"]) == ("nginx", ["-g", "daemon off;"])
    assert found["State"] == {
        "Status": "running",
        "Running": True,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": False,
        "Dead": False,
        "Pid": 77,
        "ExitCode": 0,
        "Error": "",
        "StartedAt": "2023-11-15T01:00:00Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
    }
    assert found["NetworkSettings"]["IPAddress"] == "172.18.0.2"
    assert found["NetworkSettings"]["SandboxKey"] == "/proc/77/ns/net"
    assert found["ExecIDs"] is None
    assert found["LogPath"] == "/d/log"
    assert "SizeRw" not in found


def test_inspect_of_one_that_does_not_run(made: Any) -> None:
    found = body(made(state=State.EXITED, process=PROCESS, exit_code=3), exec_ids=[], sizes=(10, 200))
    assert (found["State"]["Pid"], found["State"]["ExitCode"]) == (0, 3)
    assert found["NetworkSettings"]["SandboxID"] == ""
    assert found["NetworkSettings"]["Ports"] == {}
    assert (found["SizeRw"], found["SizeRootFs"]) == (10, 200)


def test_a_restarting_container_runs_in_dockers_words(made: Any) -> None:
    state = body(made(state=State.RESTARTING))["State"]
    assert (state["Running"], state["Restarting"]) == (True, True)


def test_mounts_without_those_of_the_tmpfs_option(made: Any) -> None:
    points = (
        MountPoint(type="bind", source="/a", destination="/b", mode="ro", is_writable=False, propagation="rprivate"),
        MountPoint(type="tmpfs", source="", destination="/t"),
        MountPoint(type="tmpfs", source="", destination="/m", is_writable=False),
        MountPoint(type="volume", source="/v", destination="/v", name="data", driver="local", mode="z"),
    )
    host = HostConfig(Tmpfs={"/t/": ""})
    assert body(made(mounts=points, host_config=host))["Mounts"] == [
        {"Type": "bind", "Source": "/a", "Destination": "/b", "Mode": "ro", "RW": False, "Propagation": "rprivate"},
        {"Type": "tmpfs", "Source": "", "Destination": "/m", "Mode": "", "RW": False, "Propagation": ""},
        {
            "Type": "volume",
            "Name": "data",
            "Source": "/v",
            "Destination": "/v",
            "Driver": "local",
            "Mode": "z",
            "RW": True,
            "Propagation": "",
        },
    ]


def test_exposed_ports_are_shown_while_it_runs(made: Any) -> None:
    config = ContainerConfig(Cmd=["x"], ExposedPorts={"80/tcp": Empty(), "53/udp": Empty(), "9": Empty()})
    running = made(config=config, state=State.RUNNING, process=PROCESS)
    assert view.ports_map(running) == {"53/udp": None, "80/tcp": None, "9/tcp": None}
    assert view.ports_map(made(config=config)) == {}
    ports = msgspec.to_builtins(view.summary(running, now=NOW, image="nginx"))["Ports"]
    assert ports == [
        {"PrivatePort": 53, "Type": "udp"},
        {"PrivatePort": 80, "Type": "tcp"},
        {"PrivatePort": 9, "Type": "tcp"},
    ]


def test_the_command_of_a_list_quotes_words_with_spaces(made: Any) -> None:
    found = view.summary(made(), now=NOW, image="nginx:1.27")
    assert found.Command == "nginx -g 'daemon off;'"
    assert found.Created == 1_700_000_000
    assert found.Names == ["/web"]


def test_cached_entries_are_what_would_be_encoded(made: Any) -> None:
    cache = view.SummaryCache()
    container = made(
        state=State.RUNNING, started_at=Nanos(NOW - 5 * SECOND), host_config=HostConfig(NetworkMode="none")
    )
    for now in (NOW, NOW + 60 * SECOND):
        expected = msgspec.json.encode(view.summary(container, now=now, image="nginx"))
        assert cache.encode(container, now=now, image="nginx") == expected


def test_the_cache_notices_a_new_record_another_image_and_a_goodbye(made: Any) -> None:
    cache = view.SummaryCache()
    old, new = made(), made(name="db")
    assert b'"/web"' in cache.encode(old, now=NOW, image="nginx")
    assert b'"/db"' in cache.encode(new, now=NOW, image="nginx")
    assert b'"sha256:1"' in cache.encode(new, now=NOW, image="sha256:1")
    cache.forget(new.id)
    cache.forget(new.id)
    assert json.loads(cache.encode(new, now=NOW, image="nginx"))["Status"] == "Created"


def test_a_label_cannot_take_the_place_of_the_status(made: Any) -> None:
    """Were the text that marks the place a constant, a client could write it."""
    config = ContainerConfig(Cmd=["x"], Labels={"a": "status-goes-here-\u2063-5f0c1f6e"})
    entry = json.loads(view.SummaryCache().encode(made(config=config), now=NOW, image="nginx"))
    assert entry["Status"] == "Created"
    assert entry["Labels"] == config.Labels


def test_inspect_is_encoded_again_when_the_record_or_its_execs_change(made: Any) -> None:
    cache, first, calls = view.InspectCache(), made(), 0

    def make() -> view.ContainerBody:
        nonlocal calls
        calls += 1
        return view.inspect_body(first, files=FILES, graph_driver={})

    text = cache.encode(first, [], make)
    assert cache.encode(first, [], make) is text
    assert calls == 1
    cache.encode(first, ["e"], make)
    cache.encode(msgspec.structs.replace(first), ["e"], make)
    assert calls == 3
    cache.forget(first.id)
    cache.encode(first, ["e"], make)
    assert calls == 4


def test_a_port_without_the_host_has_no_number_there(made: Any) -> None:
    """Source: moby's container summaries of routed networks since 2026."""
    ports = {"80/tcp": [PortBinding(HostIp="0.0.0.0", HostPort="8080"), PortBinding(HostIp="::", HostPort="")]}
    running = made(state=State.RUNNING, process=PROCESS, ports=ports)
    found = msgspec.to_builtins(view.summary(running, now=NOW, image="nginx"))["Ports"]
    assert found == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "Type": "tcp"},
    ]
