from __future__ import annotations

from typing import Any


def test_create_body(engine: Any, tare: Any) -> None:
    engine.answers["POST /networks/create"] = (201, {"Id": "n1", "Warning": ""})
    argv = [
        "--subnet",
        "10.1.0.0/16",
        "--gateway",
        "10.1.0.1",
        "--ip-range",
        "10.1.2.0/24",
        "--aux-address",
        "a=10.1.0.9",
    ]
    assert tare("network", "create", *argv, "--internal", "-o", "k=v", "--label", "l", "net") == (0, "n1\n", "")
    body = engine.requests[-1][2]
    assert body["IPAM"]["Config"] == [
        {
            "Subnet": "10.1.0.0/16",
            "IPRange": "10.1.2.0/24",
            "Gateway": "10.1.0.1",
            "AuxiliaryAddresses": {"a": "10.1.0.9"},
        }
    ]
    assert (body["Name"], body["Internal"], body["Options"], body["Labels"]) == ("net", True, {"k": "v"}, {"l": ""})
    assert tare("network", "create", "--gateway", "10.1.0.1", "x")[0] == 1


def test_ls_rm_connect(engine: Any, tare: Any) -> None:
    networks = [{"Id": "b" * 64, "Name": "n10", "Driver": "bridge", "Scope": "local"}, {"Id": "a" * 64, "Name": "n9"}]
    engine.answers["GET /networks"] = (200, networks)
    assert tare("network", "ls", "-q") == (0, f"{'a' * 12}\n{'b' * 12}\n", "")
    assert tare("network", "rm", "x") == (
        1,
        "",
        "Error response from daemon: page not found: /networks/x\nexit status 1\n",
    )
    engine.answers["POST /networks/x/connect"] = (200, b"")
    assert tare("network", "connect", "--ip", "1.2.3.4", "--alias", "a,b", "x", "web") == (0, "", "")
    endpoint = engine.requests[-1][2]["EndpointConfig"]
    assert (endpoint["IPAMConfig"], endpoint["Aliases"]) == ({"IPv4Address": "1.2.3.4"}, ["a", "b"])
