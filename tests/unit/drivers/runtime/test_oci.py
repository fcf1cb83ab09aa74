"""OCI runtimes: their words translated into the errors clients read exit codes from, and what is done without them."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from tare.base.errors import InternalError, Unavailable
from tare.drivers.runtime.oci import (
    CommandNotFound,
    CommandNotInvokable,
    OciRuntime,
    probe,
    sealed_copy,
    translate,
)

PREFIX = "failed to create task for container: failed to create shim task: OCI runtime create failed: "
RUNC = 'time="2026-11-23T10:00:00Z" level=error msg="%s"'


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("executable file `nope` not found in $PATH: No such file or directory", "nope"),
        ("2026-11-23T10:00:00.000000Z: executable file `nope` not found in $PATH: No such file or directory", "nope"),
        ('{"msg":"executable file `nope` not found in $PATH","level":"error"}', "nope"),
        (
            'runc create failed: unable to start container process: exec: "nope": executable file not found in $PATH',
            "nope",
        ),
        ('exec: "/bin/nope": stat /bin/nope: no such file or directory', "/bin/nope"),
        ("exec /bin/nope: no such file or directory", "/bin/nope"),
        ("open executable: No such file or directory", ""),
    ],
)
def test_a_program_that_is_not_there(text: str, program: str) -> None:
    error = translate(text)
    assert isinstance(error, CommandNotFound)
    assert error.message == (
        f'{PREFIX}unable to start container process: exec: "{program}": executable file not found in $PATH'
    )


@pytest.mark.parametrize(
    "text",
    [
        "open executable: Permission denied",
        'exec: "/etc": permission denied',
        'exec: "/etc/": is a directory',
        "execve /bin/x: Permission denied",
    ],
)
def test_a_program_that_cannot_be_executed(text: str) -> None:
    error = translate(text)
    assert isinstance(error, CommandNotInvokable)
    assert error.message.startswith(f"{PREFIX}unable to start container process: ")
    assert "permission denied" in error.message or "is a directory" in error.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the runtime gave no reason"),
        ("\n \n", "the runtime gave no reason"),
        ("mount `proc`: Permission denied", "mount `proc`: Permission denied"),
        ("warning: x\nset rlimit: Operation not permitted\n", "set rlimit: Operation not permitted"),
        ('{"msg": "cgroup exists", "level": "error"}', "cgroup exists"),
        ("{not json", "{not json"),
    ],
)
def test_everything_else_is_the_engines_failure_in_the_runtimes_last_words(text: str, message: str) -> None:
    error = translate(text)
    assert isinstance(error, InternalError)
    assert error.message == PREFIX + message


def test_a_sealed_copy_runs_and_cannot_be_written() -> None:
    path = sealed_copy("/bin/echo")
    try:
        assert subprocess.run([path, "hello"], capture_output=True, check=True).stdout == b"hello\n"
        assert Path(path).read_bytes() == Path("/bin/echo").read_bytes()
        fd = int(path.rpartition("/")[2])
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        assert not os.get_inheritable(fd)
    finally:
        os.close(int(path.rpartition("/")[2]))


def made(root: Path, version: str = "crun version 1.8.1", program: str = "/bin/false") -> OciRuntime:
    return OciRuntime(name="x", path=program, root=root, version=version, program=program, arguments=("--debug",))


def test_the_command_line(tmp_path: Path) -> None:
    assert made(tmp_path).argv("delete", "id") == ["/bin/false", "--root", str(tmp_path), "--debug", "delete", "id"]


@pytest.mark.parametrize(("version", "is_crun"), [("crun version 1.8.1", True), ("runc version 1.1.5", False)])
def test_which_it_is(tmp_path: Path, version: str, is_crun: bool) -> None:
    assert made(tmp_path, version).is_crun is is_crun


def test_crun_is_started_by_one_byte_into_its_fifo(tmp_path: Path) -> None:
    fifo = tmp_path / "id" / "exec.fifo"
    fifo.parent.mkdir()
    os.mkfifo(fifo)
    waiting = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        asyncio.run(made(tmp_path).start("id"))
        assert os.read(waiting, 10) == b"\0"
        assert not fifo.exists(), "crun too removes it: a second start must not find it"
    finally:
        os.close(waiting)


def test_where_nobody_waits_the_runtime_says_why(tmp_path: Path) -> None:
    script = tmp_path / "runtime"
    script.write_text("#!/bin/sh\necho 'container `id` is not in the created state' >&2\nexit 1\n")
    script.chmod(0o755)
    (tmp_path / "id").mkdir()
    os.mkfifo(tmp_path / "id" / "exec.fifo")
    with pytest.raises(InternalError, match="is not in the created state"):
        asyncio.run(made(tmp_path, program=str(script)).start("id"))


@pytest.mark.parametrize("version", ["crun version 1.8.1", "runc version 1.1.5"])
def test_delete_is_idempotent_and_asks_only_other_runtimes(tmp_path: Path, version: str) -> None:
    script = tmp_path / "runtime"
    script.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n')
    script.chmod(0o755)
    root = tmp_path / "root"
    (root / "id" / "deep").mkdir(parents=True)
    runtime = made(root, version, str(script))
    asyncio.run(runtime.delete("id"))
    asyncio.run(runtime.delete("id"))
    assert not (root / "id").exists()
    asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else ""
    assert asked == ("" if runtime.is_crun else f"--root {root} --debug delete --force id\n")


def test_probe(tmp_path: Path) -> None:
    script = tmp_path / "runc"
    script.write_text("#!/bin/sh\necho 'runc version 9.9'; echo 'commit: x'\n")
    script.chmod(0o755)
    runtime = asyncio.run(probe("mine", str(script), tmp_path / "state", ("--a",)))
    assert (runtime.name, runtime.version, runtime.program) == ("mine", "runc version 9.9", str(script))
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_crun_is_probed_into_memory(tmp_path: Path) -> None:
    script = tmp_path / "crun"
    script.write_text("#!/bin/sh\necho 'crun version 9.9'\n")
    script.chmod(0o755)
    runtime = asyncio.run(probe("crun", str(script), tmp_path / "state"))
    assert runtime.program.startswith(f"/proc/{os.getpid()}/fd/")
    assert runtime.path == str(script)
    os.close(int(runtime.program.rpartition("/")[2]))


def test_probe_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="is not installed") as caught:
        asyncio.run(probe("crun", str(tmp_path / "nothing"), tmp_path / "state"))
    assert caught.value.hint == "apt-get install crun"
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'no libyajl' >&2; exit 127\n")
    broken.chmod(0o755)
    with pytest.raises(Unavailable, match="no libyajl"):
        asyncio.run(probe("x", str(broken), tmp_path / "state"))
