"""Documents that are none, in the words of Go's encoding/json (each asked of Go 1.26)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tare.wire.gojson import TRAILING, complaint


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{invalid json", "invalid character 'i' looking for beginning of object key string"),
        (b"{} trailing", TRAILING),
        (b"{}{}", TRAILING),
        (b"", "unexpected EOF"),
        (b"{", "unexpected EOF"),
        (b'{"a', "unexpected EOF"),
        (b"hello", "invalid character 'h' looking for beginning of value"),
        (b"<a>", "invalid character '<' looking for beginning of value"),
        (b"[1,]", "invalid character ']' looking for beginning of value"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b"trUe", "invalid character 'U' in literal true (expecting 'u')"),
        (b"nul", "unexpected EOF"),
        (b"-x", "invalid character 'x' in numeric literal"),
        (b"1.x", "invalid character 'x' after decimal point in numeric literal"),
        (b"1e+x", "invalid character 'x' in exponent of numeric literal"),
        (b"{'a'}", "invalid character '\\'' looking for beginning of object key string"),
        (b'"\\q"', "invalid character 'q' in string escape code"),
        (b'"\\u12x4"', "invalid character 'x' in \\u hexadecimal character escape"),
        (b'"a\x01b"', "invalid character '\\x01' in string literal"),
        (b"\x7f", "invalid character '\\x7f' looking for beginning of value"),
        (b"\xff", "invalid character 'ÿ' looking for beginning of value"),
        (b'"a\nb"', "invalid character '\\n' in string literal"),
    ],
)
def test_words(body: bytes, words: str) -> None:
    assert complaint(body) == words


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(JSON, st.booleans())
def test_nothing_is_said_of_what_is_one(value: object, is_ascii: bool) -> None:
    assert complaint(json.dumps(value, ensure_ascii=is_ascii, indent=1).encode()) == ""


@given(st.binary(max_size=40))
def test_it_agrees_with_a_parser_about_what_is_one(body: bytes) -> None:
    try:
        json.loads(body.decode("utf-8"))
    except UnicodeDecodeError:
        complaint(body)  # Go takes such bytes for U+FFFD; no crash is all that is asked
    except (ValueError, RecursionError):
        pass
    else:
        assert complaint(body) == "" or b"NaN" in body or b"Infinity" in body
