"""Events that outlive the engine: no gap over kill -9, times that rise, who asked.

Proves `engine/events` on a real engine; exercises engine/news and api/system.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tare.testing.daemon import Daemon

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.root


@pytest.fixture
def own(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    """An engine that the test may kill."""
    engine = Daemon(scratch / "ev", bridge="ttev0", source=REPOSITORY / "src")
    engine.start()
    try:
        engine.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        yield engine
    finally:
        engine.destroy()


def events(engine: Daemon, path: str = "/events", kind: str = "container") -> list[dict[str, Any]]:
    filters = json.dumps({"type": [kind]}).replace(" ", "")
    status, body = engine.request("GET", f"{path}?since=1&until={time.time():.9f}&filters={filters}")
    assert status == 200
    return [json.loads(line) for line in body.splitlines()]


def test_what_was_answered_is_told_after_kill_9(own: Daemon) -> None:
    expected = []
    for round_ in range(4):
        for number in range(5):
            name = f"c{round_}-{number}"
            made = own.json("POST", f"/containers/create?name={name}", {"Image": "busybox"}, expect=201)
            own.json("POST", f"/containers/{made['Id']}/rename?name={name}-new", expect=204)
            expected += [("create", name), ("rename", f"{name}-new")]
        own.kill()  # at once after the answer
        own.start()
        found = events(own)
        assert [(event["Action"], event["Actor"]["Attributes"]["name"]) for event in found] == expected
        times = [event["timeNano"] for event in found]
        assert times == sorted(set(times))


def test_since_zero_is_everything(own: Daemon) -> None:
    own.json("POST", "/containers/create?name=first", {"Image": "busybox"}, expect=201)
    status, body = own.request("GET", f"/events?since=0&until={time.time():.9f}")
    assert status == 200
    assert [json.loads(line)["Action"] for line in body.splitlines()][-1] == "create"


def test_an_image_that_is_made_is_told_once(own: Daemon) -> None:
    def created() -> list[str]:
        return [event["Actor"]["ID"] for event in events(own, kind="image") if event["Action"] == "create"]

    def build() -> None:
        data = b"FROM busybox\nLABEL a=b\n"
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            info = tarfile.TarInfo("Dockerfile")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        status, said = own.request(
            "POST", "/build?t=made", body=file.getvalue(), headers={"Content-Type": "application/x-tar"}
        )
        assert (status, b"Successfully tagged made:latest" in said) == (200, True)

    own.json("POST", "/containers/create?name=box", {"Image": "busybox"}, expect=201)
    committed = own.json("POST", "/commit?container=box", expect=201)["Id"]
    assert created() == [committed]
    build()
    assert created() == [committed, own.json("GET", "/images/made/json")["Id"]]
    build()
    assert len(created()) == 2, "it was there already"


def test_who_asked_is_recorded_and_what_happens_by_itself_is_nobodys(own: Daemon) -> None:
    body = {"Image": "busybox", "Cmd": ["true"]}
    made = own.json("POST", "/containers/create", body, expect=201)["Id"]
    own.json("POST", f"/containers/{made}/start", expect=204)
    own.json("POST", f"/containers/{made}/wait")
    found = {event["Action"]: event["User"] for event in events(own, "/tare/v1/events")}
    me = f"uid={os.getuid()} pid={os.getpid()}"
    assert found == {"create": me, "start": me, "die": ""}
    assert "User" not in events(own)[0]
