"""The isolation matrix: who reaches whom, whatever a container does with addresses and routes inside.

Proves `networks/wiring` and the rules of `drivers/network/nft` on a real engine and in namespaces of the test's own.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_address
from pathlib import Path

import pytest

from tare.drivers.network.bridge import BridgeDriver, Plug
from tare.drivers.network.netns import Namespaces, NetNamespace
from tare.drivers.network.nft import BridgeRules, Listener
from tare.testing.daemon import Daemon
from tare.testing.stockclient import docker, out

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
]
WEB = "mkdir -p /tmp/w; echo hello > /tmp/w/index.html; exec busybox httpd -f -p 80 -h /tmp/w"
READY = "until wget -qO- http://127.0.0.1/; do :; done"
ADDRESSES = {
    "green": ("10.226.1.2", "fd5a:e1::2"),
    "red": ("10.226.2.2", "fd5a:e2::2"),
    "closed": ("10.226.3.2", "fd5a:e3::2"),
    "mute": ("10.226.4.2", "fd5a:e4::2"),
}
# Everybody who asks may change addresses and routes (NET_ADMIN).
MATRIX = [
    # on which network who asks is, what it does inside first, whom it asks, whether that may succeed
    ("green", "", "green-web", 4, True),
    ("green", "", "green-web", 6, True),
    ("green", "", "red-web", 4, False),
    ("green", "", "red-web", 6, False),
    ("green", "ip route add {red4}/32 via {gw4}", "red-web", 4, False),
    ("green", "ip -6 route add {red6}/128 via {gw6}", "red-web", 6, False),
    ("green", "ip route add {red4}/32 dev eth0", "red-web", 4, False),
    ("green", "ip addr add 10.226.2.9/24 dev eth0", "red-web", 4, False),
    ("green", "ip -6 addr add fd5a:e2::9/64 dev eth0", "red-web", 6, False),
    ("green", "ip route add {closed4}/32 via {gw4}", "closed-web", 4, False),
    ("green", "", "red-gateway", 4, True),  # the host, by any of its addresses, as with Docker
    ("green", "", "red-published", 4, True),
    ("green", "", "red-published", 6, True),
    ("closed", "", "closed-web", 4, True),
    ("closed", "ip route add default via {closedgw4}", "red-web", 4, False),
    ("closed", "ip route add default via {closedgw4}", "green-web", 4, False),
    ("closed", "ip -6 route add default via {closedgw6}", "green-web", 6, False),
    ("mute", "", "mute-web", 4, False),
    ("mute", "", "mute-web", 6, False),
    ("mute", "ip route add {mute4}/32 via {mutegw4}", "mute-web", 4, False),
]


@pytest.fixture(scope="module")
def matrix(scratch: Path, rootfs_tar: bytes) -> Iterator[Callable[[str, str, str, int, bool], bool]]:
    engine = Daemon(scratch / "isolown", bridge="ttiso0", source=REPOSITORY / "src")
    engine.start()
    try:
        engine.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        values = _build(engine.host)

        def asks(where: str, first: str, whom: str, version: int, may: bool) -> bool:
            address, port = _target(values, whom, version)
            ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 1 nc {address} {port}"
            if whom.endswith("-gateway"):
                ask = f"ping -c 1 -W 1 {address} >/dev/null && echo hello"
            if may:  # the server takes one client after the other: between two it is not there for a moment
                ask = f"for _ in 1 2 3 4 5 6 7 8 9; do ({ask}) | grep hello && break; usleep 50000; done"
            script = f"{first.format(**values) or 'true'} && echo ready && {ask}"
            done = docker(
                engine.host, "run", "--rm", "--network", where, "--cap-add", "NET_ADMIN", "busybox", "sh", "-c", script
            )
            assert "ready" in done.stdout, done.stderr
            return "hello" in done.stdout

        yield asks
    finally:
        engine.destroy()


def _target(values: dict[str, str], whom: str, version: int) -> tuple[str, str]:
    network, _, what = whom.partition("-")
    if what == "gateway":
        return values[f"{network}gw{version}"], "0"
    if what == "published":
        return values[f"{network}gw{version}"], values["port"]
    return values[f"{network}{version}"], "80"


def _build(host: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for number, (name, (address, address6)) in enumerate(ADDRESSES.items(), 1):
        options = ["--internal"] if name == "closed" else []
        options += ["-o", "com.docker.network.bridge.enable_icc=false"] if name == "mute" else []
        out(
            host, "network", "create", "--ipv6", "--subnet", f"10.226.{number}.0/24",
            "--subnet", f"fd5a:e{number}::/64", *options, name,
        )  # fmt: skip
        published = ["-p", "80"] if name == "red" else []
        out(
            host, "run", "-d", "--stop-timeout", "0", "--name", f"{name}-web", "--network", name, "--ip", address,
            "--ip6", address6, *published, "busybox", "sh", "-c", WEB,
        )  # fmt: skip
        assert "hello" in docker(host, "exec", f"{name}-web", "sh", "-c", READY, timeout=20).stdout
        values |= {f"{name}4": address, f"{name}6": address6}
        values |= {f"{name}gw4": f"10.226.{number}.1", f"{name}gw6": f"fd5a:e{number}::1"}
    values |= {"gw4": values["greengw4"], "gw6": values["greengw6"]}
    ports = json.loads(out(host, "inspect", "-f", "{{json .NetworkSettings.Ports}}", "red-web"))
    values["port"] = ports["80/tcp"][0]["HostPort"]
    return values


@pytest.mark.parametrize(("where", "first", "whom", "version", "may"), MATRIX)
def test_who_reaches_whom(
    matrix: Callable[[str, str, str, int, bool], bool], where: str, first: str, whom: str, version: int, may: bool
) -> None:
    assert matrix(where, first, whom, version, may) is may


@pytest.fixture
def listening() -> Iterator[tuple[Namespaces, NetNamespace, dict[str, socket.socket]]]:
    """A "host" with sockets on it, an engine's and a plain one, for each family."""
    namespaces = Namespaces()
    host = namespaces.create()
    sockets: dict[str, socket.socket] = {}

    def listen(family: int, port: int) -> socket.socket:
        return socket.create_server(("", port), family=family)

    for name, family, port in (
        ("engine4", socket.AF_INET, 2376),
        ("engine6", socket.AF_INET6, 2376),
        ("plain4", socket.AF_INET, 8000),
        ("plain6", socket.AF_INET6, 8000),
    ):
        sockets[name] = namespaces.run(host.fd, lambda family=family, port=port: listen(family, port))
    yield namespaces, host, sockets
    for each in sockets.values():
        each.close()
    host.close()
    namespaces.close()


