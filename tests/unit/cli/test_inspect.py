from __future__ import annotations

from typing import Any

import pytest

BOX = {"Id": "1", "State": {"Running": True}, "Config": {"Labels": None, "Cmd": None}, "List": [1, 2]}


def test_documents_are_indented_in_a_list(engine: Any, tare: Any) -> None:
    engine.answers["GET /containers/a/json"] = (200, {"Id": "1", "L": []})
    assert tare("inspect", "a") == (0, '[\n    {\n        "Id": "1",\n        "L": []\n    }\n]\n', "")


def test_kinds_are_tried_in_order(engine: Any, tare: Any) -> None:
    engine.answers["GET /volumes/v"] = (200, {"Name": "v"})
    assert tare("inspect", "-f", "{{.Name}}", "v") == (0, "v\n", "")
    assert [target for _, target, _ in engine.requests] == [
        "/containers/v/json",
        "/images/v/json",
        "/networks/v",
        "/volumes/v",
    ]


def test_what_is_not_there(engine: Any, tare: Any) -> None:
    assert tare("inspect", "x") == (1, "[]\n", "Error: No such object: x\n")
    engine.answers["GET /containers/x/json"] = (500, {"message": "broken"})
    assert tare("inspect", "x") == (1, "[]\n", "Error response from daemon: broken\n")


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ("{{.State.Running}} {{.Config.Labels}} {{.Config.Cmd}} {{.State.Health}}", "true map[] [] <nil>\n"),
        ("{{if .State.Health}}x{{else}}none{{end}}", "none\n"),
        ('{{index .Config.Labels "a"}}|{{json .Config.Cmd}}|{{index .List 1}}', "|null|2\n"),
    ],
)
def test_nulls_read_as_their_go_type(engine: Any, tare: Any, layout: str, text: str) -> None:
    engine.answers["GET /containers/a/json"] = (200, BOX)
    assert tare("inspect", "-f", layout, "a") == (0, text, "")


def test_errors_of_templates(engine: Any, tare: Any) -> None:
    engine.answers["GET /containers/a/json"] = (200, BOX)
    text = 'template parsing error: template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo"\n'
    assert tare("inspect", "-f", "{{.Foo}}", "a") == (1, "\n", text)
    assert tare("inspect", "--type", "foo", "a")[2].startswith('unknown type: "foo": must be one of "config"')
