"""Keys as the kernel stores them; real maps are changed in tests/e2e/test_network.py."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from tare.base.errors import Conflict, InternalError, NotFound
from tare.drivers.network import elements
from tare.drivers.network.elements import Element, cells


def test_every_field_fills_whole_cells():
    assert cells("tcp", 8080) == b"\x06\0\0\0\x1f\x90\0\0"
    assert cells(IPv4Address("10.0.0.2"), 80) == b"\x0a\0\0\x02\0\x50\0\0"
    assert len(cells(IPv6Address("::1"), "udp", 53)) == 24


def test_the_data_goes_with_new_elements_only():
    element = Element(version=4, table="tare-br0", name="published", key=b"kkkk", data=b"dddd")
    assert b"dddd" in elements._body(element, with_data=True)
    assert b"dddd" not in elements._body(element, with_data=False)


@pytest.mark.parametrize(("code", "error"), [(2, NotFound), (17, Conflict), (1, InternalError)])
def test_errors(code, error):
    with pytest.raises(error, match="nftables: a set of ours could not be changed"):
        elements._raise_for(code)
