from __future__ import annotations

import json
from typing import Any

ONE = {
    "Layer": 1,
    "DiffID": "sha256:" + "ab" * 32,
    "Size": 7,
    "Created": "2020-01-02T03:04:05Z",
    "CreatedBy": "RUN echo\thello " + "x" * 60,
    "Comment": "",
    "Author": "Ada",
}
OWN = {"Layer": 2, "DiffID": "", "Size": 0, "Created": "", "CreatedBy": "", "Comment": "container c", "Author": ""}


def test_log(engine: Any, tare: Any) -> None:
    entries = [
        {"Kind": 2, "File": None, "Origin": OWN},
        {"Kind": 0, "File": {"Mode": 1 << 31, "Size": 9}, "Origin": ONE},
        {"Kind": 1, "File": {"Mode": 0o644, "Size": 9}, "Origin": ONE},
    ]
    engine.answers["GET /tare/v1/log"] = (200, {"Path": "/x", "Entries": entries})
    code, out, _ = tare("log", "web@2", "/x")
    assert (code, engine.requests[-1][1]) == (0, "/tare/v1/log?of=web%402&path=%2Fx")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:5] == ["LAYER", "DIFF", "ID", "CREATED", "WHAT"]
    assert lines[1] == ["2", "(container)", "N/A", "removed", "container", "c"]
    assert lines[2][1] == "abababababab"
    assert "9B" not in lines[2]
    assert "9B" in lines[3]
    assert out.splitlines()[3].endswith("…")
    full = tare("log", "--no-trunc", "web", "/x")[1]
    assert "sha256:" + "ab" * 32 in full
    assert "Ada" in full
    assert json.loads(tare("log", "--format", "json", "web", "/x")[1])["Entries"] == entries
    assert tare("log", "--format", "table", "web", "/x")[0] == 1


def test_blame(engine: Any, tare: Any) -> None:
    parts = [{"Layer": 1, "Text": "a"}, {"Layer": 2, "Text": "b c"}]
    body = {"Path": "/x", "IsDirectory": False, "Parts": parts, "Origins": [ONE, OWN]}
    engine.answers["GET /tare/v1/blame"] = (200, body)
    code, out, _ = tare("blame", "web", "/x")
    first, second = out.splitlines()
    assert (code, first.endswith("… 1) a"), second.endswith(" 2) b c")) == (0, True, True)
    assert first.index(")") == second.index(" 2)") + 2
    engine.answers["GET /tare/v1/blame"] = (200, body | {"IsDirectory": True})
    assert tare("blame", "web", "/x")[1].splitlines()[1].endswith(") b c")
    engine.answers["GET /tare/v1/blame"] = (200, body | {"Parts": [], "Origins": []})
    assert tare("blame", "web", "/x") == (0, "", "")
