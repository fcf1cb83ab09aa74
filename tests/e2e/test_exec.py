"""exec through the stock docker command line and through the API: streams, exit codes, terminals, what inspect says.

Proves `api/execs` on a real engine.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tare.testing.daemon import Daemon
from tare.testing.stockclient import docker, out

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
]


@pytest.fixture(params=["crun", "runc"])
def box(engine_host: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A running container by either runtime."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    out(engine_host, "run", "-d", "--runtime", request.param, "--name", "box", "-e", "A=container", "-w", "/home",
        "busybox", "sleep", "1000")  # fmt: skip
    yield engine_host
    out(engine_host, "rm", "-f", "box")


def test_streams_exit_code_and_stdin(box: str) -> None:
    done = docker(box, "exec", "box", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)
    assert out(box, "exec", "-i", "box", "wc", "-c", stdin="x" * 300_000) == "300000"
    assert docker(box, "exec", "box", "cat", stdin="not for it").stdout == ""


def test_user_directory_environment(box: str) -> None:
    lines = out(box, "exec", "box", "sh", "-c", "id -u; pwd; echo $A $B $PATH").splitlines()
    assert lines == ["0", "/home", "container /usr/bin:/bin"]
    lines = out(
        box, "exec", "-u", "app:10", "-w", "/tmp", "-e", "A=exec", "-e", "B=b c", "box",
        "sh", "-c", 'id -u; id -g; pwd; echo "$A $B"',
    ).splitlines()  # fmt: skip
    assert lines == ["1000", "10", "/tmp", "exec b c"]


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["box", "nosuch"], 127, 'exec: "nosuch": executable file not found in $PATH'),
        (["box", "/no/such"], 127, "no such file or directory"),
        (["box", "/etc"], 126, "is a directory"),
        (["box", "/etc/passwd"], 126, "permission denied"),
        (["-w", "/nowhere", "box", "true"], 127, 'chdir to cwd ("/nowhere")'),
        (["-u", "stranger", "box", "true"], 1, "unable to find user stranger: no matching entries in passwd file"),
    ],
)
def test_what_cannot_start_says_so(box: str, argv: list[str], code: int, text: str) -> None:
    done = docker(box, "exec", *argv)
    assert (done.returncode, text in done.stdout + done.stderr) == (code, True), (done.stdout, done.stderr)


def test_the_sandbox_is_the_containers(box: str) -> None:
    script = "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status; ls /proc/self/fd | wc -l; cat /proc/self/cgroup"
    first = out(box, "exec", "box", "sh", "-c", script).splitlines()
    assert "CapBnd:\t00000000a80425fb" in first
    assert "CapEff:\t00000000a80425fb" in first
    assert "CapInh:\t0000000000000000" in first
    assert "CapAmb:\t0000000000000000" in first
    assert "Seccomp:\t2" in first
    ident = out(box, "inspect", "-f", "{{.Id}}", "box")
    assert any(ident in line for line in first)
    eff = out(box, "exec", "--privileged", "box", "grep", "CapEff", "/proc/self/status").split()[1]
    assert int(eff, 16) & (1 << 21)
    user = out(box, "exec", "-u", "app", "box", "grep", "CapEff", "/proc/self/status").split()[1]
    assert int(user, 16) == 0


def test_a_terminal_has_its_size_when_the_program_begins_also_on_a_busy_machine(daemon: Daemon, box: str) -> None:
    """crun sets it from outside."""
    del box
    busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(2 * (os.cpu_count() or 1) + 2)]
    try:
        for _ in range(10):
            body = {"Cmd": ["stty", "size"], "AttachStdout": True, "Tty": True, "ConsoleSize": [31, 77]}
            made = daemon.json("POST", "/containers/box/exec", body, expect=201)["Id"]
            start = json.dumps({"Tty": True}).encode()
            headers = {"Content-Type": "application/json"}
            assert daemon.request("POST", f"/exec/{made}/start", body=start, headers=headers)[1] == b"31 77\r\n"
    finally:
        for one in busy:
            one.kill()
            one.wait()


def test_a_terminal_has_its_size(box: str) -> None:
    script = f"stty rows 31 cols 77; docker -H {box} exec -it box sh -c 'stty size; tty; echo err >&2; exit 4'"
    done = subprocess.run(
        ["script", "-qec", script, "/dev/null"],
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert "31 77" in done.stdout
    assert "/dev/pts/" in done.stdout
    assert "err" in done.stdout
    assert done.returncode == 4


def test_detached_runs_on(box: str) -> None:
    out(box, "exec", "-d", "box", "sh", "-c", "mkfifo /f; echo done >/f")
    assert out(box, "exec", "box", "sh", "-c", "until [ -p /f ]; do :; done; cat /f") == "done"
    assert docker(box, "exec", "-d", "box", "nosuch").returncode != 0


def test_a_program_that_dies_with_its_stdin_full(box: str) -> None:
    for _ in range(5):
        done = docker(box, "exec", "-i", "box", "sh", "-c", "sleep 0.1; exit 5", stdin="x" * 3_000_000)
        assert done.returncode == 5
    assert out(box, "exec", "-i", "box", "wc", "-c", stdin="x" * 3_000_000) == "3000000"


def test_several_at_once(box: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: docker(box, "exec", "box", "sh", "-c", f"echo {n}; exit {n}"), range(24)))
    assert [(r.stdout, r.returncode) for r in results] == [(f"{n}\n", n) for n in range(24)]


def test_states_that_refuse(engine_host: str) -> None:
    out(engine_host, "create", "--name", "no", "busybox", "sleep", "99")
    assert "is not running" in docker(engine_host, "exec", "no", "true").stderr
    out(engine_host, "start", "no")
    out(engine_host, "pause", "no")
    assert (
        "Container no is paused, unpause the container before exec" in docker(engine_host, "exec", "no", "true").stderr
    )
    out(engine_host, "unpause", "no")


def test_exec_into_a_dying_container_ends(engine_host: str) -> None:
    out(engine_host, "run", "-d", "--name", "dying", "busybox", "sleep", "99")
    running = subprocess.Popen(
        ["docker", "-H", engine_host, "exec", "dying", "sh", "-c", "echo up; sleep 99"], stdout=subprocess.PIPE
    )
    assert running.stdout is not None
    assert running.stdout.readline() == b"up\n"
    out(engine_host, "kill", "dying")
    assert running.wait(20) == 137
    running.stdout.close()


def test_events(engine_host: str) -> None:
    out(engine_host, "run", "-d", "--name", "ev", "busybox", "sleep", "99")
    docker(engine_host, "exec", "ev", "sh", "-c", "exit 3")
    now = out(engine_host, "info", "-f", "{{.SystemTime}}")
    lines = out(
        engine_host, "events", "--since", "1", "--until", now, "--filter", "container=ev", "--filter", "event=exec_create",
        "--filter", "event=exec_start", "--filter", "event=exec_die",
        "--format", "{{.Action}}|{{.Actor.Attributes.exitCode}}|{{.Actor.Attributes.name}}",
    )  # fmt: skip
    assert lines.splitlines() == [
        "exec_create: sh -c exit 3|<no value>|ev",
        "exec_start: sh -c exit 3|<no value>|ev",
        "exec_die|3|ev",
    ]


# --- by the API


def create(daemon: Daemon, **body: object) -> str:
    given = {"AttachStdout": True, "AttachStderr": True, **body}
    return str(daemon.json("POST", "/containers/api/exec", given, expect=201)["Id"])


class Conversation:
    """An attached exec on a raw connection."""

    def __init__(self, daemon: Daemon, exec_id: str, body: bytes = b"{}") -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(daemon.socket))
        self.socket.sendall(
            f"POST /exec/{exec_id}/start HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nConnection: Upgrade\r\n"
            f"Upgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        self.head = b""
        while not self.head.endswith(b"\r\n\r\n"):
            self.head += self.socket.recv(1)

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (piece := self.socket.recv(size - len(data))):
            data += piece
        return data

    def frame(self) -> tuple[int, bytes]:
        stream, length = struct.unpack(">BxxxI", self.read(8))
        return stream, self.read(length)

    def rest(self) -> bytes:
        data = b""
        while piece := self.socket.recv(65536):
            data += piece
        self.socket.close()
        return data


@pytest.fixture
def api(daemon: Daemon, engine_host: str) -> Daemon:
    out(engine_host, "run", "-d", "--name", "api", "busybox", "sleep", "1000")
    return daemon


def test_inspect_before_while_and_after(api: Daemon) -> None:
    exec_id = create(api, Cmd=["cat", "-"], AttachStdin=True, User="app", DetachKeys="ctrl-x")
    before = api.json("GET", f"/exec/{exec_id}/json")
    assert before == {
        "ID": exec_id, "Running": False, "ExitCode": None,
        "ProcessConfig": {"tty": False, "entrypoint": "cat", "arguments": ["-"], "privileged": False, "user": "app"},
        "OpenStdin": True, "OpenStderr": True, "OpenStdout": True, "CanRemove": False,
        "ContainerID": api.json("GET", "/containers/api/json")["Id"], "DetachKeys": "GA==", "Pid": 0,
    }  # fmt: skip
    talk = Conversation(api, exec_id)
    assert talk.head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    assert b"application/vnd.docker.multiplexed-stream" in talk.head
    talk.socket.sendall(b"ping")
    assert talk.frame() == (1, b"ping")
    while_ = api.json("GET", f"/exec/{exec_id}/json")
    assert (while_["Running"], while_["ExitCode"], while_["Pid"] > 0) == (True, None, True)
    assert api.json("GET", "/containers/api/json")["ExecIDs"] == [exec_id]
    assert (
        api.request("POST", f"/exec/{exec_id}/start", body=b"{}", headers={"Content-Type": "application/json"})[0]
        == 409
    )
    talk.socket.shutdown(socket.SHUT_WR)
    assert talk.rest() == b""
    after = api.json("GET", f"/exec/{exec_id}/json")
    assert (after["Running"], after["ExitCode"]) == (False, 0)
    assert api.json("GET", "/containers/api/json")["ExecIDs"] is None
    status, body = api.request(
        "POST", f"/exec/{exec_id}/start", body=b"{}", headers={"Content-Type": "application/json"}
    )
    assert (status, json.loads(body)["message"]) == (409, f"Error: Exec command {exec_id} has already run")


def test_the_exit_code_is_there_when_the_stream_ends(api: Daemon) -> None:
    for code in range(1, 16):
        exec_id = create(api, Cmd=["sh", "-c", f"exit {code}"])
        Conversation(api, exec_id).rest()
        found = api.json("GET", f"/exec/{exec_id}/json")
        assert (found["Running"], found["ExitCode"]) == (False, code)


def test_only_the_streams_asked_for(api: Daemon) -> None:
    script = ["sh", "-c", "echo o; echo e >&2"]
    assert Conversation(api, create(api, Cmd=script, AttachStderr=False)).frame() == (1, b"o\n")
    assert Conversation(api, create(api, Cmd=script, AttachStdout=False)).frame() == (2, b"e\n")
    assert Conversation(api, create(api, Cmd=script, AttachStdout=False, AttachStderr=False)).rest() == b""


def test_detach_keys_leave_the_process(api: Daemon) -> None:
    exec_id = create(api, Cmd=["sh"], Tty=True, AttachStdin=True, DetachKeys="ctrl-a,z")
    talk = Conversation(api, exec_id, b'{"Tty":true}')
    assert b"application/vnd.docker.raw-stream" in talk.head
    talk.socket.sendall(b"\x01z")
    talk.rest()
    assert api.json("GET", f"/exec/{exec_id}/json")["Running"] is True


def test_resize(api: Daemon) -> None:
    # crun 1.8 sets the first size beside the process it has just let go: that may be told of, too
    script = (
        """trap 's=$(stty size); [ "$s" = "41 83" ] && echo $s && exit' WINCH; echo up; while :; do sleep 0.02; done"""
    )
    exec_id = create(api, Cmd=["sh", "-c", script], Tty=True)
    talk = Conversation(api, exec_id, b'{"Tty":true,"ConsoleSize":[20,30]}')
    assert talk.read(4) == b"up\r\n"
    assert api.request("POST", f"/exec/{exec_id}/resize?h=41&w=83")[0] == 200
    assert talk.rest() == b"41 83\r\n"
    assert api.request("POST", f"/exec/{exec_id}/resize?h=41&w=83")[0] == 409
    assert api.request("POST", f"/exec/{exec_id}/resize?h=x")[0] == 400
    # the first look may come too early: stty then says nothing, and that it has succeeded
    size_once_set = 'until s=$(stty size 2>/dev/null) && [ -n "$s" ]; do :; done; echo $s'
    first = create(api, Cmd=["sh", "-c", size_once_set], Tty=True, ConsoleSize=[12, 34])
    assert Conversation(api, first, b'{"Tty":true}').rest() == b"12 34\r\n"


def test_a_client_that_leaves_ends_the_input(api: Daemon) -> None:
    exec_id = create(api, Cmd=["sh", "-c", "cat >/got; echo over >>/got"], AttachStdin=True)
    talk = Conversation(api, exec_id)
    talk.socket.sendall(b"last ")
    talk.socket.close()
    script = "until grep -q over /got 2>/dev/null; do :; done; cat /got"
    assert Conversation(api, create(api, Cmd=["sh", "-c", script])).frame() == (1, b"last over\n")


def test_what_the_api_refuses(api: Daemon) -> None:
    def post(path: str, body: object) -> tuple[int, str]:
        status, answer = api.request(
            "POST", path, body=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        )
        return status, json.loads(answer)["message"]

    assert post("/containers/api/exec", {"Cmd": []}) == (400, "No exec command specified")
    assert post("/containers/api/exec", {"Cmd": ["a"], "DetachKeys": "bogus"})[0] == 400
    assert post("/containers/nowhere/exec", {"Cmd": ["a"]}) == (404, "No such container: nowhere")
    assert post("/exec/nonono/start", {}) == (404, "No such exec instance: nonono")
    assert api.request("GET", "/exec/nonono/json")[0] == 404


def test_execs_vanish_with_their_container(api: Daemon) -> None:
    exec_id = create(api, Cmd=["true"])
    assert api.request("DELETE", "/containers/api?force=1")[0] == 204
    assert api.request("GET", f"/exec/{exec_id}/json")[0] == 404
    assert (
        api.request("POST", f"/exec/{exec_id}/start", body=b"{}", headers={"Content-Type": "application/json"})[0]
        == 404
    )


def test_nothing_is_left_of_what_ended(api: Daemon) -> None:
    exec_id = create(api, Cmd=["true"])
    Conversation(api, exec_id).rest()
    api.json("GET", f"/exec/{exec_id}/json")
    assert api.request("DELETE", "/containers/api?force=1")[0] == 204
    assert not (api.exec_root / "execs" / exec_id).exists()


def test_a_detached_start_of_an_exec_that_was_created_for_a_client(api: Daemon) -> None:
    exec_id = create(api, Cmd=["sh", "-c", "echo ran >/ran"], AttachStdin=True)
    assert api.request("POST", f"/exec/{exec_id}/start", body=b'{"Detach":true}',
                       headers={"Content-Type": "application/json"})[0] == 200  # fmt: skip
    script = "until [ -s /ran ]; do :; done; cat /ran"
    assert Conversation(api, create(api, Cmd=["sh", "-c", script])).frame() == (1, b"ran\n")


def test_one_that_forks_into_the_background_is_over_when_it_ends_itself(api: Daemon) -> None:
    """The grandchild goes on; it does not hold the answer back, nor its exit status."""
    exec_id = create(api, Cmd=["sh", "-c", "sleep 1000 & exit 7"])
    begun = time.monotonic()
    Conversation(api, exec_id).rest()
    assert time.monotonic() - begun < 10
    assert api.json("GET", f"/exec/{exec_id}/json")["ExitCode"] == 7


def test_a_detached_terminal_is_read_so_that_nobody_waits(api: Daemon) -> None:
    exec_id = create(api, Cmd=["sh", "-c", "yes | head -c 1000000; echo done >/done"], Tty=True)
    assert api.request("POST", f"/exec/{exec_id}/start", body=b'{"Detach":true,"Tty":true}',
                       headers={"Content-Type": "application/json"})[0] == 200  # fmt: skip
    script = "until [ -s /done ]; do :; done; cat /done"
    assert Conversation(api, create(api, Cmd=["sh", "-c", script])).frame() == (1, b"done\n")


def test_an_exec_outlives_the_daemon_and_nothing_of_it_is_left(scratch: Path, rootfs_tar: bytes) -> None:
    """kill -9: the process goes on, the restarted engine does not know the exec, and takes new ones."""
    own = Daemon(scratch / "ex", bridge=f"te{os.getpid()}", source=REPOSITORY / "src")
    own.start()
    try:
        own.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}}
        own.json("POST", "/containers/create?name=api", body, expect=201)
        own.json("POST", "/containers/api/start", expect=204)
        script = "mkfifo /f; echo up; read line </f; echo $line >/after"
        exec_id = create(own, Cmd=["sh", "-c", script])
        talk = Conversation(own, exec_id)
        assert talk.frame() == (1, b"up\n")
        own.kill()
        talk.rest()
        own.start()
        assert own.request("GET", f"/exec/{exec_id}/json")[0] == 404
        assert list((own.exec_root / "execs").iterdir()) == []
        script = "echo on >/f; until [ -s /after ]; do :; done; cat /after"
        assert Conversation(own, create(own, Cmd=["sh", "-c", script])).frame() == (1, b"on\n")
    finally:
        own.destroy()
