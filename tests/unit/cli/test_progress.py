from __future__ import annotations

import io

import pytest

from tare.cli import exit as exits
from tare.cli import progress


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ({"status": "Pulling", "id": "latest"}, "latest: Pulling\n"),
        ({"status": "Down", "id": "a", "progressDetail": {"current": 1, "total": 2}}, ""),
        ({"stream": "Loaded image: a\n"}, "Loaded image: a\n"),
        ({"status": "done", "id": "a", "progressDetail": {}}, "a: done\n"),
    ],
)
def test_line_of(message: dict[str, object], line: str) -> None:
    assert progress.line_of(message) == line


def test_errors_end_the_stream() -> None:
    out = io.StringIO()
    with pytest.raises(exits.Exit, match="no space"):
        progress.show([{"status": "a"}, {"errorDetail": {"message": "no space"}}, {"status": "b"}], out=out)
    assert out.getvalue() == "a\n"


def test_aux_is_not_printed() -> None:
    out, seen = io.StringIO(), []
    progress.show([{"aux": {"ID": "x"}}, {"status": "a"}], out=out, quiet=True, aux=seen.append)
    assert (out.getvalue(), seen) == ("", [{"ID": "x"}])
