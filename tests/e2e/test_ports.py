"""Published ports: from the host by every address, from neighbours, from the container itself, across restarts.

Proves `networks/publishing`, `networks/ports` and `drivers/network/ports` on a real engine.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tare.testing.daemon import Daemon
from tare.testing.stockclient import docker, out

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
]
WEB = "mkdir -p /tmp/w; echo hello > /tmp/w/index.html; exec busybox httpd -f -p 80 -h /tmp/w"


def web(host: str, name: str, *options: str) -> None:
    out(host, "run", "-d", "--stop-timeout", "0", "--name", name, *options, "busybox", "sh", "-c", WEB)
    deadline = time.monotonic() + 10
    while "hello" not in docker(host, "exec", name, "wget", "-qO-", "http://127.0.0.1/").stdout:
        assert time.monotonic() < deadline, docker(host, "logs", name).stderr


def ports(host: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out(host, "inspect", "-f", "{{json .NetworkSettings.Ports}}", name))
    return found


def port_of(host: str, name: str, inside: str = "80/tcp") -> int:
    return int(ports(host, name)[inside][0]["HostPort"])


def fetch(address: str, port: int) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}:{port}/", timeout=5) as answer:
        return str(answer.read().decode().strip())


def fetched_inside(host: str, argv: list[str], address: str, port: int) -> bool:
    """Whether a container gets the page. (The static busybox's wget cannot look services up.)"""
    script = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} {port}"
    return "hello" in docker(host, *argv, "sh", "-c", script).stdout


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


