"""User-defined networks through the stock docker command line and the docker SDK, containers talking to each other.

Proves `api/networks`, `engine/connect` and `networks/service` on a real engine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tare.testing.daemon import Daemon
from tare.testing.stockclient import docker, out

docker_sdk = pytest.importorskip("docker", reason="the docker SDK is not installed")

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
]


def refused(host: str, *argv: str) -> str:
    done = docker(host, *argv)
    assert done.returncode != 0, done.stdout
    return done.stderr


def sleeper(host: str, name: str, *options: str) -> str:
    return out(host, "run", "-d", "--stop-timeout", "0", "--name", name, *options, "busybox", "sleep", "600")


def reaches(host: str, name: str, address: str) -> bool:
    return docker(host, "exec", name, "ping", "-c", "1", "-W", "1", address).returncode == 0


def network(host: str, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(out(host, "network", "inspect", name))
    return found[0]


def endpoint(host: str, container: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out(host, "inspect", "-f", "{{json .NetworkSettings.Networks}}", container))[
        name
    ]
    return found


@pytest.fixture
def own(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    """An engine that the test may kill."""
    engine = Daemon(scratch / "netown", bridge="ttnet0", source=REPOSITORY / "src")
    engine.start()
    try:
        engine.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        yield engine
    finally:
        engine.destroy()


def test_made_looked_at_and_removed(engine_host: str) -> None:
    made = out(
        engine_host, "network", "create", "--label", "tier=web", "--opt", "com.docker.network.driver.mtu=1400", "one"
    )
    found = network(engine_host, "one")
    assert found["Id"] == made
    assert (found["Driver"], found["Scope"], found["Internal"], found["Labels"]) == (
        "bridge",
        "local",
        False,
        {"tier": "web"},
    )
    assert out(engine_host, "network", "ls", "-q", "--no-trunc", "--filter", "label=tier=web") == made
    assert made in out(engine_host, "network", "ls", "-q", "--no-trunc", "--filter", "type=custom")
    identity = sleeper(engine_host, "box", "--network", "one")
    assert out(engine_host, "exec", "box", "cat", "/sys/class/net/eth0/mtu") == "1400"
    member = network(engine_host, "one")["Containers"][identity]
    mine = endpoint(engine_host, "box", "one")
    assert member["Name"] == "box"
    assert member["IPv4Address"] == f"{mine['IPAddress']}/{mine['IPPrefixLen']}"
    assert mine["DNSNames"] == ["box", identity[:12]]
    assert "has active endpoints" in refused(engine_host, "network", "rm", "one")
    out(engine_host, "rm", "-f", "box")
    out(engine_host, "network", "rm", "one")
    assert "network one not found" in refused(engine_host, "network", "inspect", "one")
    assert f"br-{made[:12]}" not in os.listdir("/sys/class/net")


def test_subnets_gateways_ranges_and_static_addresses(engine_host: str) -> None:
    out(
        engine_host, "network", "create", "--subnet", "10.221.0.0/24", "--gateway", "10.221.0.254",
        "--ip-range", "10.221.0.64/26", "--aux-address", "printer=10.221.0.64", "-o", "com.docker.network.bridge.name=ttbr7", "two",
    )  # fmt: skip
    [config] = network(engine_host, "two")["IPAM"]["Config"]
    assert config == {
        "Subnet": "10.221.0.0/24",
        "IPRange": "10.221.0.64/26",
        "Gateway": "10.221.0.254",
        "AuxiliaryAddresses": {"printer": "10.221.0.64"},
    }
    assert "ttbr7" in os.listdir("/sys/class/net")
    sleeper(engine_host, "ranged", "--network", "two")
    assert endpoint(engine_host, "ranged", "two")["IPAddress"] == "10.221.0.65"
    sleeper(engine_host, "fixed", "--network", "two", "--ip", "10.221.0.9", "--mac-address", "02:42:00:00:00:77")
    mine = endpoint(engine_host, "fixed", "two")
    assert (mine["IPAddress"], mine["MacAddress"]) == ("10.221.0.9", "02:42:00:00:00:77")
    assert "02:42:00:00:00:77" in out(engine_host, "exec", "fixed", "cat", "/sys/class/net/eth0/address")
    assert "via 10.221.0.254" in out(engine_host, "exec", "fixed", "ip", "route")
    assert reaches(engine_host, "ranged", "10.221.0.9")
    assert "Address already in use" in refused(
        engine_host, "run", "--network", "two", "--ip", "10.221.0.9", "busybox", "true"
    )
    out(engine_host, "restart", "-t", "0", "fixed")
    assert endpoint(engine_host, "fixed", "two")["IPAddress"] == "10.221.0.9"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["taken"], "network with name taken already exists"),
        (["bridge"], "operation is not permitted on predefined bridge network"),
        (["-d", "weave", "x"], 'plugin "weave" not found'),
        (["-d", "overlay", "x"], "This node is not a swarm manager"),
        (["--subnet", "10.222.0.0/25", "x"], "Pool overlaps with other one on this address space"),
        (["--subnet", "10.223.0.0/24", "--gateway", "10.1.1.1", "x"], "10.1.1.1"),
        (["--ipv4=false", "x"], "IPv4 or IPv6 must be enabled"),
        (["-o", "com.docker.network.driver.mtu=x", "x"], "failed to parse com.docker.network.driver.mtu value: x"),
    ],
)
def test_refusals_leave_nothing(engine_host: str, argv: list[str], text: str) -> None:
    out(engine_host, "network", "create", "--subnet", "10.222.0.0/24", "taken")
    assert text in refused(engine_host, "network", "create", *argv)
    assert "x" not in out(engine_host, "network", "ls", "--format", "{{.Name}}").splitlines()


@pytest.mark.parametrize("predefined", ["bridge", "host", "none"])
def test_predefined_ones_stay(engine_host: str, predefined: str) -> None:
    text = f"{predefined} is a pre-defined network and cannot be removed"
    assert text in refused(engine_host, "network", "rm", predefined)


def test_networks_are_apart_and_icc_and_internal_hold(engine_host: str) -> None:
    out(engine_host, "network", "create", "left")
    out(engine_host, "network", "create", "right")
    out(engine_host, "network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "silent")
    out(engine_host, "network", "create", "--internal", "inner")
    places = {"l1": "left", "l2": "left", "r1": "right", "s1": "silent", "s2": "silent", "i1": "inner", "i2": "inner"}
    places["d1"] = "bridge"
    for name, place in places.items():
        sleeper(engine_host, name, "--network", place, "--cap-add", "NET_ADMIN")
    addresses = {name: endpoint(engine_host, name, place)["IPAddress"] for name, place in places.items()}
    matrix = {
        (a, b): reaches(engine_host, a, addresses[b])
        for a, b in [
            ("l1", "l2"), ("l1", "r1"), ("r1", "l1"), ("s1", "s2"), ("i1", "i2"), ("l1", "i1"),
            ("i1", "l1"), ("d1", "l1"), ("l1", "d1"), ("i1", "d1"),
        ]
    }  # fmt: skip
    assert {pair for pair, reached in matrix.items() if reached} == {("l1", "l2"), ("i1", "i2")}
    assert "default" not in out(engine_host, "exec", "i1", "ip", "route")
    gateway = network(engine_host, "inner")["IPAM"]["Config"][0]["Gateway"]
    out(engine_host, "exec", "i1", "ip", "route", "add", "default", "via", gateway)
    assert not reaches(engine_host, "i1", addresses["l1"])


def test_connected_and_disconnected_while_it_runs(engine_host: str) -> None:
    out(engine_host, "network", "create", "--subnet", "10.224.1.0/24", "front")
    out(engine_host, "network", "create", "--subnet", "10.224.2.0/24", "back")
    sleeper(engine_host, "web", "--network", "front")
    sleeper(engine_host, "db", "--network", "back")
    assert not reaches(engine_host, "web", "10.224.2.2")
    out(engine_host, "network", "connect", "--alias", "www", "--ip", "10.224.2.80", "back", "web")
    assert reaches(engine_host, "web", "10.224.2.2")
    assert endpoint(engine_host, "web", "back")["IPAddress"] == "10.224.2.80"
    assert "default via 10.224.2.1" in out(engine_host, "exec", "web", "ip", "route")  # "back" sorts before "front"
    assert "10.224.2.80" in out(engine_host, "exec", "web", "cat", "/etc/hosts")
    assert "already exists in network back" in refused(engine_host, "network", "connect", "back", "web")
    out(engine_host, "network", "disconnect", "back", "web")
    assert not reaches(engine_host, "web", "10.224.2.2")
    assert "default via 10.224.1.1" in out(engine_host, "exec", "web", "ip", "route")
    assert "10.224.2.80" not in out(engine_host, "exec", "web", "cat", "/etc/hosts")
    assert "is not connected to the network back" in refused(engine_host, "network", "disconnect", "back", "web")
    out(engine_host, "network", "disconnect", "front", "web")
    assert json.loads(out(engine_host, "inspect", "-f", "{{json .NetworkSettings.Networks}}", "web")) == {}
    out(engine_host, "network", "connect", "--gw-priority", "5", "front", "web")
    assert reaches(engine_host, "web", "10.224.1.1")


def test_several_at_create_and_changes_of_a_stopped_container(engine_host: str) -> None:
    for name in ("na", "nb", "nc"):
        out(engine_host, "network", "create", name)
    out(
        engine_host,
        "create",
        "--name",
        "box",
        "--network",
        "na",
        "--network",
        "name=nb,alias=other",
        "busybox",
        "sleep",
        "9",
    )
    out(engine_host, "network", "connect", "nc", "box")
    out(engine_host, "network", "disconnect", "na", "box")
    out(engine_host, "start", "box")
    links = out(engine_host, "exec", "box", "ls", "/sys/class/net").split()
    assert sorted(links) == ["eth0", "eth1", "lo"]
    settings = json.loads(out(engine_host, "inspect", "-f", "{{json .NetworkSettings.Networks}}", "box"))
    assert sorted(settings) == ["nb", "nc"]
    assert settings["nb"]["Aliases"] == ["other"]
    out(engine_host, "restart", "-t", "0", "box")
    again = json.loads(out(engine_host, "inspect", "-f", "{{json .NetworkSettings.Networks}}", "box"))
    assert sorted(again) == ["nb", "nc"]


def test_refused_connections(engine_host: str) -> None:
    out(engine_host, "network", "create", "net")
    sleeper(engine_host, "hosted", "--network", "host")
    sleeper(engine_host, "alone", "--network", "none")
    sleeper(engine_host, "guest", "--network", "container:alone")
    assert "connected to host network" in refused(engine_host, "network", "connect", "net", "hosted")
    assert "private (none) mode" in refused(engine_host, "network", "connect", "net", "alone")
    assert "sharing network namespace" in refused(engine_host, "network", "connect", "net", "guest")
    assert "No such container: nobody" in refused(engine_host, "network", "connect", "net", "nobody")
    assert "network nowhere not found" in refused(engine_host, "network", "connect", "nowhere", "alone")


def test_prune_and_news(engine_host: str) -> None:
    client = docker_sdk.DockerClient(base_url=engine_host)
    try:
        used, unused = client.networks.create("used", check_duplicate=True), client.networks.create("unused")
        box = client.containers.run("busybox", "sleep 600", detach=True, network="used", name="box")
        assert client.networks.prune()["NetworksDeleted"] == ["unused"]
        assert [found.id for found in client.networks.list(names=["used"])] == [used.id]
        used.reload()
        assert [member.id for member in used.containers] == [box.id]
        used.disconnect(box)
        used.connect(box, aliases=["again"])
        box.remove(force=True)
        used.remove()
        told = [
            event["Action"]
            for event in client.events(since=1, until=int(time.time()) + 1, decode=True, filters={"network": used.id})
        ]
        assert told == ["create", "connect", "disconnect", "connect", "disconnect", "destroy"]
        assert unused.id != used.id
    finally:
        client.close()


def test_networks_and_their_containers_outlive_the_daemon(own: Daemon) -> None:
    out(own.host, "network", "create", "--subnet", "10.225.0.0/24", "kept")
    out(own.host, "network", "create", "later")
    sleeper(own.host, "aa", "--network", "kept", "--ip", "10.225.0.7")
    out(own.host, "network", "connect", "later", "aa")
    own.kill()
    own.start()
    assert sorted(json.loads(out(own.host, "inspect", "-f", "{{json .NetworkSettings.Networks}}", "aa"))) == [
        "kept",
        "later",
    ]
    sleeper(own.host, "bb", "--network", "kept")
    assert endpoint(own.host, "bb", "kept")["IPAddress"] == "10.225.0.2"
    assert reaches(own.host, "bb", "10.225.0.7")
    assert "10.225.0.7" in out(own.host, "exec", "bb", "nslookup", "aa")
    assert "10.225.0.2" in out(own.host, "exec", "aa", "nslookup", "bb")
    out(own.host, "network", "disconnect", "later", "aa")
    out(own.host, "network", "rm", "later")
    assert "Address already in use" in refused(
        own.host, "run", "--network", "kept", "--ip", "10.225.0.7", "busybox", "true"
    )


def test_an_isolated_network_has_no_address_of_the_host(engine_host: str) -> None:
    mode = "com.docker.network.bridge.gateway_mode_ipv"
    modes = ["-o", f"{mode}4=isolated", "-o", f"{mode}6=isolated"]
    assert "can only be used for an internal network" in refused(engine_host, "network", "create", *modes, "alone")
    name = ["-o", "com.docker.network.bridge.name=ttalone0"]
    out(engine_host, "network", "create", "--internal", "--ipv6", *modes, *name, "alone")
    shown = subprocess.run(["ip", "-o", "addr", "show", "ttalone0"], capture_output=True, text=True, check=True)
    assert shown.stdout == ""
    assert [config.get("Gateway") for config in network(engine_host, "alone")["IPAM"]["Config"]] == [None, None]
    sleeper(engine_host, "first", "--network", "alone")
    sleeper(engine_host, "second", "--network", "alone")
    assert reaches(engine_host, "second", "first")
    assert reaches(engine_host, "second", endpoint(engine_host, "first", "alone")["GlobalIPv6Address"])
    for text in ("first", "second"):
        out(engine_host, "rm", "-f", text)
    out(engine_host, "network", "rm", "alone")


def test_two_on_a_subnet_of_two_addresses(engine_host: str) -> None:
    inhibit = ["-o", "com.docker.network.bridge.inhibit_ipv4=true"]
    out(engine_host, "network", "create", "--internal", *inhibit, "--subnet", "10.199.7.0/31", "pair")
    sleeper(engine_host, "first", "--network", "pair")
    sleeper(engine_host, "second", "--network", "pair")
    assert {endpoint(engine_host, name, "pair")["IPAddress"] for name in ("first", "second")} == {
        "10.199.7.0",
        "10.199.7.1",
    }
    assert reaches(engine_host, "second", "first")
    assert "no available IPv4 addresses" in refused(engine_host, "run", "--rm", "--network", "pair", "busybox", "true")
    for name in ("first", "second"):
        out(engine_host, "rm", "-f", name)
    out(engine_host, "network", "rm", "pair")


def test_interfaces_are_called_and_set_as_asked(engine_host: str) -> None:
    out(engine_host, "network", "create", "named")
    out(engine_host, "network", "create", "base")
    options = "driver-opt=com.docker.network.endpoint.ifname=web0"
    setting = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"
    sleeper(engine_host, "first", "--network", f"name=base,{options},driver-opt={setting}", "--network", "named")

    def at(name: str) -> str:
        return out(engine_host, "exec", "first", "ip", "-o", "-4", "addr", "show", name)

    assert endpoint(engine_host, "first", "base")["IPAddress"] in at("web0")
    assert endpoint(engine_host, "first", "named")["IPAddress"] in at("eth0")
    assert out(engine_host, "exec", "first", "cat", "/proc/sys/net/ipv4/conf/web0/log_martians") == "1"
    out(engine_host, "network", "disconnect", "named", "first")
    again = ["network", "connect", "--driver-opt", "com.docker.network.endpoint.ifname=web0", "named", "first"]
    assert 'error renaming interface to "web0": file exists' in refused(engine_host, *again)
    again[3] = "com.docker.network.endpoint.ifname=eth7"
    out(engine_host, *again)
    assert endpoint(engine_host, "first", "named")["IPAddress"] in at("eth7")
    unknown = ["--network", "name=named,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.nothing=1"]
    assert "is not a sysctl file" in refused(engine_host, "run", "--rm", *unknown, "busybox", "true")
    out(engine_host, "rm", "-f", "first")
    out(engine_host, "network", "rm", "named", "base")


def test_a_container_that_switches_ipv6_off_has_no_address_of_it(engine_host: str) -> None:
    out(engine_host, "network", "create", "--ipv6", "both")
    off = "net.ipv6.conf.all.disable_ipv6=1"
    sleeper(engine_host, "without", "--network", "both", "--sysctl", off, "-p", "80")
    sleeper(engine_host, "with", "--network", "both")
    settings = endpoint(engine_host, "without", "both")
    assert (settings["GlobalIPv6Address"], settings["IPv6Gateway"], settings["GlobalIPv6PrefixLen"]) == ("", "", 0)
    assert ":" not in out(engine_host, "exec", "without", "cat", "/etc/hosts")
    assert docker(engine_host, "exec", "with", "ping", "-6", "-c", "1", "-W", "1", "without").returncode != 0
    assert reaches(engine_host, "with", "without")
    for name in ("without", "with"):
        out(engine_host, "rm", "-f", name)
    out(engine_host, "network", "rm", "both")


def test_a_network_without_ipv4_is_asked_for_since_1_48(daemon: Daemon) -> None:
    body = {"Name": "old", "EnableIPv4": False, "EnableIPv6": True}
    daemon.json("POST", "/v1.47/networks/create", body, expect=201)
    assert daemon.json("GET", "/networks/old")["EnableIPv4"] is True
    daemon.request("DELETE", "/networks/old")
    daemon.json("POST", "/v1.48/networks/create", body, expect=201)
    assert daemon.json("GET", "/networks/old")["EnableIPv4"] is False
    daemon.request("DELETE", "/networks/old")
