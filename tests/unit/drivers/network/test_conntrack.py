"""Reading flows as the kernel writes them; deleting real ones is proved in tests/e2e/test_ports_live.py."""

import struct
from ipaddress import ip_address

from tare.drivers.network import conntrack


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) & 3)


def flow(protocol, port, version=4):
    inner = attribute(1, bytes([protocol])) + attribute(2, b"\x12\x34") + attribute(3, port.to_bytes(2, "big"))
    where = attribute(1, bytes([10, 0, 0, 1])) + attribute(2, bytes([10, 0, 0, 2])) if version == 4 else b""
    where += attribute(3, bytes(16)) + attribute(4, bytes([0xFD, *[0] * 14, 2])) if version == 6 else b""
    return b"\x02\0\0\0" + attribute(1 | 0x8000, attribute(1 | 0x8000, where) + attribute(2 | 0x8000, inner))


def test_the_end_of_udp_flows_only():
    assert conntrack.udp_end(flow(17, 5353)) == (ip_address("10.0.0.2").packed, 5353)
    assert conntrack.udp_end(flow(17, 53, version=6)) == (ip_address("fd00::2").packed, 53)
    assert conntrack.udp_end(flow(6, 80)) is None
    assert conntrack.udp_end(b"\x02\0\0\0") is None


def test_nothing_to_forget_asks_nobody():
    assert conntrack.forget_udp([]) == 0
