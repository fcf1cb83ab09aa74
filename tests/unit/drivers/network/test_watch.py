"""Reading multicast news; hearing real ones is proved in tests/e2e/test_mending.py."""

import struct

from tare.drivers.network import watch
from tare.drivers.network.watch import Losses


def message(kind, head, attribute, text):
    value = text.encode() + b"\0"
    body = head + struct.pack("=HH", 4 + len(value), attribute) + value + b"\0" * (-len(value) & 3)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_deleted_links():
    data = message(17, bytes(16), 3, "br0") + message(16, bytes(16), 3, "veth1")
    assert watch._parse_link(data, Losses()).links == {"br0"}


def test_deleted_rules_and_new_chains():
    data = message(10 << 8 | 2, bytes(4), 1, "tare-br0") + message(10 << 8 | 12, bytes(4), 1, "other")
    found = watch._parse_rules(data, Losses())
    assert (found.tables, found.firewalls) == ({"tare-br0"}, True)
    assert watch._parse_rules(message(10 << 8 | 3, bytes(4), 1, "filter"), Losses()).firewalls
    assert not Losses()
