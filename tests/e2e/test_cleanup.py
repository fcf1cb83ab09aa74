"""Last use and clean-up on a real engine: engine/cleanup, images/usage."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tare.testing.daemon import Daemon
from tare.testing.stockclient import out

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def own(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    """An engine with images nobody used for long, but for one."""
    made = Daemon(scratch / "clean", bridge=f"tl{os.getpid()}", source=SOURCE)
    made.start()
    try:
        for name in ("old", "kept", "held", "ran"):
            label = ["LABEL tare.keep="] if name == "kept" else [f"LABEL name={name}"]
            made.import_image(f"{name}:1", rootfs_tar, changes=['CMD ["true"]', *label])
        out(made.host, "create", "--name", "holder", "held:1")
        made.stop()
        with closing(sqlite3.connect(made.data_root / "state.db")) as db, db:
            db.execute("UPDATE image_uses SET at = 1000000000")
            db.execute("UPDATE images SET imported_at = 1000000000")
        made.start()
        yield made
    finally:
        made.destroy()


def clean(engine: Daemon, query: str) -> dict[str, Any]:
    status, body = engine.request("POST", f"/tare/v1/images/clean?{query}")
    assert status == 200, body
    found: dict[str, Any] = json.loads(body)
    return found


def names(report: dict[str, Any]) -> list[str]:
    return sorted(image["Names"][0] for image in report["Images"])


def test_what_nobody_used_goes_and_what_is_used_stays(own: Daemon) -> None:
    assert own.json("GET", "/images/ran:1/json")["Metadata"]["LastUsedTime"] == "1970-01-01T00:00:01Z"
    out(own.host, "run", "--rm", "ran:1")
    assert own.json("GET", "/images/ran:1/json")["Metadata"]["LastUsedTime"] > "2000"
    unused = own.json("GET", '/images/json?filters={"unused-for":["1h"]}')
    assert sorted(image["RepoTags"][0] for image in unused) == ["held:1", "kept:1", "old:1"]
    assert out(own.host, "images", "-q", "--filter", "unused-for=30d").count("\n") == 2
    assert names(clean(own, "policy=max-age=1d&dry-run=1")) == ["old:1"]
    assert len(own.json("GET", "/images/json")) == 4
    report = clean(own, "policy=max-age=1d")
    assert [(image["Names"], image["Removed"]) for image in report["Images"]] == [(["old:1"], True)]
    left = sorted(image["RepoTags"][0] for image in own.json("GET", "/images/json"))
    assert left == ["held:1", "kept:1", "ran:1"]
    assert own.request("POST", "/tare/v1/images/clean")[0] == 400  # this daemon has no policy
    assert own.request("POST", "/tare/v1/images/clean?policy=max-age=x")[0] == 400
    status, body = own.request("POST", '/images/prune?filters={"dangling":["false"],"unused-for":["1h"]}')
    assert (status, "kept:1" in body.decode(), "ran:1" in body.decode()) == (200, True, False)


def test_the_command_line(own: Daemon) -> None:
    def tare(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tare.cli", "-H", own.host, *words],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = tare("images", "--format", "{{.Repository}} {{.LastUsed}}", "--filter", "reference=old")
    assert listed.startswith("old ")
    assert listed.endswith(" years ago\n")
    table = tare("image", "clean", "--policy", "max-count=3", "--dry-run")
    assert "more than 3 images" in table
    assert "Would reclaim: 0B" in table  # they share their one layer
    assert "yes" in tare("image", "clean", "--policy", "max-count=3")


def test_the_daemon_does_it_by_itself(own: Daemon) -> None:
    from tare.engine import cleanup

    own.stop()
    program = (
        "import sys, tare.engine.cleanup as c, tare.daemon.app as a\n"
        "watch = c.watch\n"
        "a.watch_images = lambda engine, policy: watch(engine, policy, first_s=0)\n"
        "sys.exit(a.main(sys.argv[1:]))"
    )
    assert cleanup.EVERY_S >= 60
    argv = own.argv
    own.argv = lambda: [sys.executable, "-c", program, *argv()[3:], "--image-gc", "max-age=1d"]  # type: ignore[method-assign]
    own.start()
    events = subprocess.Popen(
        ["docker", "-H", own.host, "events", "--since", "1h", "--filter", "event=prune", "--format", "{{json .}}"],
        stdout=subprocess.PIPE,
    )
    try:
        assert events.stdout is not None
        told = json.loads(events.stdout.readline())
    finally:
        events.kill()
        events.wait()
        if events.stdout is not None:
            events.stdout.close()
    assert told["Actor"]["Attributes"]["images"] == "2"
    left = sorted(image["RepoTags"][0] for image in own.json("GET", "/images/json"))
    assert left == ["held:1", "kept:1"]
