"""Which coding a client gets."""

from __future__ import annotations

import pytest

from tare.wire.encoding import negotiate


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", "identity"),
        ("identity", "identity"),
        ("gzip", "gzip"),
        ("gzip, deflate", "gzip"),
        ("deflate, gzip", "gzip"),
        ("deflate;q=1, gzip;q=0.5", "deflate"),
        ("gzip;q=0", "identity"),
        ("gzip;q=0, *", "deflate"),
        ("*", "gzip"),
        ("identity;q=1, gzip;q=0.5", "identity"),
        ("br, zstd", "identity"),
        ("GZIP ; Q=0.8", "gzip"),
        ("gzip;q=nan", "identity"),
        ("gzip;q=7, deflate;q=0.1", "deflate"),
        (",;,=;q", "identity"),
    ],
)
def test_negotiate(accepted: str, chosen: str) -> None:
    assert negotiate(accepted, ("gzip", "deflate")) == chosen
