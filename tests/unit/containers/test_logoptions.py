"""Log options: sizes, counts, defaults, and dockerd's words for what is wrong."""

from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument
from tare.containers.logoptions import DEFAULT, Limit, check, is_readable, limit_of, parse_size, with_defaults
from tare.wire.config import LogSettings


def settings(driver: str = "json-file", **options: str) -> LogSettings:
    return LogSettings(Type=driver, Config={name.replace("_", "-"): value for name, value in options.items()})


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("10k", 10_000), ("10m", 10**7), ("10MB", 10**7), ("1.5g", 1_500_000_000), ("2 KiB", 2000), ("0", 0)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "abc", "1x", "m", "1.2.3"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(InvalidArgument, match=f"invalid size: '{text}'"):
        parse_size(text)


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        (settings(), DEFAULT),
        (settings(""), DEFAULT),
        (settings(max_size="1m"), Limit(10**6, 1)),
        (settings(max_file="5"), Limit(DEFAULT.max_bytes, 5)),
        (settings(max_size="10k", max_file="2"), Limit(10_000, 2)),
        (settings("local"), Limit(20_000_000, 5, compress=True)),
        (settings("local", max_size="1m", compress="false"), Limit(10**6, 5)),
        (settings(max_size="1m", max_file="2", compress="1"), Limit(10**6, 2, compress=True)),
        (settings("none"), None),
        (settings("syslog"), Limit(20_000_000, 5)),
        (settings("journald", cache_max_size="1m", cache_max_file="2"), Limit(10**6, 2)),
    ],
)
def test_limits(given: LogSettings, limit: Limit | None) -> None:
    assert limit_of(given) == limit


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (settings(foo="1"), "unknown log opt 'foo' for json-file log driver"),
        (settings("local", foo="1"), "unknown log opt 'foo' for log driver local"),
        (settings(mode="x"), "logger: logging mode not supported: x"),
        (settings(max_buffer_size="1m"), "logger: max-buffer-size option is only supported with 'mode=non-blocking'"),
        (settings(max_file="0"), "max-file cannot be less than 1"),
        (settings(max_file="x"), 'strconv.Atoi: parsing "x": invalid syntax'),
        (settings(max_size="0"), "max-size must be a positive number"),
        (settings(compress="zz"), 'strconv.ParseBool: parsing "zz": invalid syntax'),
        (settings(compress="true"), "compress cannot be true when max-file is less than 2 or max-size is not set"),
        (settings("nope"), 'error looking up logging plugin nope: plugin "nope" not found'),
        (settings("fluentd"), "log driver fluentd is not served by this version"),
        (settings("syslog", foo="1"), "unknown log opt 'foo' for syslog log driver"),
        (settings("journald", max_size="1m"), "unknown log opt 'max-size' for journald log driver"),
        (settings("syslog", syslog_facility="x"), "invalid syslog facility"),
        (settings("syslog", cache_disabled="maybe"), "invalid value for option cache-disabled: maybe"),
        (settings("syslog", cache_max_size="0"), "max-size must be a positive number"),
        (settings("journald", labels_regex="["), "error parsing regexp: ["),
        (
            settings(mode="non-blocking", max_buffer_size="1x"),
            "error parsing option max-buffer-size: invalid size: '1x'",
        ),
    ],
)
def test_what_is_refused(given: LogSettings, message: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        check(given)
    assert error.value.message == message


def test_what_is_accepted() -> None:
    assert check(settings(max_size="1m", max_file="3", labels="a", tag="{{.ID}}")) == []
    assert check(settings(mode="non-blocking", max_buffer_size="4m")) == []
    assert check(settings("none", foo="1")) == []
    assert check(settings("syslog", syslog_address="udp://h", tag="{{.Name}}", cache_disabled="true")) == []
    assert check(settings("json-file", cache_disabled="true")) == []
    assert check(settings(max_size="1m", max_file="3", compress="true")) == []


def test_the_daemons_options_are_for_its_own_driver() -> None:
    given = with_defaults(settings(""), driver="syslog", options={"tag": "t"})
    assert given == settings("syslog", tag="t")
    assert with_defaults(settings("syslog", tag="own"), driver="syslog", options={"tag": "t"}).Config == {"tag": "own"}
    assert with_defaults(settings("local"), driver="syslog", options={"tag": "t"}).Config == {}


@pytest.mark.parametrize(
    ("given", "readable"),
    [
        (settings(), True),
        (settings("none"), False),
        (settings("syslog"), True),
        (settings("syslog", cache_disabled="1"), False),
    ],
)
def test_what_can_be_read(given: LogSettings, readable: bool) -> None:
    assert is_readable(given) is readable
