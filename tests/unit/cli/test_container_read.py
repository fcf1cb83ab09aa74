from __future__ import annotations

from typing import Any


def test_diff_port_top_export(engine: Any, tare: Any) -> None:
    engine.answers["GET /containers/a/changes"] = (200, [{"Path": "/x", "Kind": 0}, {"Path": "/y", "Kind": 1}])
    assert tare("diff", "a") == (0, "C /x\nA /y\n", "")
    engine.answers["GET /containers/a/changes"] = (200, b"null")
    assert tare("diff", "a") == (0, "", "")
    ports = {
        "80/tcp": [{"HostIp": "::", "HostPort": "8"}],
        "9/udp": [{"HostIp": "1.2.3.4", "HostPort": "7"}],
        "1/tcp": None,
    }
    engine.answers["GET /containers/a/json"] = (200, {"NetworkSettings": {"Ports": ports}})
    assert tare("port", "a") == (0, "9/udp -> 1.2.3.4:7\n80/tcp -> [::]:8\n", "")
    assert tare("port", "a", "80") == (0, "[::]:8\n", "")
    assert tare("port", "a", "81") == (1, "", "Error: No public port '81' published for a\n")
    engine.answers["GET /containers/a/top"] = (200, {"Titles": ["PID", "CMD"], "Processes": [["1", "sh -c x"]]})
    assert tare("top", "a", "-o", "pid")[1] == "PID                 CMD\n1                   sh -c x\n"
    assert engine.requests[-1][1] == "/containers/a/top?ps_args=-o%20pid"
    engine.answers["GET /containers/a/export"] = (200, b"tar")
    assert tare("export", "a") == (0, "tar", "")
