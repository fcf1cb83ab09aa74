"""The listing of what is no image."""

from __future__ import annotations

from tare.cli.artifacts import expand, kind

CHART = {"Digest": "sha256:" + "ab" * 32, "Type": "application/x.chart", "Names": ["a:1", "b:2"], "Size": 1500}


def test_one_row_for_each_name() -> None:
    assert [row["_name"] for row in expand(dict(CHART))] == ["a:1", "b:2"]
    assert [row["_name"] for row in expand({**CHART, "Names": []})] == ["<none>"]


def test_digests_are_shortened_unless_asked() -> None:
    row = {**CHART, "_name": "a:1", "Subject": "sha256:" + "cd" * 32}
    for full, digest, about in ((False, "ab" * 6, "cd" * 6), (True, row["Digest"], row["Subject"])):
        fields = kind(full=full).fields
        assert (fields["Digest"][1](row), fields["Subject"][1](row)) == (digest, about)
    assert kind(full=False).fields["Subject"][1]({**CHART, "Subject": ""}) == ""
