"""Which addresses and URLs an import may use."""

from __future__ import annotations

import pytest

from tare.base.errors import Forbidden, InvalidArgument
from tare.images.sources import check_address, open_url


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.1.1",
        "::1",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "fd00::1",
    ],
)
def test_private_addresses(address: str) -> None:
    with pytest.raises(Forbidden):
        check_address(address, allow_private=False)
    check_address(address, allow_private=True)


def test_public_addresses() -> None:
    check_address("1.1.1.1", allow_private=False)
    check_address("2606:4700::1111", allow_private=False)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://x/y", "http://", "http://u:p@1.1.1.1/", "http://x/\r\nA: b"]
)
def test_urls_refused(url: str) -> None:
    with pytest.raises(InvalidArgument):
        open_url(url, allow_private=False)


def test_a_loopback_url_is_refused_before_connecting() -> None:
    with pytest.raises(Forbidden):
        open_url("http://127.0.0.1:9/x", allow_private=False)
