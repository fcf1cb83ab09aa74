"""macvlan and ipvlan: parents and modes."""

import pytest

from tare.base.errors import Forbidden, InvalidArgument
from tare.networks import parents
from tare.networks.records import NetworkRecord

OTHER = NetworkRecord(
    id="2" * 64, name="o", driver="macvlan", created_at=0, parent="eth0", options={"macvlan_mode": "bridge"}
)


def parent(driver="macvlan", **options):
    return parents.parent_of(driver, options, "1" * 64, [OTHER])


def test_parents_are_shared_unless_somebody_wants_them_alone():
    assert parent(parent="eth0") == "eth0"
    assert parent(parent="eth1.10", macvlan_mode="private") == "eth1.10"
    assert parent() == "dm-111111111111"


@pytest.mark.parametrize(
    ("driver", "options", "error", "text"),
    [
        ("macvlan", {"parent": "eth0", "macvlan_mode": "passthru"}, Forbidden, "already using parent interface eth0"),
        ("ipvlan", {"parent": "eth0"}, Forbidden, "already using parent interface eth0"),
        ("macvlan", {"macvlan_mode": "passthru"}, InvalidArgument, "needs a parent"),
        ("macvlan", {"parent": "eth0", "macvlan_mode": "x"}, InvalidArgument, "requested macvlan mode 'x'"),
        ("ipvlan", {"parent": "eth1", "ipvlan_mode": "x"}, InvalidArgument, "requested ipvlan mode 'x'"),
        ("ipvlan", {"parent": "eth1", "ipvlan_flag": "x"}, InvalidArgument, "requested ipvlan flag 'x'"),
        ("macvlan", {"parent": "eth1.5000"}, InvalidArgument, "a VLAN number is 1 to 4094"),
        ("macvlan", {"parent": "../x"}, InvalidArgument, "invalid parent interface"),
        ("macvlan", {"parent": "lo"}, InvalidArgument, "loopback interface"),
    ],
)
def test_refusals(driver, options, error, text):
    with pytest.raises(error, match=text):
        parent(driver, **options)


def test_sub_interfaces():
    assert parents.vlan("eth0") is None
    assert parents.vlan("eth0.10") == ("eth0", 10)


def test_how_containers_are_plugged_in():
    assert parents.child_of(OTHER).kind == "macvlan"
    assert parents.child_of(NetworkRecord(id="3" * 64, name="b", driver="bridge", created_at=0)) is None
