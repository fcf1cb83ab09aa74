"""Log drivers and their options: what a container may ask for, and what that means for the files on disk (pure).

The texts are those of dockerd, which finds bad sizes and counts only at start; here they are refused at create.
A forwarding driver (journald, syslog) keeps what it sends in a spool of the same form as the log of json-file, bounded by
the options `cache-max-size` and `cache-max-file`.
Source: moby daemon/logger/factory.go, daemon/logger/jsonfilelog, daemon/logger/local, go-units `FromHumanSize`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from tare.base.errors import InvalidArgument
from tare.containers import logtag
from tare.containers.logforward import syslog_of
from tare.wire.config import LogSettings

DEFAULT_DRIVER = "json-file"
_CHOOSING = frozenset({"env", "env-regex", "labels", "labels-regex", "tag"})
_KNOWN = {
    "json-file": frozenset(
        {"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"},
    ),
    "local": frozenset({"max-size", "max-file", "compress"}),
    "journald": _CHOOSING,
    "syslog": _CHOOSING
    | {
        "syslog-address",
        "syslog-facility",
        "syslog-format",
        "syslog-tls-ca-cert",
        "syslog-tls-cert",
        "syslog-tls-key",
        "syslog-tls-skip-verify",
    },
}
FORWARDING = frozenset({"journald", "syslog"})
"""Drivers that send lines away. What they sent can be read here too, from the spool."""
DRIVERS = ("journald", "json-file", "local", "none", "syslog")
_CACHE = frozenset({"cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"})
_ELSEWHERE = frozenset({"fluentd", "gelf", "awslogs", "splunk", "gcplogs", "etwlogs", "logentries"})
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgtp]?)i?b?\Z", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


class Limit(Struct, frozen=True):
    """How much of a log is kept: at most `max_files` files of about `max_bytes` each, the older ones packed if told so."""

    max_bytes: int
    max_files: int
    compress: bool = False


DEFAULT = Limit(64 * 1024 * 1024, 3)
"""For json-file when no size is named: Docker keeps everything until the disk is full, this engine does not."""

_LOCAL = Limit(20 * 10**6, 5, compress=True)


def limit_of(settings: LogSettings) -> Limit | None:
    """What is kept; None for the driver `none`. Raises InvalidArgument like `check`."""
    if settings.Type == "none":
        return None
    options = settings.Config or {}
    if settings.Type in FORWARDING:
        options = {name.removeprefix("cache-"): value for name, value in options.items() if name in _CACHE}
    keeps_several = settings.Type == "local" or settings.Type in FORWARDING
    default = _LOCAL if keeps_several else DEFAULT
    size, files = options.get("max-size"), options.get("max-file")
    max_bytes = default.max_bytes if size is None else parse_size(size)
    if size is not None and max_bytes <= 0:
        raise InvalidArgument("max-size must be a positive number")
    # One file is Docker's own choice when json-file is given a size alone.
    max_files = (default.max_files if size is None or keeps_several else 1) if files is None else _count(files)
    given = options.get("compress")
    compress = settings.Type not in FORWARDING and (default.compress if given is None else _flag(given))
    return Limit(max_bytes, max_files, compress=compress)


def check(settings: LogSettings) -> list[str]:
    """Refuse what cannot be served; the answer is warnings. Raises InvalidArgument."""
    driver, options = settings.Type or DEFAULT_DRIVER, dict(settings.Config or {})
    if driver in _ELSEWHERE:
        raise InvalidArgument(
            f"log driver {driver} is not served by this version",
            hint="use json-file or local: `logs` reads those, and a collector can follow them",
        )
    if driver == "none":
        return []
    if driver not in _KNOWN:
        raise InvalidArgument(f'error looking up logging plugin {driver}: plugin "{driver}" not found')
    mode = options.pop("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    buffer = options.pop("max-buffer-size", None)
    if buffer is not None:
        if mode != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        _parse_buffer(buffer)
    # dockerd takes the options of its own second log for every driver, and uses them where the driver cannot be read.
    cache = {name: options.pop(name) for name in sorted(_CACHE & set(options))}
    for name in ("cache-disabled", "cache-compress"):
        if name in cache and cache[name] not in (*_TRUE, *_FALSE):
            raise InvalidArgument(f"invalid value for option {name}: {cache[name]}")
    for name in options:
        if name not in _KNOWN[driver]:
            whose = f"for log driver {driver}" if driver == "local" else f"for {driver} log driver"
            raise InvalidArgument(f"unknown log opt '{name}' {whose}")
    logtag.check(options)
    if driver == "syslog":
        syslog_of(options)
    limit = limit_of(settings)
    assert limit is not None
    if driver in FORWARDING:
        return []
    if driver == "json-file" and limit.compress and (limit.max_files < 2 or "max-size" not in options):
        raise InvalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set")
    return []


def with_defaults(settings: LogSettings, *, driver: str, options: Mapping[str, str]) -> LogSettings:
    """What a container asks for over what the daemon was told; options of the daemon are those of its own driver."""
    kind = settings.Type or driver
    return LogSettings(Type=kind, Config={**(options if kind == driver else {}), **(settings.Config or {})})


def is_readable(settings: LogSettings) -> bool:
    """Whether `logs` may read it here."""
    if settings.Type in FORWARDING:
        return (settings.Config or {}).get("cache-disabled", "false") not in _TRUE
    return settings.Type != "none"


def _parse_buffer(text: str) -> None:
    try:
        parse_size(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"error parsing option max-buffer-size: {error.message}") from None


def parse_size(text: str) -> int:
    """`10m`, `1.5 GB`: bytes, units of a thousand as Docker reads them here. Raises InvalidArgument."""
    match = _SIZE.match(text)
    if match is None:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        raise InvalidArgument(f'strconv.Atoi: parsing "{text}": invalid syntax') from None
    if count < 1:
        raise InvalidArgument("max-file cannot be less than 1")
    return count


def _flag(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise InvalidArgument(f'strconv.ParseBool: parsing "{text}": invalid syntax')
