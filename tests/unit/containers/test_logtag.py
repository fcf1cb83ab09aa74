"""Tags of forwarded lines, and what labels and variables go with them."""

from __future__ import annotations

from typing import Any

import pytest

from tare.base.errors import InvalidArgument
from tare.containers.logtag import Facts, attributes_of, check, facts_of, render

FACTS = Facts(
    fields={"ID": "0123456789ab", "Name": "web", "ImageName": "Nginx:1", "ContainerLabels": {"b": "2", "a": "1"}},
    attributes={"z": "1", "y": "2"},
)


@pytest.mark.parametrize(
    ("template", "tag"),
    [
        ("plain", "plain"),
        ("{{.ID}}", "0123456789ab"),
        ("{{ .ImageName }}/{{.Name}}", "Nginx:1/web"),
        ("a {{- .Name -}} b", "awebb"),
        ("{{lower .ImageName}}", "nginx:1"),
        ("{{.Name | upper}}", "WEB"),
        ("{{truncate .ID 4 | upper}}", "0123"),
        ('{{index .ContainerLabels "a"}}{{index .ContainerLabels "c"}}', "1"),
        ("{{.ContainerLabels}}", "map[a:1 b:2]"),
        ("{{json .ContainerLabels}}", '{"a":"1","b":"2"}'),
        ("{{.ExtraAttributes nil}}", "map[y:2 z:1]"),
        ('{{"quoted"}}', "quoted"),
    ],
)
def test_render(template: str, tag: str) -> None:
    assert render(template, FACTS) == tag


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.Foo}}", "can't evaluate field Foo in type \\*logger.Info"),
        ("{{foo .ID}}", 'function "foo" not defined'),
        ("{{.ID", "unclosed action"),
        ("{{}}", "missing value for command"),
        ("{{.ID | }}", "missing value for command"),
        ("{{.ID .Name}}", "is not a function but has arguments"),
        ("{{truncate .ID}}", "wrong arguments for truncate"),
        ("{{index .ContainerLabels}}", "wrong arguments for index"),
    ],
)
def test_what_cannot_be_meant(template: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        render(template, FACTS)


def test_attributes() -> None:
    labels, env = {"a": "1", "ab": "2", "c": "3"}, ["HOME=/", "MODE=x=y", "EMPTY"]
    found = attributes_of({"labels": "a,nope", "env-regex": "^(MODE|EMPTY)$"}, labels=labels, env=env)
    assert found == {"a": "1", "MODE": "x=y", "EMPTY": ""}
    assert attributes_of({"labels-regex": "^a", "env": "HOME"}, labels=labels, env=env) == {
        "a": "1",
        "ab": "2",
        "HOME": "/",
    }
    with pytest.raises(InvalidArgument, match="error parsing regexp"):
        attributes_of({"labels-regex": "["}, labels=labels, env=env)


def test_facts_of_a_container_and_the_check_know_the_same_fields(made: Any) -> None:
    container = made(name="web")
    facts = facts_of(container, {})
    for name in facts.fields:
        check({"tag": "{{." + name + "}}"})
    assert facts.fields["Name"] == "web"
    assert facts.fields["ContainerName"] == "/web"
    assert facts.fields["ID"] == container.id[:12]
    with pytest.raises(InvalidArgument):
        check({"tag": "{{.Foo}}"})
