"""What leaves this machine of a log: the monitor's records made whole lines, and lines made syslog or journal messages.

Nothing here does input or output; `engine/forward.py` reads the spool and sends.
Source: RFC 3164 section 4.1, RFC 5424 section 6, RFC 5425 section 4.3; systemd "Native Journal Protocol";
moby daemon/logger/syslog, daemon/logger/journald.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from msgspec import Struct, field

from tare.base.errors import InvalidArgument
from tare.containers.logpacks import STAMP_BYTES
from tare.containers.logs import HEAD_BYTES, RECORD_KINDS, nanos_of
from tare.wire.frames import STDERR

MAX_LINE_BYTES = 16 * 1024
TLS = "tcp+tls"
_PORT = 514
_FACILITIES = [
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
    "-",
    "-",
    "-",
    "-",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
]
_DAEMON = 3
_ERROR, _INFO = 3, 6
FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")

Position = tuple[int, int]
"""A place in a spool: which of its files (counted up by the reader), and the offset in it."""


class Line(Struct, frozen=True):
    """A line of the program, or a piece of one that is longer than 16 KiB."""

    stream: int
    at: int  # nanoseconds since the epoch
    text: bytes
    is_partial: bool = False


class _Open(Struct):
    start: Position
    stamp: bytes
    parts: list[bytes]
    size: int = 0


class Assembler(Struct):
    """Makes lines of records; what is not complete yet is kept, and its place remembered."""

    _open: dict[int, _Open] = field(default_factory=dict)

    def feed(self, block: bytes, at: Position) -> list[Line]:
        """Whole records that begin at a place; the lines that they complete."""
        number, offset = at
        lines: list[Line] = []
        records = block.split(b"\n")
        records.pop()
        for record in records:
            kind = RECORD_KINDS.get(record[STAMP_BYTES:HEAD_BYTES])
            if kind is not None:
                stream, ending = kind
                opened = self._open.get(stream)
                if opened is None:
                    opened = self._open[stream] = _Open((number, offset), record[:STAMP_BYTES], [])
                opened.parts.append(record[HEAD_BYTES:])
                opened.size += len(record) - HEAD_BYTES
                if ending or opened.size >= MAX_LINE_BYTES:
                    lines.append(self._close(stream, is_partial=not ending))
            offset += len(record) + 1
        return lines

    def flush(self) -> list[Line]:
        """The container has ended: what it left without a line's end."""
        return [self._close(stream, is_partial=False) for stream in list(self._open)]

    def _close(self, stream: int, *, is_partial: bool) -> Line:
        opened = self._open.pop(stream)
        return Line(stream, nanos_of(opened.stamp), b"".join(opened.parts), is_partial)

    def safe(self, now: Position) -> Position:
        """From where to read again after a crash, when everything completed up to `now` has been sent."""
        return min([now, *(opened.start for opened in self._open.values())])


# --- syslog


class Syslog(Struct, frozen=True, kw_only=True):
    """Where and how. scheme: udp, tcp, tcp+tls, unix, unixgram, or "" for this machine's own syslog."""

    scheme: str = ""
    host: str = ""  # or the socket's path
    port: int = _PORT
    facility: int = _DAEMON
    format: str = ""
    ca_cert: str = ""
    cert: str = ""
    key: str = ""
    skips_verify: bool = False

    @property
    def is_counted(self) -> bool:
        """Whether each message goes with its length before it (RFC 5425), and not with a line's end alone."""
        return self.scheme == TLS and self.format.startswith("rfc5424")


def syslog_of(options: Mapping[str, str]) -> Syslog:
    """The options of the driver syslog. Raises InvalidArgument with Docker's texts; whether a socket is there is not asked."""
    scheme, host, port = _address(options.get("syslog-address", ""))
    form = options.get("syslog-format", "")
    if form not in FORMATS:
        raise InvalidArgument("Invalid syslog format")
    return Syslog(
        scheme=scheme,
        host=host,
        port=port,
        facility=_facility(options.get("syslog-facility", "")),
        format=form,
        ca_cert=options.get("syslog-tls-ca-cert", ""),
        cert=options.get("syslog-tls-cert", ""),
        key=options.get("syslog-tls-key", ""),
        # As in Docker, to name it is to set it.
        skips_verify="syslog-tls-skip-verify" in options,
    )


