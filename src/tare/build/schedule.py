"""When something is to happen again and again: cron's five fields and the usual words, in UTC, as a pure function of the time.

UTC has no summer time: no hour is there twice and none is missing. Source: crontab(5) of Vixie cron; POSIX crontab.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

from msgspec import Struct

from tare.base.clock import Nanos
from tare.base.errors import InvalidArgument

WORDS = {
    "hourly": "0 * * * *",
    "daily": "0 0 * * *",
    "nightly": "0 0 * * *",
    "midnight": "0 0 * * *",
    "weekly": "0 0 * * 0",
    "monthly": "0 0 1 * *",
    "yearly": "0 0 1 1 *",
    "annually": "0 0 1 1 *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_PART = re.compile(r"(\*|([0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?)(?:/([0-9]{1,2}))?\Z")
_SEARCHED_DAYS = 366 * 9  # the 29th of February is away for eight years at most (2096 to 2104)
_MAX_TEXT = 200
_SECOND = 1_000_000_000


class Schedule(Struct, frozen=True):
    """The times meant. Days of the week from 0 (Sunday); either: a day that fits one of both kinds is enough."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    def next_after(self, at: Nanos) -> Nanos:
        """The first time later than `at`, on a whole minute."""
        begin = datetime.fromtimestamp(at // _SECOND, UTC).replace(second=0) + timedelta(minutes=1)
        day = begin.date()
        for _ in range(_SEARCHED_DAYS):
            if self._fits(day):
                first = begin.time() if day == begin.date() else time.min
                found = self._at(first)
                if found is not None:
                    whole = datetime.combine(day, found, UTC)
                    return Nanos(int(whole.timestamp()) * _SECOND)
            day += timedelta(days=1)
        raise AssertionError("a schedule that was parsed has a next time")

    def _fits(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_day or by_weekday if self.either else by_day and by_weekday

    def _at(self, first: time) -> time | None:
        """The first time of a day that is not before `first`."""
        for hour in sorted(self.hours):
            if hour < first.hour:
                continue
            for minute in sorted(self.minutes):
                if hour > first.hour or minute >= first.minute:
                    return time(hour, minute)
        return None


def parse_schedule(text: str) -> Schedule:
    """`nightly`, `@hourly`, `30 2 * * mon-fri`. Raises InvalidArgument, also for a date that never comes."""
    words = text.strip().lower()
    if len(words) > _MAX_TEXT:
        raise InvalidArgument("the schedule is too long")
    fields = WORDS.get(words.removeprefix("@"), words).split()
    if len(fields) != 5:
        raise InvalidArgument(
            f"invalid schedule {text[:_MAX_TEXT]!r}",
            hint=f"one of {', '.join(WORDS)}, or five fields: minute hour day month weekday, in UTC",
        )
    minute, hour, day, month, weekday = fields
    found = Schedule(
        minutes=_field("minute", minute, 0, 59),
        hours=_field("hour", hour, 0, 23),
        days=_field("day of the month", day, 1, 31),
        months=_field("month", month, 1, 12, _MONTHS),
        weekdays=frozenset(number % 7 for number in _field("day of the week", weekday, 0, 7, _DAYS)),
        either=not day.startswith("*") and not weekday.startswith("*"),
    )
    if not found.either and all(min(found.days) > _LONGEST[number - 1] for number in found.months):
        raise InvalidArgument(f"the schedule {text!r} never comes: no month it names has a day {min(found.days)}")
    return found


def _field(what: str, text: str, least: int, most: int, names: tuple[str, ...] = ()) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.match(part)
        if match is None:
            raise InvalidArgument(f"invalid {what} {part!r} in the schedule")
        whole, first, last, step = match.groups()
        low = least if whole == "*" else _number(what, first, least, names)
        high = most if whole == "*" else _number(what, last, least, names) if last else low
        if step and whole != "*" and not last:
            raise InvalidArgument(f"invalid {what} {part!r} in the schedule: a step needs a range, as 0-30/10 or */10")
        if low < least or high > most or low > high:
            raise InvalidArgument(f"invalid {what} {part!r} in the schedule: it is {least} to {most}")
        if step and int(step) == 0:
            raise InvalidArgument(f"invalid {what} {part!r} in the schedule: a step of nothing")
        found.update(range(low, high + 1, int(step or 1)))
    return frozenset(found)


def _number(what: str, text: str, least: int, names: tuple[str, ...]) -> int:
    if text.isdecimal():
        return int(text)
    if text not in names:
        raise InvalidArgument(f"invalid {what} {text!r} in the schedule")
    return names.index(text) + least


__all__ = ["WORDS", "Schedule", "parse_schedule"]
