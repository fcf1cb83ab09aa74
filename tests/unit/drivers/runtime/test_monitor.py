"""The monitor: what it is told, what its report means, and reaching it by its files. conmon is a small script here."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tare.aio import proc
from tare.base.errors import Conflict, InternalError, NotFound
from tare.drivers.runtime import monitor
from tare.drivers.runtime.monitor import Monitor, Started
from tare.drivers.runtime.oci import CommandNotFound, OciRuntime

ID = "a" * 64


@pytest.fixture
def runtime(tmp_path: Path) -> OciRuntime:
    return OciRuntime(
        name="crun", path="/bin/crun", root=tmp_path / "state", version="crun version 1", program="/bin/c"
    )


def make(tmp_path: Path, script: str) -> Monitor:
    """A monitor whose conmon is `script`; its arguments are written to `<tmp>/argv`, one a line."""
    program = tmp_path / "conmon"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/argv\n{script}\n')
    program.chmod(0o755)
    made = Monitor(path=str(program), exec_root=tmp_path)
    made.bundle(ID).mkdir(parents=True)
    made.exits().mkdir()
    return made


def create(made: Monitor, runtime: OciRuntime, **changes: object) -> Started:
    given: dict[str, object] = {"log_path": None, "has_tty": False, "has_stdin": False, "keep_stdin": False} | changes

    async def main() -> Started:
        started = await made.create(ID, runtime=runtime, **given)  # type: ignore[arg-type]
        await proc.wait(started.monitor)
        return started

    return asyncio.run(main())


REPORT = 'echo "{\\"data\\": 4711}" >/proc/self/fd/$_OCI_SYNCPIPE'


def test_the_report_names_the_first_process(tmp_path: Path, runtime: OciRuntime) -> None:
    assert create(make(tmp_path, REPORT), runtime).pid == 4711


def test_it_runs_in_the_bundle_where_its_oom_file_is_looked_for(tmp_path: Path, runtime: OciRuntime) -> None:
    made = make(tmp_path, f": >oom; {REPORT}")
    create(made, runtime)
    assert made.was_oom_killed(ID)
    assert not (Path.cwd() / "oom").exists()


def test_what_an_earlier_run_left_does_not_count(tmp_path: Path, runtime: OciRuntime) -> None:
    made = make(tmp_path, REPORT)
    (made.exits() / ID).write_text("137")
    (made.bundle(ID) / "oom").touch()
    create(made, runtime)
    assert made.exit_code(ID) is None
    assert not made.was_oom_killed(ID)


@pytest.mark.parametrize(
    ("changes", "present", "absent"),
    [
        ({}, {"none:"}, {"--terminal", "--stdin", "--leave-stdin-open"}),
        ({"log_path": Path("/l")}, {"k8s-file:/l"}, {"none:"}),
        ({"has_tty": True}, {"--terminal"}, {"--stdin"}),
        ({"has_stdin": True}, {"--stdin"}, {"--leave-stdin-open"}),
        ({"has_stdin": True, "keep_stdin": True}, {"--stdin", "--leave-stdin-open"}, set()),
        ({"keep_stdin": True}, set(), {"--leave-stdin-open"}),
    ],
)
def test_what_it_is_told(
    tmp_path: Path, runtime: OciRuntime, changes: dict[str, object], present: set[str], absent: set[str]
) -> None:
    create(make(tmp_path, REPORT), runtime, **changes)
    words = (tmp_path / "argv").read_text().splitlines()
    assert present <= set(words)
    assert not absent & set(words)
    assert words[words.index("--runtime") + 1] == "/bin/c"
    assert f"--runtime-arg={tmp_path}/state" in words


def test_the_runtimes_words_come_by_the_report(tmp_path: Path, runtime: OciRuntime) -> None:
    text = "executable file `nope` not found in $PATH: No such file or directory"
    with pytest.raises(CommandNotFound, match='exec: "nope": executable file not found'):
        create(make(tmp_path, f'echo \'{{"data": -1, "message": "{text}"}}\' >/proc/self/fd/$_OCI_SYNCPIPE'), runtime)


@pytest.mark.parametrize(
    "script", ["echo boom >&2; exit 1", 'echo boom >&2; echo "no json" >/proc/self/fd/$_OCI_SYNCPIPE']
)
def test_without_a_report_its_own_words_count(tmp_path: Path, runtime: OciRuntime, script: str) -> None:
    with pytest.raises(InternalError, match="OCI runtime create failed: boom"):
        create(make(tmp_path, script), runtime)


@pytest.mark.parametrize(("text", "code"), [("0", 0), ("137\n", 137), ("", None), ("x", None), (None, None)])
def test_exit_code(tmp_path: Path, text: str | None, code: int | None) -> None:
    made = make(tmp_path, "")
    if text is not None:
        (made.exits() / ID).write_text(text)
    assert made.exit_code(ID) == code


def test_control_reaches_who_listens(tmp_path: Path) -> None:
    made = make(tmp_path, "")
    os.mkfifo(made.bundle(ID) / "ctl")
    listener = os.open(made.bundle(ID) / "ctl", os.O_RDONLY | os.O_NONBLOCK)
    try:
        made.resize(ID, height=24, width=80)
        made.reopen_log(ID)
        assert os.read(listener, 100) == b"1 24 80\n2 0 0\n"
    finally:
        os.close(listener)


def test_control_without_a_listener_is_a_conflict(tmp_path: Path) -> None:
    made = make(tmp_path, "")
    with pytest.raises(Conflict, match="is not running"):
        made.resize(ID, height=1, width=1)
    os.mkfifo(made.bundle(ID) / "ctl")
    with pytest.raises(Conflict, match="is not running"):
        made.resize(ID, height=1, width=1)


@pytest.fixture
def deep(tmp_path: Path) -> Monitor:
    """A monitor whose bundle's path is longer than a socket's name may be."""
    made = Monitor(path="/bin/false", exec_root=tmp_path / ("x" * 120))
    made.bundle(ID).mkdir(parents=True)
    return made


def test_connecting_by_a_path_too_long_for_a_socket(deep: Monitor) -> None:
    directory = os.open(deep.bundle(ID), os.O_PATH)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"/proc/self/fd/{directory}/attach")
        os.close(directory)
        listener.listen()
        ours = deep.connect(ID)
        theirs, _ = listener.accept()
        with theirs:
            ours.write(memoryview(b"hello"))
            assert theirs.recv(100) == b"hello"
            with pytest.raises(BlockingIOError):
                ours.read(*ours.sources)
        ours.close()


def test_connecting_where_nobody_is(deep: Monitor) -> None:
    with pytest.raises(NotFound, match="has no monitor"):
        deep.connect(ID)
    with pytest.raises(NotFound, match="has no monitor"):
        deep.connect("b" * 64)


def test_a_process_says_what_it_does_with_a_signal() -> None:
    def run(script: str, number: int) -> bool:
        words = ["/bin/sh", "-c", f"{script}; echo up; read line"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"up\n"
            try:
                return monitor.takes_signal(child.pid, number)
            finally:
                child.kill()

    assert run("trap 'exit 5' TERM", signal.SIGTERM)
    assert run("trap '' TERM", signal.SIGTERM)
    assert not run("true", signal.SIGTERM)
    assert not run("trap 'exit 5' TERM", signal.SIGUSR1)
    assert monitor.takes_signal(2**22 + 1, signal.SIGTERM)


def test_a_process_is_told_from_another_of_its_pid() -> None:
    async def main() -> int:
        child = proc.start(["/bin/sleep", "1000"])
        try:
            started = monitor.start_time(child.pid)
            assert started is not None
            assert monitor.send_signal(child.pid, started + 1, signal.SIGKILL) is False
            assert monitor.start_time(child.pid) == started
            assert monitor.send_signal(child.pid, started, signal.SIGKILL) is True
            await monitor.until_ended(child.pid)
            assert monitor.start_time(child.pid) is None, "a zombie is no process"
        finally:
            child.kill()
            status = await proc.wait(child)
        assert monitor.send_signal(child.pid, started, signal.SIGKILL) is False
        await monitor.until_ended(child.pid)
        return status

    assert asyncio.run(main()) == -signal.SIGKILL


def test_this_boot_has_one_name() -> None:
    assert monitor.boot_id() == monitor.boot_id()
    assert len(monitor.boot_id()) == 36


def test_a_container_that_is_being_made_ends_with_its_start(
    tmp_path: Path, runtime: OciRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start broke while conmon was busy: it went on, and there was a container that nobody knew."""
    script = f'sleep 1000 & echo $! >{tmp_path}/first; echo "{{\\"data\\": $!}}" >/proc/self/fd/$_OCI_SYNCPIPE; wait'
    made = make(tmp_path, script)

    def break_(name: str, _error: type[Exception] = OSError) -> None:
        assert name == "monitor.started"
        raise OSError("broken")

    monkeypatch.setattr(monitor.failpoints, "hit", break_)
    with pytest.raises(OSError, match="broken"):
        create(made, runtime)
    assert monitor.start_time(int((tmp_path / "first").read_text())) is None
