"""The rules of automated builds: what is one, when it is due, what is kept, which hook is believed."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from msgspec.structs import replace

from tare.base.clock import NEVER, Nanos
from tare.base.errors import InvalidArgument
from tare.build.autobuild import (
    FAILED,
    KEPT_RUNS,
    MAX_LOG,
    RUNNING,
    Autobuild,
    Run,
    cause_of,
    check,
    choose,
    is_signed,
    next_at,
    surplus,
    wakes_at,
)  # fmt: skip
from tare.build.gitref import GitRef

MINUTE = 60 * 1_000_000_000
DAY = 24 * 60 * MINUTE
NOON = Nanos(20_000 * DAY + DAY // 2)
ITEM = Autobuild(id="1", name="site", git="https://git.example/site.git", tags=("site:snapshot",), created_at=NOON)


def test_a_whole_one_is_fine() -> None:
    check(
        replace(ITEM, branch="feature/x", context="a/b", dockerfile="Dockerfile.prod", schedule="@nightly", pushes=True)
    )
    check(replace(ITEM, git="git@git.example:o/site.git"))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"name": ""}, "invalid name"),
        ({"name": "../x"}, "invalid name"),
        ({"name": "a" * 129}, "invalid name"),
        ({"git": "/srv/site.git"}, "no git repository"),
        ({"git": "file:///srv/site.git"}, "no git repository"),
        ({"git": "ext::sh -c id"}, "no git repository"),
        ({"git": "https://git.example/site.git#main"}, "--branch and --context"),
        ({"git": "https://git.example/site.git?ref=main"}, "--branch and --context"),
        ({"git": "https://me:secret@git.example/site.git"}, "holds a password"),
        ({"branch": "--upload-pack=x"}, "invalid branch"),
        ({"branch": "a..b"}, "invalid branch"),
        ({"branch": "a b"}, "invalid branch"),
        ({"context": "../up"}, "inside of the repository"),
        ({"dockerfile": "/etc/passwd"}, "inside of the repository"),
        ({"tags": ()}, "needs a tag"),
        ({"tags": ("UPPER",)}, "invalid reference"),
        ({"tags": ("a@sha256:" + "0" * 64,)}, "digest"),
        ({"tags": ("a.example/x", "b.example/x"), "pushes": True}, "one registry"),
        ({"schedule": "0 0 31 2 *"}, "never comes"),
        ({"timeout_s": 0}, "time-out"),
        ({"timeout_s": 8 * 24 * 3600}, "time-out"),
    ],
)  # fmt: skip
def test_what_could_never_be_built(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidArgument, match=why) as caught:
        check(replace(ITEM, **wrong))  # type: ignore[arg-type]
    assert "secret" not in caught.value.message


def test_the_branch_and_nothing_else_of_that_name_is_fetched() -> None:
    source = replace(ITEM, branch="main", context="/sub/").source
    assert source == GitRef("https://git.example/site.git", "refs/heads/main", "sub", "git.example")
    assert ITEM.source.ref == ""


@pytest.mark.parametrize(
    ("changes", "minutes"),
    [
        ({}, None),
        ({"schedule": "hourly"}, 60),
        ({"schedule": "hourly", "is_paused": True}, None),
        ({"schedule": "hourly", "checked_at": Nanos(NOON + 90 * MINUTE)}, 120),
        ({"schedule": "hourly", "resumed_at": Nanos(NOON + 150 * MINUTE)}, 180),
        ({"asked_at": Nanos(NOON + 5 * MINUTE)}, 5),
        ({"asked_at": Nanos(NOON + 5 * MINUTE), "is_paused": True}, 5),
        ({"asked_at": Nanos(NOON + 5 * MINUTE), "checked_at": Nanos(NOON + 5 * MINUTE)}, None),
        ({"asked_at": NOON, "checked_at": Nanos(NOON + 1), "schedule": "*/10 * * * *"}, 10),
    ],
)
def test_when_it_is_to_run(changes: dict[str, object], minutes: int | None) -> None:
    at = next_at(replace(ITEM, **changes))  # type: ignore[arg-type]
    assert at == (NEVER if minutes is None else NOON + minutes * MINUTE)


def test_the_longest_due_begins_and_no_more_than_there_is_room_for() -> None:
    early = replace(ITEM, id="2", name="b", asked_at=Nanos(NOON + 1))
    late = replace(ITEM, id="3", name="a", asked_at=Nanos(NOON + 2))
    coming = replace(ITEM, id="4", name="c", schedule="hourly")
    every = [late, coming, early, ITEM]
    now = Nanos(NOON + MINUTE)
    assert choose(every, now=now, running=(), slots=1) == [early]
    assert choose(every, now=now, running=(), slots=9) == [early, late]
    assert choose(every, now=now, running={"2"}, slots=1) == []
    assert choose(every, now=now, running={"2"}, slots=2) == [late]
    assert wakes_at(every, running={"2", "3"}) == NOON + 60 * MINUTE
    assert wakes_at(every, running=()) == NOON + 1
    assert wakes_at([ITEM], running=()) == NEVER


def test_a_missed_schedule_comes_once() -> None:
    item = replace(ITEM, schedule="hourly", checked_at=NOON)
    now = Nanos(NOON + 10 * DAY + MINUTE)
    assert choose([item], now=now, running=(), slots=1) == [item]
    assert choose([replace(item, checked_at=now)], now=now, running=(), slots=1) == []


def test_why_it_runs() -> None:
    asked = replace(ITEM, schedule="hourly", asked_at=NOON, asked_by="hook")
    assert cause_of(asked) == "hook"
    assert cause_of(replace(asked, checked_at=NOON)) == "schedule"


def run(number: int, size: int = 10, status: str = FAILED) -> Run:
    return Run(number=number, status=status, cause="schedule", log_bytes=size)


def test_the_history_is_bounded_in_number_and_size() -> None:
    assert surplus([]) == []
    assert surplus([run(number) for number in range(1, KEPT_RUNS + 3)]) == [2, 1]
    assert surplus([run(number, MAX_LOG * 4) for number in range(1, 8)]) == [3, 2, 1]
    assert surplus([run(1, MAX_LOG * 40), run(2, 1)]) == [1]
    assert surplus([run(1, MAX_LOG * 40)]) == []
    assert surplus([run(1, MAX_LOG * 40, RUNNING), run(2, 1)]) == []


def test_only_a_signature_with_the_secret_is_believed() -> None:
    body, secret = b'{"ref":"refs/heads/main"}', "5" * 64
    right = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    assert is_signed(body, right, secret)
    for wrong in (
        "",
        "sha256=",
        right[:-1],
        right + "0",
        right.removeprefix("sha256="),
        "sha1=" + right[7:],
        "sha256=é",
    ):
        assert not is_signed(body, wrong, secret), wrong
    assert not is_signed(body + b" ", right, secret)
    # the example of GitHub's manual, "Validating webhook deliveries"
    example = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert is_signed(b"Hello, World!", example, "It's a Secret to Everybody")
    assert not is_signed(body, right, "6" * 64)
