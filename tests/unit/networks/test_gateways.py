"""Gateways: whether there is one, and whether the host has its address."""

import pytest

from tare.base.errors import InvalidArgument, NotFound
from tare.networks import gateways
from tare.networks.gateways import INHIBIT, MODES
from tare.networks.records import NetworkRecord, Pool

BOTH = (Pool(subnet="10.9.0.0/24", gateway="10.9.0.1"), Pool(subnet="fd09::/64", gateway="fd09::1"))


def on_bridge(pools=BOTH, **options):
    record = NetworkRecord(id="1" * 64, name="n", driver="bridge", created_at=0, pools=pools, options=options)
    return [str(address) for address in gateways.of_bridge(record)]


@pytest.mark.parametrize(
    ("options", "internal", "text"),
    [
        ({INHIBIT: "maybe"}, False, "failed to parse com.docker.network.bridge.inhibit_ipv4 value: maybe"),
        ({MODES[4]: "sideways"}, False, "unknown gateway mode sideways"),
        ({MODES[6]: ""}, False, "unknown gateway mode"),
        ({MODES[6]: "isolated"}, False, "gateway mode 'isolated' can only be used for an internal network"),
    ],
)
def test_refusals(options, internal, text):
    with pytest.raises(InvalidArgument, match=text):
        gateways.check(options, internal=internal)


def test_what_is_known_passes():
    gateways.check({MODES[4]: "nat", INHIBIT: "false"}, internal=False)
    gateways.check({MODES[4]: "isolated", MODES[6]: "isolated"}, internal=True)
    gateways.check({MODES[4]: "routed", MODES[6]: "nat-unprotected"}, internal=False)
    gateways.check({MODES[4]: "routed"}, internal=True)


def test_each_family_has_a_mode():
    options = {MODES[6]: "routed"}
    assert [gateways.mode_of(options, version) for version in (4, 6)] == ["nat", "routed"]
    both = {MODES[4]: "routed", MODES[6]: "routed"}
    assert gateways.routed_by_all([both]) == {4, 6}
    assert gateways.routed_by_all([both, options]) == {6}
    assert gateways.routed_by_all([both, {}]) == frozenset()


@pytest.mark.parametrize(
    ("driver", "options", "internal", "versions"),
    [
        ("bridge", {}, True, set()),
        ("bridge", {INHIBIT: "true"}, False, set()),
        ("bridge", {INHIBIT: "1"}, True, {4}),
        ("bridge", {MODES[6]: "isolated"}, True, {6}),
        ("macvlan", {}, True, {4, 6}),
        ("macvlan", {}, False, set()),
    ],
)
def test_where_no_address_is_kept(driver, options, internal, versions):
    assert gateways.unreserved(driver, options, internal=internal) == versions


def test_the_addresses_of_the_host():
    assert on_bridge() == ["10.9.0.1/24", "fd09::1/64"]
    assert on_bridge(**{INHIBIT: "true"}) == ["fd09::1/64"]
    assert on_bridge(**{MODES[4]: "isolated"}) == ["fd09::1/64"]
    assert on_bridge(**{MODES[4]: "isolated", MODES[6]: "isolated"}) == []
    with pytest.raises(NotFound, match="network n has no gateway"):
        on_bridge(pools=(Pool(subnet="10.9.0.0/24"),))
