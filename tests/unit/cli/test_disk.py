from __future__ import annotations

from typing import Any


def test_df(engine: Any, tare: Any) -> None:
    report = {
        "LayersSize": 1000,
        "Images": [
            {"Id": "i", "Size": 600, "SharedSize": 0, "Containers": 1},
            {"Id": "j", "Size": 400, "SharedSize": 0},
        ],
        "Containers": [{"Id": "c", "State": "exited", "SizeRw": 5}],
        "Volumes": [{"Name": "v", "UsageData": {"Size": 10, "RefCount": 0}}],
        "BuildCache": None,
    }
    engine.answers["GET /system/df"] = (200, report)
    assert [line.split()[-5:] for line in tare("system", "df")[1].splitlines()[1:]] == [
        ["2", "1", "1kB", "400B", "(40%)"],
        ["1", "0", "5B", "5B", "(100%)"],
        ["1", "0", "10B", "10B", "(100%)"],
        ["Cache", "0", "0", "0B", "0B"],
    ]
    chart = {"Digest": "sha256:" + "1" * 64, "Type": "application/x.chart", "Names": ["c:1"], "Size": 300}
    engine.answers["GET /system/df"] = (200, report | {"Artifacts": [chart], "ArtifactsSize": 300})
    lines = [line.split() for line in tare("system", "df")[1].splitlines()]
    assert lines[1] == ["Images", "2", "1", "700B", "100B", "(14%)"]
    assert lines[-1] == ["Artifacts", "1", "0", "300B", "300B", "(100%)"]
    assert "c:1       111111111111   application/x.chart" in tare("system", "df", "-v")[1]