def _address(text: str) -> tuple[str, str, int]:
    if not text:
        return "", "", _PORT
    wrong = InvalidArgument(f"syslog-address should be in form proto://address, got {text}")
    try:
        parts = urlsplit(text)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        raise wrong from None
    if scheme in ("unix", "unixgram") and parts.path:
        return scheme, parts.path, _PORT
    if scheme not in ("udp", "tcp", TLS) or not host:
        raise wrong
    return scheme, host, _PORT if port is None else port


def _facility(text: str) -> int:
    if not text:
        return _DAEMON
    if text in _FACILITIES and text != "-":
        return _FACILITIES.index(text)
    if text.isascii() and text.isdecimal() and len(text) < 3 and int(text) < len(_FACILITIES):
        return int(text)
    raise InvalidArgument("invalid syslog facility")


def syslog_message(line: Line, target: Syslog, *, tag: str, hostname: str, pid: int) -> bytes:
    """One message in the form asked for, with the time at which the program wrote the line."""
    priority = target.facility * 8 + (_ERROR if line.stream == STDERR else _INFO)
    seconds, nanos = divmod(line.at, 1_000_000_000)
    if target.format.startswith("rfc5424"):
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        if target.format == "rfc5424micro":
            stamp += f".{nanos // 1000:06}"
        head = f"<{priority}>1 {stamp}Z {hostname} {tag} {pid} {tag} - "
    else:
        local = time.localtime(seconds)
        stamp = f"{_MONTHS[local.tm_mon - 1]} {local.tm_mday:2} {local.tm_hour:02}:{local.tm_min:02}:{local.tm_sec:02}"
        head = f"<{priority}>{stamp} {hostname + ' ' if target.format else ''}{tag}[{pid}]: "
    message = head.encode("utf-8", "surrogateescape") + line.text + b"\n"
    return b"%d %b" % (len(message), message) if target.is_counted else message


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


# --- journal


_NOT_IN_A_NAME = re.compile(r"[^A-Z0-9]")


def journal_message(line: Line, fields: Mapping[str, str]) -> bytes:
    """A datagram for the journal. fields: what every line of the container carries."""
    micros = line.at // 1000
    own = {
        "PRIORITY": str(_ERROR if line.stream == STDERR else _INFO),
        "SYSLOG_TIMESTAMP": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(micros // 10**6))}.{line.at % 10**9:09}Z",
    }
    if line.is_partial:
        own["CONTAINER_PARTIAL_MESSAGE"] = "true"
    parts = [_field(name, value.encode("utf-8", "surrogateescape")) for name, value in {**fields, **own}.items()]
    return b"".join([_field("MESSAGE", line.text), *parts])


def _field(name: str, value: bytes) -> bytes:
    if b"\n" not in value:
        return b"%b=%b\n" % (name.encode(), value)
    return b"%b\n%b%b\n" % (name.encode(), struct.pack("<Q", len(value)), value)


def journal_name(key: str) -> str:
    """A label's or variable's name as the journal takes it: capitals, digits, underscores, none of these first."""
    return _NOT_IN_A_NAME.sub("_", key.upper()).lstrip("_0123456789")[:64]


def journal_fields(facts: Mapping[str, str], *, tag: str, attributes: Mapping[str, str]) -> dict[str, str]:
    """What every line of a container carries. facts: ID, FullID, Name, ImageName."""
    added = {journal_name(key): value for key, value in attributes.items()}
    return {name: value for name, value in added.items() if name} | {
        "CONTAINER_ID": facts["ID"],
        "CONTAINER_ID_FULL": facts["FullID"],
        "CONTAINER_NAME": facts["Name"],
        "CONTAINER_TAG": tag,
        "IMAGE_NAME": facts["ImageName"],
        "SYSLOG_IDENTIFIER": tag,
    }
