"""Automated builds with a real engine, a git server on loopback and a registry of ours.

Exercises api/autobuilds, engine/autobuilds/follow, engine/autobuilds/manage, engine/autobuilds/news,
engine/autobuilds/places, engine/autobuilds/restore, engine/autobuilds/run and engine/autobuilds/watch.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tare.base.clock import Nanos
from tare.build.autobuild import Autobuild
from tare.testing.daemon import Daemon
from tare.testing.gitserver import GitServer, git_server
from tare.testing.registry import registry

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.root
PATH = "/tare/v1/autobuilds"


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory, scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    """An engine of its own: some tests kill it."""
    engine = Daemon(scratch / "auto", bridge="ttaut0", source=REPOSITORY / "src", arguments=["--allow-private-sources"])
    engine.start()
    try:
        engine.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        yield engine
    finally:
        engine.destroy()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with git_server(tmp_path) as made:
        yield made


def tare(engine: Daemon, *words: str, config: Path | None = None, code: int = 0) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "DOCKER_CONFIG": str(config or "/nonexistent")}
    done = subprocess.run(
        [sys.executable, "-m", "tare.cli", "-H", engine.host, *words],
        capture_output=True, text=True, timeout=120, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def add(engine: Daemon, url: str, *words: str, name: str = "site") -> str:
    """Add one; the secret of its hook."""
    return tare(engine, "autobuild", "add", "-q", name, "--git", url, "-t", f"{name}:snapshot", *words).strip()


def signed(secret: str, body: bytes) -> dict[str, str]:
    return {"X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


def runs(engine: Daemon, name: str = "site") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = engine.json("GET", f"{PATH}/{name}/runs")
    return found


class News:
    """Events of autobuilds, from the beginning."""

    def __init__(self, engine: Daemon) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(str(engine.socket))
        filters = "%7B%22type%22%3A%5B%22autobuild%22%5D%7D"
        self._socket.sendall(f"GET /events?since=1&filters={filters} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self._stream = self._socket.makefile("rb")

    def __enter__(self) -> News:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stream.close()
        self._socket.close()

    def wait(self, action: str, **wanted: str) -> dict[str, str]:
        """The next event of that action whose attributes are so."""
        while line := self._stream.readline():
            if not line.startswith(b"{"):
                continue
            event = json.loads(line)
            attributes: dict[str, str] = event["Actor"]["Attributes"]
            if event["Action"] == action and attributes.items() >= wanted.items():
                return attributes
        raise AssertionError("the events ended")


def nothing_left(engine: Daemon) -> None:
    assert engine.json("GET", "/containers/json?all=1") == []
    assert os.listdir(engine.data_root / "builds") == []
    assert os.listdir(engine.data_root / "ingest") == []
    assert str(engine.data_root) not in Path("/proc/self/mountinfo").read_text()


def test_a_new_commit_is_built_and_an_old_one_is_not(own: Daemon, server: GitServer) -> None:
    first = server.commit(
        "app", {"sub/D": "FROM busybox\nARG WHO\nCOPY . /src\nRUN echo for $WHO\n", "Dockerfile": "x"}
    )
    url = server.url("app")
    add(own, url, "--branch", "main", "--context", "sub", "-f", "D", "--build-arg", "WHO=me", "--schedule", "nightly")
    assert "for me\n" in tare(own, "autobuild", "run", "site")
    image = own.json("GET", "/images/site:snapshot/json")["Id"]
    assert tare(own, "autobuild", "run", "site") == f"{first} is built already: nothing to do\n"
    assert "Using cache" in tare(own, "autobuild", "run", "--force", "site")
    second = server.commit("app", {"sub/more": "x"})
    tare(own, "autobuild", "run", "site")
    assert own.json("GET", "/images/site:snapshot/json")["Id"] != image
    assert [(run["Number"], run["Commit"], run["Status"], run["Cause"]) for run in runs(own)] == [
        (3, second, "succeeded", "request"),
        (2, first, "succeeded", "request"),
        (1, first, "succeeded", "request"),
    ]
    assert "for me\n" in tare(own, "autobuild", "logs", "site", "1")
    assert tare(own, "autobuild", "history", "-q", "site") == "3\n2\n1\n"
    shown = json.loads(tare(own, "autobuild", "inspect", "site"))[0]
    assert (shown["Built"], shown["LastRun"]["Number"], shown["Branch"]) == (second, 3, "main")
    assert shown["NextRun"].endswith("T00:00:00Z")
    assert "site" in tare(own, "autobuild", "ls")
    with News(own) as news:
        news.wait("create", name="site")
        assert news.wait("start", run="1")["commit"] == first
        assert news.wait("end", run="1")["status"] == "succeeded"
        news.wait("end", run="3")
    tare(own, "autobuild", "rm", "site")
    assert os.listdir(own.data_root / "autobuilds") == []
    assert tare(own, "autobuild", "ls", "-q") == ""
    tare(own, "autobuild", "logs", "site", code=1)
    nothing_left(own)


def test_a_build_that_fails_is_recorded_and_tried_again(own: Daemon, server: GitServer) -> None:
    server.commit("app", {"Dockerfile": "FROM busybox\nRUN echo so far; exit 7\n"})
    add(own, server.url("app"))
    for number in (1, 2):
        said = tare(own, "autobuild", "run", "site", code=7)
        assert "so far\n" in said
        assert said.endswith("returned a non-zero code: 7\n")
        assert [run["ExitCode"] for run in runs(own)] == [7] * number
    assert "non-zero code" in tare(own, "autobuild", "logs", "site")
    server.commit("app", {"Dockerfile": "FROM busybox\nRUNS\n"})
    assert "unknown instruction" in tare(own, "autobuild", "run", "site", code=1)
    server.git("app", "checkout", "-q", "-b", "other")
    server.git("app", "branch", "-D", "main")
    tare(own, "autobuild", "rm", "site")
    assert "there is no branch main" in tare(
        own, "autobuild", "add", "site", "--git", server.url("app"), "--branch", "main", "-t", "x", code=1
    )
    assert os.listdir(own.data_root / "autobuilds") == []
    add(own, server.url("app"), "--branch", "other")
    server.git("app", "checkout", "-q", "-b", "main")
    server.git("app", "branch", "-D", "other")
    assert "there is no branch other" in tare(own, "autobuild", "run", "site", code=1)
    assert runs(own)[0]["Error"].endswith("there is no branch other")
    nothing_left(own)


def test_what_cannot_be_added(own: Daemon, server: GitServer) -> None:
    server.commit("app", {"Dockerfile": "FROM busybox\n"})
    url = server.url("app")
    for body, status in (
        ({"Name": "x"}, 400),
        ({"Name": "x", "Git": url}, 400),
        ({"Name": "x/y", "Git": url, "Tags": ["x"]}, 400),
        ({"Name": "x", "Git": "file:///etc", "Tags": ["x"]}, 400),
        ({"Name": "x", "Git": "ext::sh", "Tags": ["x"]}, 400),
        ({"Name": "x", "Git": url, "Tags": ["x"], "Schedule": "0 0 31 2 *"}, 400),
        ({"Name": "x", "Git": server.url("nothing"), "Tags": ["x"]}, 404),
        ({"Name": "x", "Git": url, "Tags": ["x"]}, 201),
        ({"Name": "x", "Git": url, "Tags": ["x"]}, 409),
    ):
        own.json("POST", PATH, body, expect=status)
    assert len(os.listdir(own.data_root / "autobuilds")) == 1
    own.json("POST", f"{PATH}/nothing/run", expect=404)
    own.json("POST", f"{PATH}/x/stop", expect=409)


def test_only_a_signed_hook_builds(own: Daemon, server: GitServer) -> None:
    server.commit("app", {"Dockerfile": "FROM busybox\nRUN true\n"})
    secret = add(own, server.url("app"))
    body = b'{"ref":"refs/heads/main"}'
    hook = f"{PATH}/site/hook"
    for headers in ({}, signed("0" * 64, body), signed(secret, body + b" ")):
        assert own.request("POST", hook, body=body, headers=headers)[0] == 401
    assert own.request("POST", f"{PATH}/nothing/hook", body=body, headers=signed(secret, body))[0] == 404
    assert runs(own) == []
    tare(own, "autobuild", "pause", "site")
    assert own.request("POST", hook, body=body, headers=signed(secret, body))[0] == 409
    tare(own, "autobuild", "resume", "site")
    assert own.request("POST", hook, body=body, headers=signed(secret, body))[0] == 202
    with News(own) as news:
        assert news.wait("end")["status"] == "succeeded"
    assert [run["Cause"] for run in runs(own)] == ["hook"]
    nothing_left(own)


def test_what_was_asked_for_and_what_was_missed_come_after_a_start(own: Daemon, server: GitServer) -> None:
    """Also over kill -9: what was answered is not forgotten, and a schedule that was missed ten times comes once."""
    server.commit("app", {"Dockerfile": "FROM busybox\nRUN true\n"})
    add(own, server.url("app"), "--schedule", "hourly")
    add(own, server.url("app"), name="asked")
    own.kill()
    with sqlite3.connect(own.data_root / "state.db") as db:
        for key, raw in db.execute("SELECT id, record FROM autobuilds").fetchall():
            item = msgspec.json.decode(raw, type=Autobuild)
            old = Nanos(item.created_at - 10 * 3600 * 1_000_000_000)
            asked = {"asked_at": old + 1, "asked_by": "hook"} if item.name == "asked" else {}
            changed = msgspec.json.encode({**msgspec.to_builtins(item), "created_at": old, "resumed_at": old, **asked})
            db.execute("UPDATE autobuilds SET record=? WHERE id=?", (changed, key))
    db.close()
    own.start()
    with News(own) as news:
        news.wait("end", name="asked", status="succeeded")
        news.wait("end", name="site", status="succeeded")
    assert [run["Cause"] for run in runs(own)] == ["schedule"]
    assert [run["Cause"] for run in runs(own, "asked")] == ["hook"]
    assert own.json("GET", f"{PATH}/site")["NextRun"] > own.json("GET", f"{PATH}/site")["CheckedAt"]


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_run_that_the_engine_ends_in_is_interrupted_and_leaves_nothing(
    own: Daemon, server: GitServer, end: str
) -> None:
    server.commit("app", {"Dockerfile": "FROM busybox\nCOPY . /src\nRUN echo begun; sleep 1000\n"})
    add(own, server.url("app"))
    tare(own, "autobuild", "run", "-d", "site")
    with News(own) as news:
        news.wait("start")
    follower = subprocess.Popen(
        [sys.executable, "-m", "tare.cli", "-H", own.host, "autobuild", "logs", "-f", "site"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
    )  # fmt: skip
    assert follower.stdout is not None
    with follower.stdout:
        while (line := follower.stdout.readline()) != b"begun\n":
            assert line, "the log ended before the step"
        own.kill() if end == "kill" else own.stop()
    follower.wait(20)
    (place,) = (own.data_root / "autobuilds").iterdir()
    (place / "99.log").write_text("of a run that was never recorded")
    (place.parent / "unknown").mkdir()
    (place.parent / "unknown" / "secrets").write_text("of an autobuild that was never answered")
    own.start()
    assert sorted(path.name for path in place.parent.iterdir()) == [place.name]
    assert sorted(path.name for path in place.iterdir()) == ["1.log", "secrets"]
    (run,) = runs(own)
    assert run["Status"] == "interrupted"
    assert run["Error"] == ("the engine ended while it ran" if end == "kill" else "the run was stopped")
    assert "begun\n" in tare(own, "autobuild", "logs", "site")
    with News(own) as news:
        news.wait("end", status="interrupted")
    assert own.json("GET", f"{PATH}/site")["Running"] is False
    nothing_left(own)


def test_one_at_a_time_and_each_can_be_ended(own: Daemon, server: GitServer) -> None:
    server.commit("slow", {"Dockerfile": "FROM busybox\nRUN echo begun; sleep 1000\n"})
    server.commit("app", {"Dockerfile": "FROM busybox\nRUN echo quick\n"})
    add(own, server.url("slow"), name="slow")
    add(own, server.url("app"))
    tare(own, "autobuild", "run", "-d", "slow")
    with News(own) as news:
        news.wait("start", name="slow")
    waiting = subprocess.Popen(
        [sys.executable, "-m", "tare.cli", "-H", own.host, "autobuild", "run", "site"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
    )  # fmt: skip
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "Waiting for the runs before this one\n"
    assert runs(own) == []
    tare(own, "autobuild", "stop", "slow")
    assert [(run["Status"], run["Error"]) for run in runs(own, "slow")] == [("interrupted", "the run was stopped")]
    assert "quick\n" in waiting.communicate(timeout=60)[0]
    assert waiting.returncode == 0
    tare(own, "autobuild", "run", "-d", "slow")
    with News(own) as news:
        news.wait("start", name="slow", run="2")
    tare(own, "autobuild", "rm", "slow")
    assert [item["Name"] for item in own.json("GET", PATH)] == ["site"]
    nothing_left(own)


def test_a_run_that_takes_too_long_fails(own: Daemon, server: GitServer) -> None:
    server.commit("app", {"Dockerfile": "FROM busybox\nRUN sleep 1000\n"})
    add(own, server.url("app"), "--timeout", "2s")
    assert "took longer than 2s" in tare(own, "autobuild", "run", "site", code=1)
    assert [run["Status"] for run in runs(own)] == ["failed"]
    nothing_left(own)


def test_it_pushes_with_credentials_that_nobody_sees(own: Daemon, server: GitServer, tmp_path: Path) -> None:
    server.commit("app", {"Dockerfile": "FROM busybox\nRUN true\n"})
    with registry(user="me", password="pass-of-the-registry") as remote:
        auth = base64.b64encode(b"me:pass-of-the-registry").decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {remote.host: {"auth": auth}}}))
        words = (
            "--git",
            server.url("app"),
            "--push",
            "-t",
            f"{remote.host}/site:snapshot",
            "-t",
            f"{remote.host}/site:2",
        )
        secret = tare(own, "autobuild", "add", "-q", "site", *words, config=tmp_path).strip()
        own.stop()
        own.start()
        assert f"The push refers to repository [{remote.host}/site]" in tare(own, "autobuild", "run", "site")
        assert {("site", "snapshot"), ("site", "2")} <= set(remote.manifests)
        (run,) = runs(own)
        assert [name.partition("@")[0] for name in run["Pushed"]] == [
            f"{remote.host}/site:snapshot",
            f"{remote.host}/site:2",
        ]
        remote.password = "another"
        remote.tokens.clear()
        said = tare(own, "autobuild", "run", "--force", "site", code=1)
        assert said.endswith("unauthorized: incorrect username or password\n")
        assert said.count("incorrect username") == 1
        assert runs(own)[0]["Status"] == "failed"
        shown = tare(own, "autobuild", "inspect", "site") + tare(own, "autobuild", "logs", "site")
        shown += tare(own, "autobuild", "history", "site") + tare(own, "autobuild", "ls")
        assert own.json("GET", f"{PATH}/site")["HasCredentials"] is True
    (place,) = (own.data_root / "autobuilds").iterdir()
    assert (place / "secrets").stat().st_mode & 0o777 == 0o600
    assert place.stat().st_mode & 0o777 == 0o700
    own.stop()
    hidden = [text.encode() for text in (secret, "pass-of-the-registry", auth)]
    for path in [own.log, *own.data_root.glob("state.db*"), *place.glob("*.log")]:
        assert not [text for text in hidden if text in path.read_bytes()], path
    assert not [text for text in hidden if text.decode() in shown]
    own.start()
