from __future__ import annotations

import pytest

from tare.cli.buildoutput import Output, check, parse, parse_all


@pytest.mark.parametrize(
    ("text", "kind", "dest", "names"),
    [
        ("out", "local", "out", ()),
        ("-", "tar", "-", ()),
        ("type=local,dest=out", "local", "out", ()),
        ("type=tar,dest=x.tar", "tar", "x.tar", ()),
        ("type=oci", "oci", "-", ()),
        ("type=docker", "docker", "", ()),
        ("type=docker,dest=x.tar,name=a:1", "docker", "x.tar", ("a:1",)),
        ('"name=a,b",type=image,push=false', "docker", "", ("a", "b")),
    ],
)
def test_what_an_output_means(text: str, kind: str, dest: str, names: tuple[str, ...]) -> None:
    assert parse(text) == Output(kind, dest, names)
    assert parse(text).is_read == bool(dest)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("type=local", "dest is required"),
        ("type=registry,name=x", "tare push"),
        ("type=image,push=true", "tare push"),
        ("type=what", "unsupported output type"),
        ("dest=x", "type is required"),
        ("type=oci,tar=false", "tar=false"),
        ("type=oci,compression=zstd", "not served"),
        ("type=oci,dest", "invalid value"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check(text)


def test_stdout_can_have_one() -> None:
    with pytest.raises(ValueError, match="only one"):
        parse_all(["-", "type=oci"])
    assert len(parse_all(["-", "out"])) == 2
