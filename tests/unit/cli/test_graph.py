from __future__ import annotations

from typing import Any

from tare.cli.graph import draw


def layer(chain: str, parent: str = "", *names: str) -> dict[str, Any]:
    origin = {"DiffID": f"sha256:{chain * 64}", "Size": 1000, "CreatedBy": f"RUN {chain}", "Comment": ""}
    images = [{"Id": f"sha256:{chain * 64}", "Names": list(names) if names != ("",) else []}] if names else []
    return {"ChainID": chain, "Parent": parent, "Origin": origin, "Images": images}


def stem(char: str) -> str:
    return char * 12


def test_branches_stand_beside_each_other() -> None:
    layers = [
        layer("a", "", "base:1"),
        layer("b", "a"),
        layer("c", "b", "web:1", "web:2"),
        layer("d", "b", ""),
        layer("e", "a"),
    ]
    assert draw(layers) == [
        f"* {stem('c')} (web:1, web:2) RUN c 1kB",
        f"| * {stem('d')} (<none> {stem('d')}) RUN d 1kB",
        "|/",
        f"* {stem('b')} RUN b 1kB",
        f"| * {stem('e')} RUN e 1kB",
        "|/",
        f"* {stem('a')} (base:1) RUN a 1kB",
    ]


def test_trees_stand_apart() -> None:
    empty = {"ChainID": "", "Parent": "", "Origin": {}, "Images": [{"Id": "sha256:1", "Names": ["nothing"]}]}
    assert draw([layer("a", "", "x"), layer("b", "", "y"), empty]) == [
        f"* {stem('a')} (x) RUN a 1kB",
        "",
        f"* {stem('b')} (y) RUN b 1kB",
        "",
        "* (no layers) (nothing)",
    ]
    assert draw([]) == []


def test_names_with_digests_are_shown_where_there_is_no_other() -> None:
    digest = "web@sha256:1"
    assert draw([layer("a", "", "web:1", digest)]) == [f"* {stem('a')} (web:1) RUN a 1kB"]
    assert draw([layer("a", "", digest)]) == [f"* {stem('a')} ({digest}) RUN a 1kB"]
    assert f"(web:1, {digest})" in draw([layer("a", "", "web:1", digest)], full=True)[0]


def test_a_thousand_layers() -> None:
    chain = [layer(str(number), str(number - 1) if number else "") for number in range(1000)]
    assert len(draw(chain)) == 1000


def test_the_command(engine: Any, tare: Any) -> None:
    engine.answers["GET /tare/v1/graph"] = (200, [layer("a", "", "x")])
    assert tare("history", "--graph", "x") == (0, f"* {stem('a')} (x) RUN a 1kB\n", "")
    assert engine.requests[-1][1] == "/tare/v1/graph?of=x"
    assert tare("history", "--graph")[0] == 0
    code, _, err = tare("history")
    assert (code, err.splitlines()[0]) == (1, "tare: 'tare history' requires 1 argument")
