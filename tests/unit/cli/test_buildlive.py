"""What is drawn of a build: lines of one width, times, marks, and what running and failed steps say."""

from __future__ import annotations

from typing import Any

import pytest
from rich.cells import cell_len

from tare.cli.buildlive import Board


def step(number: int, state: str, **about: Any) -> dict[str, Any]:
    return {"step": {"Number": number, "State": state, "Seconds": 0, **about}}


def begun(number: int, text: str, *, stage: str = "", total: int = 3) -> dict[str, Any]:
    return step(number, "begun", Text=text, Stage=stage, Position=number, Positions=3, Total=total)


def board(*messages: dict[str, Any]) -> Board:
    found = Board(100.0)
    for message in messages:
        found.take(message, 100.0)
    return found


def test_a_line_for_each_step_with_marks_and_times_in_one_column() -> None:
    found = board(
        begun(1, "FROM debian", stage="tools"), step(1, "cached", Seconds=0.04),
        begun(2, "RUN make"), step(2, "failed", Seconds=12.34), begun(3, "RUN sleep 9"),
    )  # fmt: skip
    assert found.lines(50, 30, 102.5) == [
        "[+] Building 2.5s (2/3)",
        " => CACHED [tools 1/3] FROM debian            0.0s",
        " => ERROR [2/3] RUN make                     12.3s",
        " => [3/3] RUN sleep 9                         2.5s",
    ]


def test_what_a_running_step_says_is_below_it_and_goes_when_it_ends() -> None:
    messages = [begun(1, "RUN make"), *({"stream": f"line {n}\n", "step": 1} for n in range(9))]
    assert board(*messages).lines(40, 30, 100.0)[2:] == [f" => => line {n}" for n in (5, 6, 7, 8)]
    assert len(board(*messages, step(1, "done")).lines(40, 30, 100.0)) == 2


@pytest.mark.parametrize(
    "text", ["x" * 500, "日本語" * 40, "a\tb\x1b[31mred\x1b[0m\x1b]0;title\x07", "10%\r20%\r30%", "\u202eevil", ""]
)
def test_no_line_is_wider_than_the_terminal_nor_moves_the_cursor(text: str) -> None:
    found = board(begun(1, f"RUN {text}"), {"stream": f"{text}\n", "step": 1}, {"status": text, "id": "layer"})
    for width in (40, 41, 80):
        for line in found.lines(width, 30, 100.0):
            assert cell_len(line) <= width
            assert not any(ord(char) < 32 or ord(char) == 127 or char == "\u202e" for char in line), line


def test_where_the_terminal_is_low_what_runs_stays() -> None:
    messages = [message for n in range(1, 30) for message in (begun(n, f"RUN {n}", total=31), step(n, "done"))]
    found = board(*messages, begun(30, "RUN thirty", total=31), {"stream": "says\n", "step": 30}).lines(60, 6, 100.0)
    assert len(found) == 6
    assert found[0] == "[+] Building 0.0s (29/31)"
    assert "RUN thirty" in found[-2]
    assert found[-1] == " => => says"
    assert len(board(*messages).final(60, 100.0)) == 30


def test_all_that_a_failed_step_said_stays_and_nothing_of_the_others() -> None:
    found = board(
        begun(1, "RUN a"), {"stream": "fine\n", "step": 1}, step(1, "done"),
        begun(2, "RUN b"), *({"stream": f"why {n}\n", "step": 2} for n in range(7)), step(2, "failed"),
        {"stream": "[Warning] x\n"},
    )  # fmt: skip
    final = found.final(60, 100.0)
    assert final[3:] == ["------", " > [2/3] RUN b:", *(f"why {n}" for n in range(7)), "------"]
    assert found.closing == ["[Warning] x\n"]


def test_the_time_of_a_step_that_waited_begins_again() -> None:
    found = Board(0.0)
    found.take(begun(1, "COPY --from=x a b"), 0.0)
    found.take(step(1, "begun"), 5.0)
    assert found.lines(60, 30, 6.0)[1].endswith(" 1.0s")


def test_a_pull_is_shown_until_the_next_step() -> None:
    pull = {"status": "Downloading", "id": "abc", "progress": "[=>  ]  1MB/3MB"}
    assert board(begun(1, "FROM x"), pull).lines(60, 30, 100.0)[-1] == " => => abc: Downloading [=>  ]  1MB/3MB"
    assert len(board(begun(1, "FROM x"), pull, step(1, "done")).lines(60, 30, 100.0)) == 2
