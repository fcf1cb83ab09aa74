"""How the worker's answers become errors; the process itself is in tests/e2e/test_archive_worker.py."""

from __future__ import annotations

import pytest

from tare.base.errors import InternalError, InvalidArgument, TareError, Unavailable
from tare.drivers.archive.client import _failure


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("archive", InvalidArgument), ("full", Unavailable), ("os", InternalError), ("internal", InternalError)],
)
def test_failures(kind: str, expected: type[TareError]) -> None:
    error = _failure({"error": "unexpected EOF", "class": kind})
    assert type(error) is expected
    if kind == "archive":
        assert str(error) == "Error processing tar file: unexpected EOF"
