"""Host ports held by sockets."""

import socket
from ipaddress import IPv4Address

import pytest

from tare.base.errors import Conflict, InvalidArgument
from tare.drivers.network.ports import AlreadyAllocated, PortHolder

LOOPBACK, ANY = IPv4Address("127.0.0.1"), IPv4Address("0.0.0.0")


@pytest.fixture
def holder():
    holder = PortHolder()
    yield holder
    holder.close()
    assert len(holder) == 0


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_ours_and_others_are_told_apart(holder, protocol):
    port = holder.hold(protocol, LOOPBACK, 0, 0)
    with pytest.raises(AlreadyAllocated, match=f"Bind for 0.0.0.0:{port} failed: port is already allocated"):
        holder.hold(protocol, ANY, port, port)
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(type=kind) as other:
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        holder.release(protocol, LOOPBACK, port)
        holder.release(protocol, LOOPBACK, port)
        other.bind(("127.0.0.1", port))
        if protocol == "tcp":
            other.listen()
        with pytest.raises(Conflict, match="address already in use") as caught:
            holder.hold(protocol, LOOPBACK, port, port)
        assert not isinstance(caught.value, AlreadyAllocated)


def test_what_is_held_is_told(holder):
    port = holder.hold("tcp", LOOPBACK, 0, 0)
    assert holder.held() == {("tcp", LOOPBACK, port)}
    holder.release("tcp", LOOPBACK, port)
    assert holder.held() == frozenset()


def test_the_first_free_one_of_a_range(holder):
    first = holder.hold("tcp", LOOPBACK, 0, 0)
    assert holder.hold("tcp", LOOPBACK, first, min(first + 50, 65535)) > first


def test_an_address_that_is_not_the_hosts(holder):
    with pytest.raises(InvalidArgument, match="cannot assign requested address"):
        holder.hold("tcp", IPv4Address("192.0.2.77"), 0, 0)
