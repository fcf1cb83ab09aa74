"""When a schedule comes next, and which schedules there are."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tare.base.clock import Nanos
from tare.base.errors import InvalidArgument
from tare.build.schedule import WORDS, parse_schedule

SECOND = 1_000_000_000


def at(text: str) -> Nanos:
    return Nanos(int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND)


def said(found: Nanos) -> str:
    return datetime.fromtimestamp(found // SECOND, UTC).strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("text", "after", "then"),
    [
        ("nightly", "2026-11-30 05:42", "2026-12-01 00:00"),
        ("@daily", "2026-11-30 00:00", "2026-12-01 00:00"),
        ("@hourly", "2026-11-30 05:42", "2026-11-30 06:00"),
        ("weekly", "2026-11-30 05:42", "2026-12-06 00:00"),
        ("@monthly", "2026-11-30 05:42", "2026-12-01 00:00"),
        ("@yearly", "2026-11-30 05:42", "2027-01-01 00:00"),
        ("* * * * *", "2026-12-31 23:59", "2027-01-01 00:00"),
        ("*/15 * * * *", "2026-11-30 05:42", "2026-11-30 05:45"),
        ("5-35/10 4 * * *", "2026-11-30 04:26", "2026-11-30 04:35"),
        ("30 2 * * mon-fri", "2026-12-04 02:30", "2026-12-07 02:30"),
        ("0 9,17 * * *", "2026-11-30 09:00", "2026-11-30 17:00"),
        ("0 0 31 * *", "2026-11-30 05:42", "2026-12-31 00:00"),
        ("0 0 31 jan,apr *", "2026-02-01 00:00", "2027-01-31 00:00"),
        ("0 0 29 2 *", "2026-11-30 05:42", "2028-02-29 00:00"),
        ("0 0 29 2 *", "2096-02-29 00:00", "2104-02-29 00:00"),
        ("0 0 13 * 5", "2026-11-12 12:00", "2026-11-13 00:00"),  # both are named: either is enough
        ("0 0 13 * 5", "2026-11-13 12:00", "2026-11-20 00:00"),
        ("0 0 */2 * 1", "2026-11-30 05:42", "2026-12-07 00:00"),  # a star is no name: both must fit
        ("0 0 * * 7", "2026-11-30 05:42", "2026-12-06 00:00"),
        # where a zone of the host's would have an hour twice, or none, UTC has each once
        ("30 2 * * *", "2026-03-28 12:00", "2026-03-29 02:30"),
        ("30 1 * * *", "2026-10-25 01:29", "2026-10-25 01:30"),
        ("30 1 * * *", "2026-10-25 01:30", "2026-10-26 01:30"),
    ],
)  # fmt: skip
def test_the_next_time(text: str, after: str, then: str) -> None:
    assert said(parse_schedule(text).next_after(at(after))) == then


def test_parts_of_a_minute_are_in_the_minute() -> None:
    late = Nanos(at("2026-11-30 05:59") + 59 * SECOND + 999_999_999)
    assert said(parse_schedule("@hourly").next_after(late)) == "2026-11-30 06:00"
    assert said(parse_schedule("@hourly").next_after(Nanos(at("2026-11-30 06:00") + 1))) == "2026-11-30 07:00"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "five fields"),
        ("sometimes", "five fields"),
        ("* * * *", "five fields"),
        ("0 0 * * * *", "five fields"),
        ("60 * * * *", "0 to 59"),
        ("* 24 * * *", "0 to 23"),
        ("* * 0 * *", "1 to 31"),
        ("* * * 13 *", "1 to 12"),
        ("* * * * 8", "0 to 7"),
        ("30-10 * * * *", "0 to 59"),
        ("*/0 * * * *", "step of nothing"),
        ("5/10 * * * *", "needs a range"),
        ("-1 * * * *", "invalid minute"),
        ("1,,2 * * * *", "invalid minute"),
        ("* * * foo *", "invalid month"),
        ("* * L * *", "invalid day of the month"),
        ("* * * * mon#1", "invalid day of the week"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 2,4,6,9,11 *", "never comes"),
        ("0 0 30,31 feb *", "never comes"),
        ("* " * 200, "too long"),
    ],
)  # fmt: skip
def test_what_is_no_schedule(text: str, why: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_schedule(text)
    assert why in f"{caught.value.message} {caught.value.hint}"


@given(st.sampled_from(sorted(WORDS)), st.integers(0, 4_000_000_000))
def test_it_always_goes_on(word: str, seconds: int) -> None:
    before = Nanos(seconds * SECOND)
    then = parse_schedule(word).next_after(before)
    assert before < then <= before + 366 * 24 * 3600 * SECOND
    assert parse_schedule(word).next_after(Nanos(then - 1)) == then
