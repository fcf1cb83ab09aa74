"""Credentials and secrets of builds are nowhere but where they are used: not in the log (at its most talkative), events, histories,
titles and environments of processes, files, answers.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tare.testing.audit import findings
from tare.testing.daemon import Daemon
from tare.testing.exchange import TAR, Refused, tar_of
from tare.testing.registry import registry

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

PASSWORD, SECRET, ARGUMENT = "pass-hush-word", "secret-hush-word", "proxy-hush-word"
WORDS = (PASSWORD, SECRET, ARGUMENT, base64.b64encode(f"me:{PASSWORD}".encode()).decode())


@pytest.fixture
def own(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    made = Daemon(
        scratch / "secrets",
        bridge=f"th{os.getpid()}",
        source=Path(__file__).resolve().parents[2] / "src",
        arguments=["--log-level", "debug"],
    )
    made.start()
    try:
        made.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        yield made
        assert findings(made) == []
    finally:
        made.destroy()


class Watcher(threading.Thread):
    """Reads the titles of all processes, and the environments of the engine's, as fast as it can."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.pid, self.over, self.seen, self.looks = pid, threading.Event(), set[str](), 0

    def run(self) -> None:
        while not self.over.is_set():
            self.looks += 1
            for entry in os.listdir("/proc"):
                if not entry.isdigit() or int(entry) == os.getpid():
                    continue
                for name in ("cmdline", *(("environ",) if int(entry) == self.pid else ())):
                    try:
                        text = Path(f"/proc/{entry}/{name}").read_bytes()
                    except OSError:
                        continue
                    self.seen |= {f"{word} in {name}: {text[:200]!r}" for word in WORDS if word.encode() in text}


def test_they_are_nowhere_else(own: Daemon) -> None:
    auth = base64.urlsafe_b64encode(json.dumps({"username": "me", "password": PASSWORD}).encode()).decode()
    wrong = base64.urlsafe_b64encode(json.dumps({"username": "me", "password": f"{PASSWORD}x"}).encode()).decode()
    packed = base64.urlsafe_b64encode(json.dumps({"s": base64.b64encode(SECRET.encode()).decode()}).encode()).decode()
    lines = "FROM busybox\nRUN --mount=type=secret,id=s cat /run/secrets/s >/dev/null; echo $HTTP_PROXY >/dev/null; sleep 0.3\n"
    proxy = json.dumps({"HTTP_PROXY": f"http://me:{ARGUMENT}@127.0.0.1:9"})
    watcher = Watcher(own.pid)
    watcher.start()
    answers = []
    try:
        with registry(user="me", password=PASSWORD) as server:
            name = f"{server.host}/a"
            own.json("POST", "/auth", {"username": "me", "password": PASSWORD, "serveraddress": server.host})
            own.request("POST", "/auth", body=json.dumps({"username": "me", "password": f"{PASSWORD}x"}).encode())
            own.call("POST", f"/images/busybox/tag?repo={name}&tag=1")
            answers.append(own.call("POST", f"/images/{name}/push?tag=1", b"", {"X-Registry-Auth": auth}))
            own.call("DELETE", f"/images/{name}:1")
            answers.append(own.call("POST", f"/images/create?fromImage={name}&tag=1", b"", {"X-Registry-Auth": auth}))
            with pytest.raises(Refused) as refused:
                own.call("POST", f"/images/{name}/push?tag=2", b"", {"X-Registry-Auth": wrong})
            answers.append(str(refused.value).encode())
        context = tar_of({"Dockerfile": lines.encode()})
        headers = {**TAR, "X-Tare-Secrets": packed}
        answers.append(own.call("POST", f"/build?t=built&networkmode=none&buildargs={proxy}", context, headers))
    finally:
        watcher.over.set()
        watcher.join()
    assert watcher.looks > 5
    assert watcher.seen == set()
    answers += [own.call("GET", f"/images/built/{what}") for what in ("json", "history")]
    answers += [
        own.call("GET", path) for path in (f"/tare/v1/events?since=1&until={time.time():.3f}", "/info", "/metrics")
    ]
    answers.append(own.log.read_bytes())
    assert b"build" in answers[-1]  # it does talk
    for root in (own.data_root, own.exec_root):
        answers += [path.read_bytes() for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    for word in WORDS:
        assert not [answer[:300] for answer in answers if word.encode() in answer], word
