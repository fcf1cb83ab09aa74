"""DNS messages: read within bounds, whatever comes; written so that they can be read."""

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tare.base.errors import InvalidArgument
from tare.networks import dns


def question(name, kind=dns.A, *, identity=7, flags=0x0100, additional=b""):
    packed = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"
    header = struct.pack(">HHHHHH", identity, flags, 1, 0, 0, 1 if additional else 0)
    return header + packed + struct.pack(">HH", kind, dns.IN) + additional


def test_a_question_is_read():
    query = dns.parse(question("Web.Example.COM"))
    assert (query.id, query.name, query.kind, query.klass, query.udp_bytes) == (7, "web.example.com", dns.A, 1, 512)
    opt = b"\0" + struct.pack(">HHIH", dns.OPT, 1232, 0, 0)
    assert dns.parse(question("web", additional=opt)).udp_bytes == 1232
    assert dns.parse(question("9.0.17.172.in-addr.arpa", dns.PTR)).address == IPv4Address("172.17.0.9")
    assert dns.parse(question("x.0.17.172.in-addr.arpa", dns.PTR)).address is None
    assert dns.parse(question("", dns.PTR)).name == ""


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0" * 11,
        question("web")[:-1],
        question("web")[:15],
        question("web", flags=0x8000),
        question("web", flags=0x0800),
        struct.pack(">HHHHHH", 1, 0, 2, 0, 0, 0) + b"\0\0\1\0\1",
        struct.pack(">HHHHHH", 1, 0, 1, 1, 0, 0) + b"\0\0\1\0\1",
        struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",  # points at itself
        struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1",
    ],
)
def test_what_is_no_question(message):
    with pytest.raises(InvalidArgument):
        dns.parse(message)


def test_answers():
    query = dns.parse(question("web"))
    reply = dns.answer(query, addresses=[IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")])
    identity, flags, questions, answers, _, _ = struct.unpack_from(">HHHHHH", reply)
    assert (identity, questions, answers, flags & 0x8180) == (7, 1, 2, 0x8180)
    assert reply.count(b"\xc0\x0c") == 2
    assert reply.endswith(b"\0\4\x0a\0\0\2")
    assert dns.answers(reply, identity=7, question=query.question)
    assert not dns.answers(reply, identity=8, question=query.question)
    assert not dns.answers(reply, identity=7, question=dns.parse(question("other")).question)
    nothing = dns.answer(query, code=dns.NAME_ERROR)
    assert (nothing[3] & 0xF, nothing[7]) == (dns.NAME_ERROR, 0)
    pointer = dns.answer(dns.parse(question("9.0.17.172.in-addr.arpa", dns.PTR)), names=["web.net"])
    assert pointer.endswith(b"\3web\3net\0")


def test_a_long_answer_is_cut_and_says_so():
    addresses = [IPv4Address(number) for number in range(100)]
    reply = dns.answer(dns.parse(question("web")), addresses=addresses, limit=512)
    assert len(reply) <= 512
    assert reply[2] & 0x02
    assert int.from_bytes(reply[6:8], "big") == 30


def test_what_cannot_be_read_is_answered_if_it_has_an_id():
    assert dns.malformed(b"\0") is None
    assert dns.malformed(question("web", flags=0x8000)) is None
    assert dns.malformed(question("web", flags=0x2800))[3] & 0xF == dns.NOT_IMPLEMENTED
    assert dns.malformed(question("web")[:14])[3] & 0xF == dns.FORMAT_ERROR
    assert dns.with_id(question("web"), 0xABCD)[:2] == b"\xab\xcd"


@given(st.binary(max_size=700))
def test_whatever_comes_is_read_or_refused(message):
    try:
        query = dns.parse(message)
    except InvalidArgument:
        dns.malformed(message)
    else:
        reply = dns.answer(query, addresses=[IPv4Address("10.0.0.1")], limit=512)
        assert dns.answers(reply, identity=query.id, question=query.question)
