"""A runtime's complaint about an exec, as Docker words it."""

from __future__ import annotations

import pytest

from tare.drivers.runtime.sessions import translate

PREFIX = "OCI runtime exec failed: exec failed: unable to start container process: "


@pytest.mark.parametrize(
    ("text", "message", "code"),
    [
        (
            'exec: "nosuch": executable file not found in $PATH',
            'exec: "nosuch": executable file not found in $PATH',
            127,
        ),
        ("2026-01-01T00:00:00.0Z: chdir: No such file or directory", "chdir: No such file or directory", 127),
        (
            'noise\n{"level":"error","msg":"exec failed: unable to start container process: exec: \\"/etc\\": permission denied"}\n',
            'exec: "/etc": permission denied',
            126,
        ),
        ("", "the runtime gave no reason", 126),
        ("{not json", "{not json", 126),
    ],
)
def test_translate(text: str, message: str, code: int) -> None:
    error = translate(text)
    assert (error.message, error.exit_code) == (PREFIX + message, code)
