"""Editing existing containers: what holds at once, what at the next start, and the file system that stays.

Proves `engine/edit` on a real engine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tare.testing.daemon import Daemon

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.root
SHOW = "echo A=$A B=$B $0; cat /kept /data/f /new/f 2>&1; exec sleep 1000"


def tare(host: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tare.cli", "-H", host, *argv],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        check=False,
    )


def out(host: str, *argv: str) -> str:
    done = tare(host, *argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_everything_but_the_file_system(daemon: Daemon, engine_host: str, tmp_path: Path, state: str) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(f"{name}\n")
    out(engine_host, "run", "-d", "--name", "web", "-e", "A=1", "-e", "B=2", "-l", "a=1", "-l", "b=2",
        "-v", f"{tmp_path}/old:/data", "-v", "dropped:/gone", "busybox", "sleep", "1000")  # fmt: skip
    out(engine_host, "exec", "web", "sh", "-c", "echo kept >/kept; echo dropped >/gone/f")
    if state == "stopped":
        out(engine_host, "kill", "web")
        out(engine_host, "wait", "web")
    before = daemon.json("GET", "/containers/web/json")
    done = tare(engine_host, "edit", "--name", "site", "-l", "b=3", "--label-rm", "a", "-e", "A=x", "--env-rm", "B",
        "--health-cmd", "test -e /kept", "--health-interval", "1s", "-m", "64m", "-v", f"{tmp_path}/new:/new",
        "-v", "fresh:/bin", "--mount-rm", "/gone", "web", "--", "sh", "-c", SHOW, "zero")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("next start" in done.stderr) is (state == "running")
    after = daemon.json("GET", "/containers/site/json")
    assert (after["Id"], after["Image"], after["Created"]) == (before["Id"], before["Image"], before["Created"])
    assert after["Config"]["Labels"] == {"b": "3"}
    assert "A=x" in after["Config"]["Env"]
    assert after["HostConfig"]["Memory"] == 64 << 20
    if state == "running":
        assert after["State"]["Pid"] == before["State"]["Pid"]
        assert after["State"]["Health"]["Status"] in ("starting", "healthy")
        assert {point["Destination"] for point in after["Mounts"]} == {"/data", "/gone"}
        assert out(engine_host, "exec", "site", "cat", "/gone/f") == "dropped\n"
        assert daemon.request("DELETE", "/volumes/fresh")[0] == 409
        out(engine_host, "kill", "site")
        out(engine_host, "wait", "site")
    out(engine_host, "logs", "--clear", "site")
    out(engine_host, "start", "site")
    assert out(engine_host, "exec", "site", "cat", "/new/f", "/data/f", "/kept") == "new\nold\nkept\n"
    assert out(engine_host, "logs", "site") == "A=x B= zero\nkept\nold\nnew\n"
    found = daemon.json("GET", "/containers/site/json")
    assert {point["Destination"] for point in found["Mounts"]} == {"/data", "/new", "/bin"}
    assert daemon.request("DELETE", "/volumes/dropped")[0] == 204
    out(engine_host, "rm", "-f", "-v", "site")
    assert daemon.request("DELETE", "/volumes/fresh")[0] == 204


def test_what_is_refused_changes_nothing(daemon: Daemon, engine_host: str) -> None:
    out(engine_host, "create", "--name", "one", "busybox", "true")
    out(engine_host, "create", "--name", "two", "busybox", "true")
    before = daemon.json("GET", "/containers/one/json")
    for argv, text in (
        (["--name", "two", "-l", "x=1"], 'The container name "/two" is already in use'),
        (["--mount-rm", "/nothing", "-l", "x=1"], "no such mount: /nothing"),
        (["--mount", "type=bind,src=/no/such,dst=/x", "-l", "x=1"], "bind source path does not exist"),
        (["-m", "1m", "-l", "x=1"], "Minimum memory limit allowed is 6MB"),
    ):
        done = tare(engine_host, "edit", *argv, "one")
        assert (done.returncode, text in done.stderr) == (1, True), done.stderr
        assert daemon.json("GET", "/containers/one/json") == before
