"""Ports that change while the container runs, and links that are taken away.

Proves `engine/ports`, `networks/exposing`, `drivers/network/conntrack` and `cli/ports` on a real engine.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tare.drivers.network.netns import Namespaces
from tare.testing.exchange import Api
from tare.testing.stockclient import docker, out

SOURCE = Path(__file__).resolve().parents[2] / "src"
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
]
WEB = "mkdir -p /tmp/w; echo hello > /tmp/w/index.html; exec busybox httpd -f -p 80 -h /tmp/w"
READY = "until wget -qO- http://127.0.0.1/; do :; done"


def web(host: str, name: str, *options: str) -> None:
    out(host, "run", "-d", "--stop-timeout", "0", "--name", name, *options, "busybox", "sh", "-c", WEB)
    assert "hello" in docker(host, "exec", name, "sh", "-c", READY, timeout=20).stdout


def tare(host: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tare.cli", "-H", host, *argv],
        capture_output=True,
        text=True,
        timeout=30,
        env={"PYTHONPATH": str(SOURCE), "PATH": "/usr/bin:/bin"},
        check=False,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def is_open(port: int, address: str = "127.0.0.1") -> bool:
    try:
        with socket.create_connection((address, port), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return bool(connection.recv(1))
    except ConnectionRefusedError:
        return False


def looked_at(host: str, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    [found] = json.loads(out(host, "inspect", name))
    return found["HostConfig"]["PortBindings"], found["NetworkSettings"]["Ports"]


def test_added_moved_and_taken_back(engine_host: str) -> None:
    first, second = free_port(), free_port()
    web(engine_host, "server")
    added = tare(engine_host, "port", "add", "server", f"{first}:80", f"127.0.0.1:{second}:80")
    assert added.returncode == 0, added.stderr
    assert sorted(added.stdout.splitlines()) == [
        f"80/tcp -> 0.0.0.0:{first}",
        f"80/tcp -> 127.0.0.1:{second}",
        f"80/tcp -> [::]:{first}",
    ]
    assert is_open(first)
    assert is_open(first, "::1")
    assert is_open(second)
    asked, shown = looked_at(engine_host, "server")
    assert asked == {
        "80/tcp": [{"HostIp": "", "HostPort": str(first)}, {"HostIp": "127.0.0.1", "HostPort": str(second)}]
    }
    assert sorted(entry["HostPort"] for entry in shown["80/tcp"]) == sorted([str(first), str(first), str(second)])
    own = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 5 nc $(ip route | awk '/default/ {{print $3}}') {first}"
    assert "hello" in docker(engine_host, "exec", "server", "sh", "-c", own).stdout  # hairpin, though it began without
    gone = tare(engine_host, "port", "rm", "server", f"{first}:80")
    assert gone.stdout == f"80/tcp -> 127.0.0.1:{second}\n"
    assert not is_open(first)
    assert is_open(second)
    out(engine_host, "restart", "-t", "0", "server")
    assert "hello" in docker(engine_host, "exec", "server", "sh", "-c", READY, timeout=20).stdout
    assert is_open(second)
    assert tare(engine_host, "port", "rm", "server", "80").returncode == 0
    assert looked_at(engine_host, "server") == ({}, {})
    missing = tare(engine_host, "port", "rm", "server", "80")
    assert (missing.returncode, "port 80/tcp is not published" in missing.stderr) == (1, True)


def test_a_conflict_changes_nothing(engine_host: str) -> None:
    mine, taken = free_port(), free_port()
    web(engine_host, "server", "-p", f"{mine}:80")
    before = looked_at(engine_host, "server")
    with socket.create_server(("", taken)):
        refused = tare(engine_host, "port", "add", "server", f"{free_port()}:80", f"{taken}:80")
        assert refused.returncode == 1
        assert "address already in use" in refused.stderr
        body = {"PortBindings": {"80/tcp": [{"HostPort": str(taken)}]}}
        status, answer = _post(engine_host, "/containers/server/update", body)
        assert status == 500
        assert b"address already in use" in answer
    assert looked_at(engine_host, "server") == before
    assert is_open(mine)


def _post(host: str, path: str, body: object) -> tuple[int, bytes]:
    return Api(Path(host.removeprefix("unix://"))).request(
        "POST", path, body=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )  # fmt: skip


def test_update_replaces_them_and_a_stopped_container_has_them_at_its_next_start(engine_host: str) -> None:
    first, second = free_port(), free_port()
    web(engine_host, "server", "-p", f"{first}:80")
    status, answer = _post(
        engine_host, "/containers/server/update", {"PortBindings": {"80/tcp": [{"HostPort": str(second)}]}}
    )
    assert status == 200, answer
    assert (is_open(first), is_open(second)) == (False, True)
    out(engine_host, "update", "--restart", "no", "server")  # the stock command says nothing of ports
    assert is_open(second)
    out(engine_host, "stop", "-t", "0", "server")
    assert tare(engine_host, "port", "add", "server", f"{first}:80").returncode == 0
    assert not is_open(first)
    out(engine_host, "start", "server")
    assert "hello" in docker(engine_host, "exec", "server", "sh", "-c", READY, timeout=20).stdout
    assert (is_open(first), is_open(second)) == (True, True)
    joined = out(engine_host, "run", "-d", "--stop-timeout", "0", "--network", "host", "busybox", "sleep", "600")
    refused = tare(engine_host, "port", "add", joined, "81")
    assert "network mode host cannot be published" in refused.stderr


def test_udp_flows_follow_the_port(engine_host: str) -> None:
    """A client that never pauses keeps its flow alive: it must reach whoever has the port now."""
    port = free_port()
    namespaces = Namespaces()
    servers: dict[str, socket.socket] = {}
    opened = []
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(0.2)
    client.bind(("127.0.0.1", 0))
    try:
        for name in ("one", "two"):
            out(engine_host, "run", "-d", "--stop-timeout", "0", "--name", name, "busybox", "sleep", "600")
            inside = namespaces.open(f"/proc/{out(engine_host, 'inspect', '-f', '{{.State.Pid}}', name)}/ns/net")
            opened.append(inside)
            server = namespaces.run(inside.fd, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            server.bind(("0.0.0.0", 9))
            server.settimeout(5)
            servers[name] = server
        client.sendto(b"too early", ("127.0.0.1", port))  # makes a flow that leads to nobody
        for name in ("one", "two"):
            assert tare(engine_host, "port", "add", name, f"{port}:9/udp").returncode == 0
            client.sendto(name.encode(), ("127.0.0.1", port))
            assert servers[name].recv(100) == name.encode()
            assert tare(engine_host, "port", "rm", name, f"{port}:9/udp").returncode == 0
    finally:
        client.close()
        for server in servers.values():
            server.close()
        for inside in opened:
            inside.close()
        namespaces.close()


def test_a_link_is_taken_away(engine_host: str) -> None:
    out(engine_host, "run", "-d", "--stop-timeout", "0", "--name", "store", "busybox", "sleep", "600")
    out(
        engine_host,
        "run",
        "-d",
        "--stop-timeout",
        "0",
        "--name",
        "front",
        "--link",
        "store:db",
        "busybox",
        "sleep",
        "600",
    )
    before = out(
        engine_host, "exec", "front", "sh", "-c", "cat /etc/hosts; tr '\\0' '\\n' </proc/1/environ | grep ^DB_"
    )
    assert "DB_NAME=/front/db" in before
    out(engine_host, "rm", "--link", "/front/db")
    assert out(engine_host, "inspect", "-f", "{{.HostConfig.Links}}", "front") == "[]"
    assert (
        out(engine_host, "exec", "front", "sh", "-c", "cat /etc/hosts; tr '\\0' '\\n' </proc/1/environ | grep ^DB_")
        == before
    )
    missing = docker(engine_host, "rm", "--link", "/front/db")
    assert "No such container: front/db" in missing.stderr
    own = docker(engine_host, "rm", "--link", "/front")
    assert "cannot remove the default link name of the container" in own.stderr
    out(engine_host, "restart", "-t", "0", "front")
    assert "store" not in out(engine_host, "exec", "front", "cat", "/etc/hosts")
