from __future__ import annotations

import pytest

from tare.client import gojson


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None, "x"]}, '{"b":1,"a":[true,null,"x"]}'),
        ("<a>&\u2028\x01\n", '"\\u003ca\\u003e\\u0026\\u2028\\u0001\\n"'),
        (1e21, "1e+21"),
        (0.000001, "0.000001"),
        (5.0, "5"),
        (12345678901234567890, "12345678901234567890"),
        ({}, "{}"),
    ],
)
def test_dumps_writes_as_go_does(value: object, text: str) -> None:
    assert gojson.dumps(value) == text


def test_dumps_indents_like_json_indent() -> None:
    assert gojson.dumps({"a": [1], "b": {}}, indent="  ") == '{\n  "a": [\n    1\n  ],\n  "b": {}\n}'


def test_html_escapes_can_be_left_out() -> None:
    assert gojson.dumps("<&>", html=False) == '"<&>"'


def test_loads_keeps_order_and_exact_integers() -> None:
    assert list(gojson.loads('{"z":9007199254740993,"a":1}').items()) == [("z", 9007199254740993), ("a", 1)]  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["", "{", '{"a":}', "[1,]", "nul", "1 2", "NaN"])
def test_loads_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        gojson.loads(text)


def test_dumps_refuses_what_json_has_no_word_for() -> None:
    with pytest.raises(TypeError):
        gojson.dumps({1, 2})
