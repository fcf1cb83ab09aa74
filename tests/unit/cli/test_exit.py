from __future__ import annotations

import pytest

from tare.cli import exit as exits


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ("stat /nosuch: no such file or directory: unknown", 127),
        ('exec: "/etc/passwd": permission denied: unknown', 126),
        ("Conflict. The container name is in use", 125),
    ],
)
def test_start_errors(text: str, code: int) -> None:
    assert exits.of_start_error(text) == code
