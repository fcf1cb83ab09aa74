"""`tare autobuild` against canned answers."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tare.cli import autobuild

RUN = {
    "Number": 3, "Status": "failed", "Cause": "hook", "Commit": "c" * 40, "Image": "", "ExitCode": 2, "Error": "no\x1b[2J",
    "StartedAt": "2026-11-30T05:00:00Z", "FinishedAt": "2026-11-30T05:01:30.5Z",
}  # fmt: skip
ITEM = {
    "Name": "site", "Git": "https://git.example/s.git", "Branch": "", "Tags": ["site:snapshot"], "Schedule": "nightly",
    "Built": "d" * 40, "Paused": False, "Running": False, "NextRun": "0001-01-01T00:00:00Z", "LastRun": RUN,
}  # fmt: skip


def test_add_sends_what_was_said(engine: Any, tare: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    auth = base64.b64encode(b"me:secret").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"r.example": {"auth": auth}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("FROM_SHELL", "y")
    engine.answers["POST /tare/v1/autobuilds"] = (201, {"Name": "site", "Id": "1", "Secret": "5e"})
    words = [
        "autobuild",
        "add",
        "site",
        "--git",
        "https://git.example/s.git",
        "--branch",
        "main",
        "--context",
        "sub",
        "-f",
        "D",
        "--schedule",
        "nightly",
        "--build-arg",
        "A=b",
        "--build-arg",
        "FROM_SHELL",
        "--build-arg",
        "MISSING",
        "--push",
        "--timeout",
        "90m",
        "-t",
        "r.example/s:1",
        "-t",
        "r.example/s:2",
    ]
    assert tare(*words) == (
        0,
        "site\nhook:    POST /tare/v1/autobuilds/site/hook\nsecret:  5e  (of the hook; it is not shown again)\n",
        "",
    )
    assert engine.requests[-1][2] == {
        "Name": "site", "Git": "https://git.example/s.git", "Branch": "main", "Context": "sub", "Dockerfile": "D",
        "Schedule": "nightly", "Tags": ["r.example/s:1", "r.example/s:2"], "BuildArgs": {"A": "b", "FROM_SHELL": "y"},
        "Push": True, "Timeout": 5400,
    }  # fmt: skip
    sent = json.loads(base64.urlsafe_b64decode(engine.received[-1]["x-registry-auth"]))
    assert sent["password"] == "secret"
    assert tare("autobuild", "add", "-q", "--git", "u", "-t", "x", "site") == (0, "5e\n", "")
    assert "x-registry-auth" not in engine.received[-1]


def test_what_add_needs(engine: Any, tare: Any) -> None:
    for words in (("--git", "u"), ("-t", "x")):
        code, _, said = tare("autobuild", "add", "site", *words)
        assert code == 1
        assert "is needed" in said
    assert not [request for request in engine.requests if request[0] == "POST"]


def test_the_list(engine: Any, tare: Any) -> None:
    engine.answers["GET /tare/v1/autobuilds"] = (200, [ITEM, {**ITEM, "Name": "two", "Running": True, "LastRun": None}])
    code, said, _ = tare("autobuild", "ls", "--format", "{{.Name}} {{.Branch}} {{.Status}} {{.Commit}} {{.NextRun}}")
    assert code == 0
    assert said == f"site (default) failed {'d' * 12} when asked\ntwo (default) never {'d' * 12} now\n"
    assert tare("autobuild", "ls", "-q") == (0, "site\ntwo\n", "")
    head = tare("autobuild", "ls")[1].splitlines()[0].split("  ")
    assert [name.strip() for name in head if name] == [
        "NAME", "REPOSITORY", "BRANCH", "SCHEDULE", "LAST RUN", "WHEN", "BUILT", "NEXT RUN",
    ]  # fmt: skip


def test_the_history(engine: Any, tare: Any) -> None:
    engine.answers["GET /tare/v1/autobuilds/site/runs"] = (200, [RUN])
    assert tare("autobuild", "history", "site", "--format", "{{.Number}} {{.Took}} {{.ExitCode}} {{.Cause}}") == (
        0, "3 About a minute 2 hook\n", "",
    )  # fmt: skip
    assert tare("autobuild", "history", "-q", "site") == (0, "3\n", "")


def test_a_run_ends_with_the_code_of_the_build(engine: Any, tare: Any) -> None:
    engine.answers["POST /tare/v1/autobuilds/site/run"] = (
        200, b'{"stream":"Step 1/1\\n"}\r\n{"errorDetail":{"code":7,"message":"no"},"error":"no"}\r\n',
    )  # fmt: skip
    assert tare("autobuild", "run", "site") == (7, "Step 1/1\n", "no\n")
    engine.answers["POST /tare/v1/autobuilds/site/run"] = (
        200,
        b'{"stream":"Step 1/1\\n"}\r\n{"stream":"no\\n"}\r\n{"errorDetail":{"message":"no"},"error":"no"}\r\n',
    )
    assert tare("autobuild", "run", "site") == (1, "Step 1/1\nno\n", "")
    engine.answers["POST /tare/v1/autobuilds/site/run"] = (
        200,
        b'{"stream":"x\\n"}\r\n{"aux":{"Status":"succeeded"}}\r\n',
    )
    assert tare("autobuild", "run", "--force", "site") == (0, "x\n", "")
    engine.answers["POST /tare/v1/autobuilds/site/run"] = (202, b"")
    assert tare("autobuild", "run", "-d", "site") == (0, "site\n", "")
    assert "detach=1" in engine.requests[-1][1]


def test_logs_and_the_short_verbs(engine: Any, tare: Any) -> None:
    engine.answers["GET /tare/v1/autobuilds/site/logs"] = (200, b"what it said\n")
    assert tare("autobuild", "logs", "site", "3")[0] == 0
    assert "run=3" in engine.requests[-1][1]
    assert tare("autobuild", "logs", "site", "x")[0] == 1
    engine.answers["DELETE /tare/v1/autobuilds/site"] = (204, b"")
    assert tare("autobuild", "rm", "site") == (0, "site\n", "")
    for verb in ("pause", "resume", "stop"):
        engine.answers[f"POST /tare/v1/autobuilds/site/{verb}"] = (204, b"")
        assert tare("autobuild", verb, "site") == (0, "site\n", "")


def test_when() -> None:
    at = 1_790_000_000.0
    assert autobuild._when("2026-09-21T14:13:20Z", now=at - 7200) == "in 2 hours"
    assert autobuild._when("2026-09-21T14:13:20Z", now=at + 90) == "About a minute ago"
    assert autobuild._when("0001-01-01T00:00:00Z", now=at) == ""
