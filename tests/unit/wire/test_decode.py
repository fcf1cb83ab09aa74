"""Go's reading of JSON."""

from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument
from tare.wire.config import CreateBody, Empty, config_of
from tare.wire.decode import MAX_NESTING, decode


def test_null_is_the_zero_value_and_names_match_in_any_case() -> None:
    body = decode(
        b'{"image":"x","Env":null,"Tty":null,"Volumes":{"/v":null},"Unknown":1,'
        b'"HostConfig":{"memory":5,"LogConfig":null,"PortBindings":{"80/tcp":null}}}',
        CreateBody,
    )
    assert body.Image == "x"
    assert body.Env is None
    assert body.Tty is False
    assert body.Volumes == {"/v": Empty()}
    assert body.HostConfig.Memory == 5
    assert body.HostConfig.PortBindings == {"80/tcp": None}


def test_an_exact_name_wins_over_a_folded_one() -> None:
    assert decode(b'{"IMAGE":"folded","Image":"exact"}', CreateBody).Image == "exact"
    assert decode(b'{"Image":"exact","IMAGE":"folded"}', CreateBody).Image == "exact"


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'"x"', b'{"Tty":"yes"}', b'{"Env":"A=1"}', b'{"HostConfig":{"Memory":"1g"}}', b'{"Image":"\xff"}'],
)
def test_wrong_documents_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidArgument, match="invalid JSON"):
        decode(body, CreateBody)


def test_nesting_is_bounded() -> None:
    deep = b'{"Labels":' + b'{"a":' * (MAX_NESTING + 1) + b"1" + b"}" * (MAX_NESTING + 1) + b"}"
    with pytest.raises(InvalidArgument, match="nested deeper"):
        decode(deep, CreateBody)
    wide = b'{"Env":[' + b",".join(b'"{[\\"{["' for _ in range(200)) + b"]}"
    assert len(decode(wide, CreateBody).Env or ()) == 200


def test_config_half_of_a_create_body() -> None:
    assert config_of(decode(b'{"Image":"x","Cmd":"true"}', CreateBody)).Cmd == "true"
