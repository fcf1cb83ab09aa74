"""`tare build` before a person: on a terminal of its own, drawn while it goes on.

Exercises cli/buildlive and the messages of `progress=steps` with a real engine.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tare.testing.audit import findings, until
from tare.testing.daemon import Daemon
from tare.testing.exchange import tar_of

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def own(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    engine = Daemon(scratch / "live", bridge="ttblv0", source=REPOSITORY / "src")
    engine.start()
    try:
        engine.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        yield engine
        assert not (wrong := findings(engine)), wrong
    finally:
        engine.destroy()


class Terminal:
    """`tare build` on a terminal of 72 columns."""

    def __init__(self, engine: Daemon, *words: str) -> None:
        self.fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 72, 0, 0))
        environment = {
            **os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "DOCKER_CONFIG": "/nonexistent", "TERM": "xterm",
        }  # fmt: skip
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tare.cli", "-H", engine.host, "build", *words],
            stdin=inner, stdout=inner, stderr=inner, env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(inner)
        self.raw = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self.fd)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def wait(self, text: str) -> None:
        """Read until the text is drawn."""
        while text not in self.raw:
            assert self._read(), self.raw

    def _read(self) -> bool:
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: nobody has the other end any more
            return False
        self.raw += data.decode("utf-8", "replace")
        return bool(data)

    def end(self) -> tuple[int, list[str]]:
        """The exit code, and the lines that stay on the screen."""
        while self._read():
            pass
        stays = self.raw.rpartition("\x1b[?25h")[2]
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stays).replace("\r", "")
        return self.process.wait(30), plain.strip("\n").split("\n")


def write(place: Path, text: str) -> str:
    (place / "Dockerfile").write_text(text)
    return str(place)


def test_a_line_for_each_step_with_time_and_cache_mark(own: Daemon, tmp_path: Path) -> None:
    text = (
        "FROM busybox AS tools\nRUN echo working hard; sleep 0.3; touch /t\nFROM busybox\n"
        "COPY --from=tools /t /\nLABEL a=b\n"
    )
    where = write(tmp_path, text)
    with Terminal(own, "-t", "live", where) as terminal:
        terminal.wait("=> => working hard")
        code, lines = terminal.end()
    assert code == 0, lines
    assert re.fullmatch(r"\[\+\] Building \d+\.\ds \(5/5\)", lines[0]), lines
    assert lines[-1] == "Successfully tagged live:latest"
    steps = lines[1:6]
    assert [len(line) for line in steps] == [72] * 5
    assert all(re.search(r" \d+\.\ds$", line) for line in steps)
    names = ["[tools 1/2] FROM busybox AS tools", "[tools 2/2] RUN echo", "[stage-1 1/3] FROM", "COPY --from", "LABEL"]
    assert all(any(name in line for line in steps) for name in names), steps
    assert not any("CACHED" in line for line in steps)
    with Terminal(own, "-t", "live", where) as terminal:
        code, lines = terminal.end()
    assert code == 0
    assert sum(line.startswith(" => CACHED ") for line in lines) == 2
    own.request("DELETE", "/images/live?force=1")


def test_a_step_that_fails_shows_all_it_said_and_gives_its_code(own: Daemon, tmp_path: Path) -> None:
    text = "FROM busybox\nRUN for i in 1 2 3 4 5 6 7 8 9; do echo said $i; done; echo because >&2; exit 43\n"
    with Terminal(own, write(tmp_path, text)) as terminal:
        code, lines = terminal.end()
    assert code == 43
    assert any(line.startswith(" => ERROR [2/2] RUN for") for line in lines)
    assert [line for line in lines if line.startswith("said")] == [f"said {n}" for n in range(1, 10)]
    assert "because" in lines
    assert lines[-1].endswith("returned a non-zero code: 43")


def test_an_interrupted_one_tells_where_it_was_and_ends(own: Daemon, tmp_path: Path) -> None:
    with Terminal(own, write(tmp_path, "FROM busybox\nRUN echo begun; sleep 1000\n")) as terminal:
        terminal.wait("=> => begun")
        terminal.process.send_signal(signal.SIGINT)
        code, lines = terminal.end()
    assert code == 130, lines
    assert any("[2/2] RUN echo begun" in line for line in lines)
    until("the build is ended", lambda: not own.json("GET", "/containers/json?all=1"))


@pytest.mark.parametrize("words", [["--progress", "plain"], ["-q"], ["--progress", "quiet"]])
def test_plain_and_quiet_are_not_drawn(own: Daemon, tmp_path: Path, words: list[str]) -> None:
    with Terminal(own, *words, "-t", "plain", write(tmp_path, "FROM busybox\nLABEL c=d\n")) as terminal:
        code, lines = terminal.end()
    assert code == 0
    assert "[+] Building" not in terminal.raw
    image = own.json("GET", "/images/plain/json")["Id"]
    assert lines == [image] if words != ["--progress", "plain"] else "Step 2/2 : LABEL c=d" in lines
    own.request("DELETE", "/images/plain?force=1")


def test_a_result_is_not_written_to_a_terminal_and_nothing_is_built_for_it(own: Daemon, tmp_path: Path) -> None:
    for output in ("-", "type=tar,dest=-", "type=oci"):
        with Terminal(own, "-o", output, write(tmp_path, "FROM busybox\nRUN exit 3\n")) as terminal:
            code, lines = terminal.end()
        assert code == 1
        assert "refusing to write to console" in lines[-1]


def test_steps_are_told_to_those_only_who_ask(own: Daemon) -> None:
    body = tar_of({"Dockerfile": b"FROM busybox AS a\nRUN echo hi\n"})

    def said(**query: str) -> list[dict[str, object]]:
        _, raw = own.request(
            "POST", f"/v1.51/build?{urlencode(query)}", body=body, headers={"Content-Type": "application/x-tar"}
        )
        return [json.loads(line) for line in raw.splitlines() if line.strip()]

    assert not any("step" in message for message in said(nocache="1"))
    told = said(nocache="1", progress="steps")
    steps = [message["step"] for message in told if isinstance(message.get("step"), dict)]
    assert [(step["Number"], step["State"]) for step in steps if step["State"] == "begun"] == [
        (1, "begun"),
        (2, "begun"),
    ]  # type: ignore[index]
    assert steps[-1]["State"] == "done"  # type: ignore[index]
    assert {"stream": "hi\n", "step": 2} in told
    assert not any("--->" in str(message.get("stream")) for message in told)
    assert "unknown kind of progress" in str(said(progress="fancy")[0]["message"])
    for message in told:
        if "aux" in message:
            own.request("DELETE", f"/images/{message['aux']['ID']}?force=1")  # type: ignore[index]
