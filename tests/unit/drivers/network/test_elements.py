"""Keys as the kernel stores them; real maps are changed in tests/e2e/test_network.py."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from tare.base.errors import Conflict, InternalError, NotFound
from tare.drivers.network import elements
from tare.drivers.network.elements import Element, cells


def test_every_field_fills_whole_cells():
    assert cells("tcp", 8080) == b"\x06\0\0\0\x1f\x90\0\0"
    assert cells(IPv4Address("10.0.0.2"), 80) == b"\x0a\0\0\x02\0\x50\0\0"
    assert cells("sctp", 36412) == b"\x84\0\0\0\x8e\x3c\0\0"
    assert len(cells(IPv6Address("::1"), "udp", 53)) == 24


def test_the_data_goes_with_new_elements_only():
    element = Element(version=4, table="tare-br0", name="published", key=b"kkkk", data=b"dddd")
    assert b"dddd" in elements._body(element, with_data=True)
    assert b"dddd" not in elements._body(element, with_data=False)


@pytest.mark.parametrize(("code", "error"), [(2, NotFound), (17, Conflict), (1, InternalError)])
def test_errors(code, error):
    with pytest.raises(error, match="nftables: a set of ours could not be changed"):
        elements._raise_for(code)


def test_a_verdict_and_the_ends_of_intervals():
    """linux/netfilter/nf_tables.h: NFTA_DATA_VERDICT, NFTA_VERDICT_CODE (NF_ACCEPT 1), _KEY_END, _FLAGS."""
    within = Element(version=4, table="t", name="within", key=b"kkkk", verdict="accept")
    assert bytes.fromhex("100002800c0002800800010000000001") in elements._body(within, with_data=True)
    assert b"\x10\0\x02\x80" not in elements._body(within, with_data=False)
    home = Element(version=4, table="t", name="homes", key=b"kkkk", end=b"eeee")
    assert bytes.fromhex("0c000a8008000100") + b"eeee" in elements._body(home, with_data=False)
    behind = Element(version=4, table="t", name="outbound", key=b"kkkk", is_end=True)
    assert bytes.fromhex("0800030000000001") in elements._body(behind, with_data=False)
