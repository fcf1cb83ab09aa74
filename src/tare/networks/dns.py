"""The few DNS messages our name server reads and writes. Pure, bounded, linear in the size of the message.

Only the header and the first question of a message are read; everything else is forwarded as it came.
Source: RFC 1035 section 4, RFC 6891 (the question's EDNS size), RFC 2308 (what does not exist).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence

from msgspec import Struct

from tare.base.errors import InvalidArgument

A, PTR, AAAA, OPT = 1, 12, 28, 41
IN, ANY_CLASS = 1, 255
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NAME_ERROR, NOT_IMPLEMENTED, REFUSED = range(6)
MAX_UDP_BYTES = 512
MAX_BYTES = 65535

_HEADER = struct.Struct(">HHHHHH")
_QUESTION_END = struct.Struct(">HH")
_RESOURCE = struct.Struct(">HHIH")
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _RECURSION_WANTED, _RECURSION = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_OPCODE = 0x7800
_POINTER_TO_QUESTION = b"\xc0\x0c"
_MAX_NAME_BYTES = 255
_MAX_LABEL_BYTES = 63
_REVERSE = ".in-addr.arpa"
_REVERSE6 = ".ip6.arpa"
_NIBBLES6 = 32

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Query(Struct, frozen=True, kw_only=True):
    """The question of a message. `name` in lower case without the last dot; `question` its bytes as they came."""

    id: int
    flags: int
    name: str
    kind: int
    klass: int
    question: bytes
    udp_bytes: int = MAX_UDP_BYTES

    @property
    def address(self) -> IPAddress | None:
        """The address a PTR question asks for."""
        if self.kind != PTR:
            return None
        try:
            if self.name.endswith(_REVERSE):
                return ipaddress.IPv4Address(".".join(reversed(self.name.removesuffix(_REVERSE).split("."))))
            if self.name.endswith(_REVERSE6):
                nibbles = self.name.removesuffix(_REVERSE6).split(".")
                if len(nibbles) == _NIBBLES6 and all(len(nibble) == 1 for nibble in nibbles):
                    return ipaddress.IPv6Address(int("".join(reversed(nibbles)), 16))
        except ValueError:
            return None
        return None


def parse(message: bytes) -> Query:
    """Read a query. Raises InvalidArgument for anything that is not one question in a well-formed message."""
    if len(message) < _HEADER.size:
        raise InvalidArgument("a DNS message has at least 12 bytes")
    identity, flags, questions, answers, authorities, additional = _HEADER.unpack_from(message)
    if flags & _RESPONSE:
        raise InvalidArgument("a DNS answer is no question")
    if flags & _OPCODE or questions != 1 or answers or authorities:
        raise InvalidArgument("one standard DNS question is expected")
    name, offset = _name(message, _HEADER.size)
    if offset + _QUESTION_END.size > len(message):
        raise InvalidArgument("the DNS question is cut off")
    kind, klass = _QUESTION_END.unpack_from(message, offset)
    end = offset + _QUESTION_END.size
    return Query(
        id=identity,
        flags=flags,
        name=name,
        kind=kind,
        klass=klass,
        question=message[_HEADER.size : end],
        udp_bytes=_udp_bytes(message, end) if additional else MAX_UDP_BYTES,
    )


def _name(message: bytes, offset: int) -> tuple[str, int]:
    """A name of a question and where it ends. Nothing precedes a question, so a pointer in it is an error."""
    labels: list[str] = []
    total = 0
    while True:
        if offset >= len(message):
            raise InvalidArgument("the DNS name is cut off")
        length = message[offset]
        offset += 1
        if length == 0:
            return ".".join(labels), offset
        total += length + 1
        if length > _MAX_LABEL_BYTES or total > _MAX_NAME_BYTES - 1:
            raise InvalidArgument("the DNS name is too long or compressed")
        if offset + length > len(message):
            raise InvalidArgument("the DNS name is cut off")
        labels.append(message[offset : offset + length].decode("latin-1").lower())
        offset += length


def _udp_bytes(message: bytes, offset: int) -> int:
    """The size of an OPT record right after the question; the least size where there is none."""
    if len(message) < offset + 5 or message[offset] != 0:
        return MAX_UDP_BYTES
    kind, size = struct.unpack_from(">HH", message, offset + 1)
    return max(size, MAX_UDP_BYTES) if kind == OPT else MAX_UDP_BYTES


def answer(
    query: Query,
    *,
    addresses: Sequence[IPAddress] = (),
    names: Sequence[str] = (),
    code: int = NO_ERROR,
    ttl_s: int = 600,
    limit: int = MAX_BYTES,
) -> bytes:
    """The answer: A and AAAA records for addresses, PTR records for names, or only the code. Truncated at `limit` bytes."""
    datas = [(A if address.version == 4 else AAAA, address.packed) for address in addresses]
    datas += [(PTR, _packed_name(name)) for name in names]
    records = b""
    flags = _RESPONSE | _RECURSION | (query.flags & _RECURSION_WANTED) | code
    count = 0
    for kind, data in datas:
        record = _POINTER_TO_QUESTION + _RESOURCE.pack(kind, IN, ttl_s, len(data)) + data
        if _HEADER.size + len(query.question) + len(records) + len(record) > limit:
            flags |= _TRUNCATED
            break
        records += record
        count += 1
    return _HEADER.pack(query.id, flags, 1, count, 0, 0) + query.question + records


def _packed_name(name: str) -> bytes:
    out = b""
    for label in name.rstrip(".").split("."):
        raw = label.encode("latin-1", "replace")[:_MAX_LABEL_BYTES]
        out += bytes([len(raw)]) + raw
    return out + b"\0"


def malformed(message: bytes) -> bytes | None:
    """The answer to what `parse` refuses; None where not even the id can be read, or it was no question."""
    if len(message) < _HEADER.size or message[2] & 0x80:
        return None
    code = NOT_IMPLEMENTED if message[2] & 0x78 else FORMAT_ERROR
    return _HEADER.pack(int.from_bytes(message[:2], "big"), _RESPONSE | _RECURSION | code, 0, 0, 0, 0)


def with_id(message: bytes, identity: int) -> bytes:
    """The message under another id."""
    return identity.to_bytes(2, "big") + message[2:]


def answers(message: bytes, *, identity: int, question: bytes) -> bool:
    """Whether a message from a server answers our question (the case of its letters may differ)."""
    return (
        len(message) >= _HEADER.size
        and int.from_bytes(message[:2], "big") == identity
        and bool(message[2] & 0x80)
        and (message[4:6] != b"\0\1" or message[12 : 12 + len(question)].lower() == question.lower())
    )