@pytest.fixture
def own(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    """An engine that the test may kill."""
    engine = Daemon(scratch / "portown", bridge="ttport0", source=REPOSITORY / "src")
    engine.start()
    try:
        engine.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        yield engine
    finally:
        engine.destroy()


@pytest.mark.parametrize("network", ["bridge", "web"])
def test_reachable_from_everywhere(engine_host: str, network: str) -> None:
    out(engine_host, "network", "create", "web")
    out(engine_host, "network", "create", "far")
    web(engine_host, "server", "--network", network, "-p", "80")
    port = port_of(engine_host, "server")
    assert out(engine_host, "port", "server", "80") == f"0.0.0.0:{port}\n[::]:{port}"
    assert fetch("[::1]", port) == "hello"
    shown = out(engine_host, "ps", "--format", "{{.Ports}}", "--filter", "name=server")
    assert shown == f"0.0.0.0:{port}->80/tcp, [::]:{port}->80/tcp"
    config = json.loads(out(engine_host, "network", "inspect", network))[0]["IPAM"]["Config"][0]
    assert fetch("127.0.0.1", port) == "hello"
    assert fetch(config["Gateway"], port) == "hello"
    gateway = config["Gateway"]
    assert fetched_inside(engine_host, ["exec", "server"], gateway, port)  # hairpin
    for place in (network, "far"):
        assert fetched_inside(engine_host, ["run", "--rm", "--network", place, "busybox"], gateway, port)
    out(engine_host, "rm", "-f", "server")
    assert is_free(port)
    with pytest.raises(OSError, match="refused"):
        fetch("127.0.0.1", port)


def test_only_at_the_address_asked_for(engine_host: str) -> None:
    web(engine_host, "server", "-p", "127.0.0.1::80")
    port = port_of(engine_host, "server")
    assert ports(engine_host, "server") == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}
    assert fetch("127.0.0.1", port) == "hello"
    gateway = json.loads(out(engine_host, "network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]["Gateway"]
    with pytest.raises(OSError, match="refused"):
        fetch(gateway, port)


def test_loopback_services_of_the_host_stay_closed_to_containers(engine_host: str) -> None:
    """The kernel is told to route loopback addresses by the bridge: a container must not profit from it."""
    with socket.create_server(("127.0.0.1", 0)) as service:
        port = service.getsockname()[1]
        script = f"ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via $(ip route | awk '/default/ {{print $3}}'); nc -w 2 127.0.0.1 {port} </dev/null"
        done = docker(engine_host, "run", "--rm", "--cap-add", "NET_ADMIN", "busybox", "sh", "-c", script)
        assert done.returncode != 0
        service.settimeout(0)
        with pytest.raises(BlockingIOError):
            service.accept()


def test_udp_and_ranges_and_all(engine_host: str) -> None:
    out(engine_host, "run", "-d", "--name", "echo", "-p", "7/udp", "busybox", "sleep", "99")
    pid = out(engine_host, "inspect", "-f", "{{.State.Pid}}", "echo")
    serve = "import socket as s; e = s.socket(type=s.SOCK_DGRAM); e.bind(('', 7)); print(flush=True); e.sendto(*e.recvfrom(16))"
    argv = ["nsenter", "-t", pid, "-n", sys.executable, "-c", serve]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        assert server.stdout is not None
        server.stdout.readline()
        client.settimeout(5)
        client.connect(("127.0.0.1", port_of(engine_host, "echo", "7/udp")))
        client.send(b"ping")
        assert client.recv(16) == b"ping"
    with socket.create_server(("0.0.0.0", 0)) as taken:
        first = taken.getsockname()[1]
        out(engine_host, "run", "-d", "--name", "ranged", "-p", f"{first}-{first + 20}:80", "busybox", "sleep", "99")
        assert first < port_of(engine_host, "ranged") <= first + 20
    out(
        engine_host,
        "run",
        "-d",
        "--name",
        "every",
        "-P",
        "--expose",
        "80",
        "--expose",
        "53/udp",
        "busybox",
        "sleep",
        "99",
    )
    assert sorted(ports(engine_host, "every")) == ["53/udp", "80/tcp"]
    assert all(binding[0]["HostIp"] == "0.0.0.0" for binding in ports(engine_host, "every").values())
    out(engine_host, "run", "-d", "--name", "shown", "--expose", "80", "busybox", "sleep", "99")
    assert ports(engine_host, "shown") == {"80/tcp": None}


def test_conflicts_are_said_in_dockers_words_and_leave_nothing(engine_host: str) -> None:
    web(engine_host, "server", "-p", "80")
    port = port_of(engine_host, "server")
    done = docker(engine_host, "run", "--name", "late", "-p", f"{port}:80", "busybox", "true")
    assert done.returncode == 125
    expected = "failed to set up container networking: driver failed programming external connectivity on endpoint late"
    assert expected in done.stderr
    assert f"Bind for 0.0.0.0:{port} failed: port is already allocated" in done.stderr
    assert fetch("127.0.0.1", port) == "hello"
    out(engine_host, "rm", "-f", "server")
    out(engine_host, "start", "late")
    out(engine_host, "wait", "late")
    with socket.create_server(("0.0.0.0", 0)) as taken:
        number = taken.getsockname()[1]
        done = docker(engine_host, "run", "--rm", "-p", f"{number}:80", "busybox", "true")
        assert "address already in use" in done.stderr
    assert docker(engine_host, "run", "--rm", "-p", f"{number}:80", "busybox", "true").returncode == 0
    assert docker(engine_host, "run", "--rm", "-p", "99999:80", "busybox", "true").returncode == 125


def test_ports_follow_the_networks_of_a_running_container(engine_host: str) -> None:
    out(engine_host, "network", "create", "first")
    out(engine_host, "network", "create", "second")
    web(engine_host, "server", "--network", "second", "-p", "80")
    port = port_of(engine_host, "server")
    out(engine_host, "network", "connect", "first", "server")
    assert (port_of(engine_host, "server"), fetch("127.0.0.1", port)) == (port, "hello")
    out(engine_host, "network", "disconnect", "first", "server")
    assert fetch("127.0.0.1", port) == "hello"
    out(engine_host, "network", "disconnect", "second", "server")
    assert ports(engine_host, "server") == {"80/tcp": None}
    out(engine_host, "network", "connect", "second", "server")
    assert (port_of(engine_host, "server"), fetch("127.0.0.1", port)) == (port, "hello")


def test_published_across_kill_9(own: Daemon) -> None:
    web(own.host, "server", "-p", "80")
    port = port_of(own.host, "server")
    own.kill()
    assert fetch("127.0.0.1", port) == "hello"
    own.start()
    assert (port_of(own.host, "server"), fetch("127.0.0.1", port)) == (port, "hello")
    assert "port is already allocated" in docker(own.host, "run", "-p", f"{port}:80", "busybox", "true").stderr
    out(own.host, "stop", "-t", "0", "server")
    assert is_free(port)
