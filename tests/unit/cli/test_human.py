from __future__ import annotations

import pytest

from tare.cli import human


@pytest.mark.parametrize(
    ("count", "digits", "text"),
    [
        (0, 4, "0B"),
        (999, 4, "999B"),
        (1983000, 4, "1.983MB"),
        (1983000, 3, "1.98MB"),
        (1000, 3, "1kB"),
        (1e24, 4, "1YB"),
    ],
)
def test_size(count: float, digits: int, text: str) -> None:
    assert human.size(count, digits=digits) == text


def test_binary_size() -> None:
    assert human.binary_size(25276000000) == "23.54GiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (119, "About a minute"),
        (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"), (7200, "2 hours"), (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"), (14 * 86400, "2 weeks"), (60 * 86400, "2 months"), (730 * 86400, "2 years"),
    ],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert human.duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "nanos"),
    [("0", 0), ("1h30m", 5400 * 10**9), ("250ms", 250_000_000), ("-1.5s", -1_500_000_000), ("1us2ns", 1002)],
)
def test_parse_duration(text: str, nanos: int) -> None:
    assert human.parse_duration(text) == nanos


@pytest.mark.parametrize("text", ["", "x", "1", "1x", "s", "1.2.3s"])
def test_parse_duration_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        human.parse_duration(text)


def test_parse_cpus() -> None:
    assert human.parse_cpus("1.5") == 1_500_000_000
    with pytest.raises(ValueError, match="too precise"):
        human.parse_cpus("0.0000000001")


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1970-01-01T00:00:01Z", (1, 0)),
        ("2026-11-23T21:30:58.5+01:00", (1795469458 - 3600, 500_000_000)),
        ("0001-01-01T00:00:00Z", (-62135596800, 0)),
        ("nonsense", None),
        ("2026-11-23", None),
    ],
)
def test_parse_time(text: str, at: tuple[int, int] | None) -> None:
    assert human.parse_time(text) == at


@pytest.mark.parametrize("seconds", [0, -62135596800, 951782400, 1795469458, 253402300799])
def test_civil_and_back(seconds: int) -> None:
    assert human.parse_time(f"{human.civil(seconds)}Z") == (seconds, 0)


def test_quote_go() -> None:
    assert human.quote_go('a"\n\x01é') == '"a\\"\\n\\x01é"'
