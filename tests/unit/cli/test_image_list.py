from __future__ import annotations

from typing import Any

from tare.cli.image_list import expand, platform_query, split_reference

IMAGE = {"Id": "sha256:" + "a" * 64, "Created": 1, "Size": 1983000, "RepoTags": ["b:1", "h:5/b:2"], "RepoDigests": []}


def test_split_reference() -> None:
    assert split_reference("h:5000/a/b:t") == ("h:5000/a/b", "t", "")
    assert split_reference("h:5000/a") == ("h:5000/a", "", "")
    assert split_reference("a@sha256:x") == ("a", "", "sha256:x")


def test_one_row_for_each_tag() -> None:
    assert [(row["_repository"], row["_tag"]) for row in expand(IMAGE, digests=False)] == [("b", "1"), ("h:5/b", "2")]
    untagged = expand({"RepoTags": ["<none>:<none>"], "RepoDigests": ["x@sha256:1"]}, digests=True)
    assert [(row["_repository"], row["_tag"], row["_digest"]) for row in untagged] == [("x", "<none>", "sha256:1")]
    assert expand({"RepoTags": None}, digests=False)[0]["_repository"] == "<none>"


def test_images(engine: Any, tare: Any) -> None:
    engine.answers["GET /images/json"] = (200, [IMAGE])
    code, out, _ = tare("images", "b")
    assert code == 0
    assert out.splitlines()[1].split()[:3] == ["b", "1", "a" * 12]
    assert "filters=%7B%22reference%22" in engine.requests[-1][1]
    assert tare("images", "-q")[1] == ("a" * 12 + "\n") * 2


def test_history(engine: Any, tare: Any) -> None:
    step = {"Id": "<missing>", "Created": 0, "CreatedBy": "RUN x\ty", "Size": 5, "Comment": "c"}
    engine.answers["GET /images/x:1/history"] = (200, [step])
    assert tare("history", "-H=false", "x:1")[1].splitlines()[1].split() == [
        "<missing>", "1970-01-01T00:00:00Z", "RUN", "x", "y", "5", "c",
    ]  # fmt: skip


def test_platform_query() -> None:
    assert platform_query("linux/arm/v7") == '{"os":"linux","architecture":"arm","variant":"v7"}'
