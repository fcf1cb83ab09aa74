from __future__ import annotations

import json
import logging
import sys

import pytest

from tare.base.news import request_id
from tare.daemon.logs import JsonFormatter, TextFormatter, set_up


def record(*, fails: bool = False) -> logging.LogRecord:
    try:
        if fails:
            raise ValueError("wrong")
    except ValueError:
        return logging.LogRecord("tare.x", logging.WARNING, __file__, 1, "a %s", ("b",), sys.exc_info())
    return logging.LogRecord("tare.x", logging.WARNING, __file__, 1, "a %s", ("b",), None)


def test_objects_for_collectors() -> None:
    token = request_id.set("1f")
    try:
        found = json.loads(JsonFormatter().format(record()))
    finally:
        request_id.reset(token)
    assert found.pop("time").endswith("Z")
    assert found == {"level": "warning", "logger": "tare.x", "msg": "a b", "request": "1f"}
    failed = json.loads(JsonFormatter().format(record(fails=True)))
    assert "ValueError: wrong" in failed["error"]
    assert "request" not in failed


def test_the_number_of_the_request_stands_in_the_first_line() -> None:
    assert TextFormatter().format(record()).endswith("WARNING tare.x: a b")
    token = request_id.set("1f")
    try:
        lines = TextFormatter().format(record(fails=True)).splitlines()
    finally:
        request_id.reset(token)
    assert lines[0].endswith("WARNING tare.x: a b (request 1f)")
    assert lines[-1] == "ValueError: wrong"


@pytest.mark.parametrize("form", ["text", "json"])
def test_both_forms_can_be_set_up(form: str) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        set_up(logging.INFO, form)
        assert isinstance(root.handlers[0].formatter, JsonFormatter if form == "json" else TextFormatter)
    finally:
        root.handlers[:] = before
        root.setLevel(level)
