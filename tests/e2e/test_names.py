"""Names: the embedded name server of users' networks, and links on the default one.

Proves `networks/nameserver`, `networks/directory` and `engine/links` on a real engine.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tare.testing.daemon import Daemon
from tare.testing.stockclient import docker, out

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
]


def sleeper(host: str, name: str, *options: str) -> str:
    return out(host, "run", "-d", "--stop-timeout", "0", "--name", name, *options, "busybox", "sleep", "600")


def look_up(host: str, container: str, name: str) -> list[str]:
    """The answers to a name, or the names of an address, as the container gets them."""
    lines = docker(host, "exec", container, "nslookup", name).stdout.splitlines()[2:]
    return sorted(
        line.split("=" if "name =" in line else ":", 1)[1].strip()
        for line in lines
        if line.startswith("Address:") or "name =" in line
    )


@pytest.fixture
def own(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    """An engine that the test may kill."""
    engine = Daemon(scratch / "nameown", bridge="ttname0", source=REPOSITORY / "src")
    engine.start()
    try:
        engine.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        yield engine
    finally:
        engine.destroy()


def test_names_aliases_ids_hostnames_and_back(engine_host: str) -> None:
    out(engine_host, "network", "create", "--subnet", "10.226.0.0/24", "town")
    out(engine_host, "network", "create", "--subnet", "10.227.0.0/24", "other")
    first = sleeper(engine_host, "first", "--network", "town", "--network-alias", "www", "-h", "hosty")
    sleeper(engine_host, "second", "--network", "town", "--network-alias", "www", "--link", "first:uno")
    sleeper(engine_host, "stranger", "--network", "other")
    sleeper(engine_host, "plain")
    resolver = out(engine_host, "exec", "first", "cat", "/etc/resolv.conf")
    assert resolver.splitlines()[0] == "nameserver 127.0.0.11"
    assert "ndots:0" in resolver
    assert "127.0.0.11" not in out(engine_host, "exec", "plain", "cat", "/etc/resolv.conf")
    for name in ("first", "FIRST", "hosty", first[:12], "first.town", "uno"):
        assert look_up(engine_host, "second", name) == ["10.226.0.2"], name
    assert look_up(engine_host, "first", "www") == ["10.226.0.2", "10.226.0.3"]
    assert look_up(engine_host, "first", "uno") == []
    assert look_up(engine_host, "stranger", "first") == []
    assert look_up(engine_host, "first", "plain") == []
    assert "NXDOMAIN" in docker(engine_host, "exec", "first", "nslookup", "nobody").stdout
    assert look_up(engine_host, "second", "10.226.0.2") == ["first.town"]
    out(engine_host, "rename", "first", "premier")
    assert look_up(engine_host, "second", "premier") == ["10.226.0.2"]
    assert look_up(engine_host, "second", "first") == []
    out(engine_host, "network", "connect", "--alias", "guest", "other", "premier")
    assert look_up(engine_host, "stranger", "guest") == look_up(engine_host, "stranger", "premier") != []
    out(engine_host, "network", "disconnect", "other", "premier")
    assert look_up(engine_host, "stranger", "premier") == []
    out(engine_host, "network", "connect", "other", "plain")
    assert look_up(engine_host, "plain", "stranger") == ["10.227.0.2"]
    out(engine_host, "rm", "-f", "premier")
    assert look_up(engine_host, "second", "www") == ["10.226.0.3"]


def test_port_53_is_free_for_a_name_server_in_the_container(engine_host: str) -> None:
    out(engine_host, "network", "create", "town")
    sleeper(engine_host, "first", "--network", "town")
    pid = out(engine_host, "inspect", "-f", "{{.State.Pid}}", "first")
    bind = "import socket as s; u = s.socket(type=s.SOCK_DGRAM); u.bind(('', 53)); t = s.socket(); t.bind(('', 53)); t.listen()"
    subprocess.run(["nsenter", "-t", pid, "-n", sys.executable, "-c", bind], check=True, timeout=30)
    assert len(look_up(engine_host, "first", "first")) == 1


def test_names_after_the_daemon_was_killed(own: Daemon) -> None:
    out(own.host, "network", "create", "--subnet", "10.228.0.0/24", "town")
    sleeper(own.host, "first", "--network", "town", "--network-alias", "www")
    sleeper(own.host, "second", "--network", "town")
    own.kill()
    own.start()
    assert look_up(own.host, "second", "first") == look_up(own.host, "second", "www") == ["10.228.0.2"]


def test_links_on_the_default_network(engine_host: str) -> None:
    refused = docker(engine_host, "run", "--rm", "--link", "nobody", "busybox", "true")
    assert "could not get container for nobody" in refused.stderr
    sleeper(engine_host, "store", "-e", "USER=me", "--expose", "5432", "-h", "vault")
    address = out(engine_host, "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "store")
    told = out(
        engine_host, "run", "--rm", "--name", "web", "--link", "store:db", "busybox", "sh", "-c", "env; cat /etc/hosts"
    )
    lines = told.splitlines()
    assert f"{address}\tdb vault store" in lines
    for line in (
        "DB_NAME=/web/db",
        f"DB_PORT=tcp://{address}:5432",
        f"DB_PORT_5432_TCP_ADDR={address}",
        "DB_PORT_5432_TCP_PORT=5432",
        "DB_PORT_5432_TCP_PROTO=tcp",
        "DB_ENV_USER=me",
    ):
        assert line in lines
    out(engine_host, "stop", "-t", "0", "store")
    late = docker(engine_host, "run", "--rm", "--name", "late", "--link", "store:db", "busybox", "true")
    assert "Cannot link to a non running container: /store AS /late/db" in late.stderr
