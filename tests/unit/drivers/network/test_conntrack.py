"""Reading flows as the kernel writes them; deleting real ones is proved in tests/e2e/test_ports_live.py."""

import struct

from tare.drivers.network import conntrack


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) & 3)


def flow(protocol, port):
    inner = attribute(1, bytes([protocol])) + attribute(2, b"\x12\x34") + attribute(3, port.to_bytes(2, "big"))
    return b"\x02\0\0\0" + attribute(1 | 0x8000, attribute(1 | 0x8000, b"") + attribute(2 | 0x8000, inner))


def test_the_port_of_udp_flows_only():
    assert conntrack.udp_port(flow(17, 5353)) == 5353
    assert conntrack.udp_port(flow(6, 80)) is None
    assert conntrack.udp_port(b"\x02\0\0\0") is None


def test_nothing_to_forget_asks_nobody():
    assert conntrack.forget_udp([]) == 0
