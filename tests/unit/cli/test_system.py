from __future__ import annotations

from typing import Any

from tare.cli.system import info_lines


def test_version(engine: Any, tare: Any) -> None:
    server = {"Version": "9", "ApiVersion": "1.51", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64"}
    engine.answers["GET /version"] = (200, server)
    assert tare("version", "-f", "{{.Server.Version}} {{.Client.ApiVersion}}") == (0, "9 1.51\n", "")
    assert "  API version:      1.51 (minimum version 1.24)\n" in tare("version")[1]
    text = (
        'template: version:1:2: executing "version" at <.Foo>: can\'t evaluate field Foo in type system.versionInfo\n'
    )
    assert tare("version", "-f", "{{.Foo}}") == (1, "\n", text)


def test_info(engine: Any, tare: Any) -> None:
    info = {
        "Containers": 3,
        "Driver": "overlay",
        "NCPU": 2,
        "MemTotal": 1 << 30,
        "SecurityOptions": ["name=seccomp,profile=default"],
    }
    engine.answers["GET /info"] = (200, {**info, "OSType": "linux"})
    out = tare("info")[1]
    assert " Total Memory: 1GiB\n" in out
    assert "  seccomp\n   Profile: default\n" in out
    assert tare("info", "-f", "{{.NCPU}}") == (0, "2\n", "")
    assert info_lines({})[0] == " Containers: 0"
    backend = {"Driver": "nftables", "Info": [["ReloadedAt", "today"]]}
    pools = [{"Base": "10.0.0.0/8", "Size": 24}]
    assert info_lines({"FirewallBackend": backend, "DefaultAddressPools": pools})[-4:] == [
        " Default Address Pools:",
        "   Base: 10.0.0.0/8, Size: 24",
        " Firewall Backend: nftables",
        "  ReloadedAt: today",
    ]