@pytest.mark.parametrize(
    ("address", "port", "may"),
    [
        ("10.227.0.1", 2376, False),
        ("10.227.0.1", 8000, True),
        ("10.228.0.1", 2376, False),  # by the address of another bridge
        ("fd5a:ea::1", 2376, False),
        ("fd5a:ea::1", 8000, True),
        ("127.0.0.1", 2376, False),
    ],
)
def test_no_container_reaches_the_engines_sockets(
    listening: tuple[Namespaces, NetNamespace, dict[str, socket.socket]], address: str, port: int, may: bool
) -> None:
    namespaces, host, _ = listening
    driver = BridgeDriver(home=host.path)
    try:
        for bridge, second in (("br-one", 227), ("br-two", 228)):
            own6 = [IPv6Interface("fd5a:ea::1/64")] if bridge == "br-one" else []
            driver.ensure_bridge(bridge, IPv4Interface(f"10.{second}.0.1/24"), *own6)
            driver.apply_rules(
                BridgeRules(
                    bridge=bridge,
                    subnet=IPv4Network(f"10.{second}.0.0/24"),
                    subnet6=IPv6Network("fd5a:ea::/64") if own6 else None,
                    listeners=(Listener(port=2376), Listener(port=8000, address=IPv4Address("10.227.0.99"))),
                )
            )
        inside = driver.namespace()
        plug = Plug(
            bridge="br-one",
            interface="eth0",
            mac="02:42:00:00:00:07",
            addresses=(IPv4Interface("10.227.0.2/24"), IPv6Interface("fd5a:ea::2/64")),
            gateways=(ip_address("10.227.0.1"), ip_address("fd5a:ea::1")),
        )
        driver.plug(inside, plug)
        if address == "127.0.0.1":  # as far as a container with NET_ADMIN can go
            namespaces.run(inside.fd, lambda: _lead_loopback_out(inside))
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        client = namespaces.run(inside.fd, lambda: socket.socket(family))
        client.settimeout(3 if may else 1)
        try:
            client.connect((address, port))
            reached = True
        except OSError:
            reached = False
        finally:
            client.close()
        assert reached is may
        inside.close()
    finally:
        driver.close()


def _lead_loopback_out(inside: NetNamespace) -> None:
    """127.0.0.0/8 goes by the bridge instead of by the loopback."""
    for name in ("all", "eth0"):
        Path(f"/proc/sys/net/ipv4/conf/{name}/route_localnet").write_text("1\n")
    for argv in (
        ["ip", "addr", "flush", "dev", "lo"],
        ["ip", "route", "replace", "127.0.0.1/32", "via", "10.227.0.1", "dev", "eth0"],
    ):
        subprocess.run(argv, capture_output=True, check=True)
