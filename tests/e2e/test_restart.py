"""The daemon is killed, restarted, started twice: containers go on, nothing is lost, nothing is doubled.

Exercises daemon/app and engine/restore.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tare.testing.daemon import Daemon

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.root


@pytest.fixture
def own(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    """An engine that the test may kill."""
    engine = Daemon(scratch / "own", bridge="ttown0", source=REPOSITORY / "src")
    engine.start()
    try:
        engine.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        yield engine
    finally:
        engine.destroy()


def create(engine: Daemon, name: str, *cmd: str, **host_config: object) -> str:
    body = {"Image": "busybox", "Cmd": list(cmd), "HostConfig": host_config}
    return str(engine.json("POST", f"/containers/create?name={name}", body, expect=201)["Id"])


def run(engine: Daemon, name: str, *cmd: str, **host_config: object) -> str:
    container = create(engine, name, *cmd, **host_config)
    engine.json("POST", f"/containers/{container}/start", expect=204)
    return container


def logs(engine: Daemon, name: str) -> bytes:
    status, body = engine.request("GET", f"/containers/{name}/logs?stdout=1&follow=1")
    assert status == 200
    out = b""
    while body:
        size = int.from_bytes(body[4:8], "big")
        out += body[8 : 8 + size]
        body = body[8 + size :]
    return out


def test_containers_survive_kill_9_and_their_logs_have_no_gap(own: Daemon) -> None:
    counter = "i=0; while [ $i -lt 400 ]; do echo $i; i=$((i+1)); sleep 0.005; done; exit 9"
    run(own, "counter", "sh", "-c", counter)
    run(own, "ends-meanwhile", "sh", "-c", "sleep 0.2; exit 4")
    address = own.json("GET", "/containers/counter/json")["NetworkSettings"]["IPAddress"]
    pid = own.json("GET", "/containers/counter/json")["State"]["Pid"]
    pidfd = os.pidfd_open(monitor_of(own, "ends-meanwhile"))
    own.kill()
    os.kill(pid, 0)
    wait_for_end(pidfd)
    own.start()
    state = own.json("GET", "/containers/counter/json")
    assert state["State"]["Pid"] == pid
    assert state["NetworkSettings"]["IPAddress"] == address
    ended = own.json("GET", "/containers/ends-meanwhile/json")["State"]
    assert (ended["Status"], ended["ExitCode"]) == ("exited", 4)
    assert own.json("POST", "/containers/counter/wait")["StatusCode"] == 9
    assert logs(own, "counter").split() == [b"%d" % n for n in range(400)]


def monitor_of(engine: Daemon, name: str) -> int:
    """The pid of a container's monitor: the parent of its first process."""
    pid = engine.json("GET", f"/containers/{name}/json")["State"]["Pid"]
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def wait_for_end(pidfd: int) -> None:
    import select

    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    assert poller.poll(10_000), "the monitor did not end"
    os.close(pidfd)


def test_a_container_can_be_attached_and_stopped_after_a_restart(own: Daemon) -> None:
    container = run(own, "cat", "sh", "-c", "trap 'exit 3' TERM; while :; do echo tick; sleep 0.02; done")
    own.stop()
    own.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(own.socket))
        client.settimeout(10)
        client.sendall(
            f"POST /containers/{container}/attach?stream=1&stdout=1 HTTP/1.1\r\n"
            "Host: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
        )
        seen = b""
        while b"tick" not in seen:
            seen += client.recv(4096)
    own.json("POST", f"/containers/{container}/stop?t=5", expect=204)
    assert own.json("GET", f"/containers/{container}/json")["State"]["ExitCode"] == 3


def test_auto_remove_is_carried_out_after_a_restart(own: Daemon) -> None:
    run(own, "gone", "sleep", "0.1", AutoRemove=True)
    own.kill()
    own.start()
    status, _ = own.request("POST", "/containers/gone/wait?condition=removed")
    assert status in (200, 404)
    assert own.json("GET", "/containers/json?all=1") == []


def test_a_killed_monitor_does_not_leave_a_running_record(own: Daemon) -> None:
    container = run(own, "orphan", "sleep", "1000")
    pid = own.json("GET", f"/containers/{container}/json")["State"]["Pid"]
    os.kill(monitor_of(own, container), signal.SIGKILL)
    assert own.json("POST", f"/containers/{container}/wait")["StatusCode"] == 255
    assert not Path(f"/proc/{pid}").exists()  # collected: not even a zombie
    state = own.json("GET", f"/containers/{container}/json")["State"]
    assert (state["Status"], state["Running"]) == ("exited", False)
    own.json("POST", f"/containers/{container}/start", expect=204)


def test_names_and_images_are_there_after_kill_9(own: Daemon) -> None:
    first = create(own, "kept", "true")
    own.kill()
    own.start()
    assert own.json("GET", "/containers/kept/json")["Id"] == first
    assert [image["RepoTags"] for image in own.json("GET", "/images/json")] == [["busybox:latest"]]
    status, body = own.request(
        "POST",
        "/containers/create?name=kept",
        body=b'{"Image":"busybox","Cmd":["x"]}',
        headers={"Content-Type": "application/json"},
    )
    assert (status, b"already in use" in body) == (409, True)


def test_what_a_create_cut_short_leaves_is_taken_away(own: Daemon) -> None:
    kept = create(own, "kept", "true")
    own.kill()
    left = own.data_root / "containers" / ("f" * 64)
    left.mkdir()
    (left / "hosts").touch()
    own.start()
    assert [path.name for path in left.parent.iterdir()] == [kept]


def test_a_second_daemon_on_the_same_data_root_refuses(own: Daemon, scratch: Path) -> None:
    other = Daemon(scratch / "other", bridge="ttown1", source=REPOSITORY / "src")
    other.data_root = own.data_root
    done = subprocess.run(
        other.argv(),
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "is in use by another daemon" in done.stderr
    assert "--data-root" in done.stderr
    assert own.request("GET", "/_ping")[0] == 200
    other.log.unlink(missing_ok=True)
    (scratch / "other" / "run").rmdir()
    (scratch / "other").rmdir()


def test_a_client_that_leaves_in_the_middle_of_an_import_leaves_nothing(own: Daemon, rootfs_tar: bytes) -> None:
    before = listing(own.data_root)
    for share in (10, 512, len(rootfs_tar) // 2, len(rootfs_tar) - 600):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(own.socket))
            head = f"POST /images/create?fromSrc=-&repo=half HTTP/1.1\r\nHost: x\r\nContent-Length: {len(rootfs_tar)}\r\n\r\n"
            client.sendall(head.encode() + rootfs_tar[:share])
    own.stop()
    own.start()
    assert own.request("GET", "/images/half/json")[0] == 404
    assert listing(own.data_root) == before


def listing(data_root: Path) -> set[str]:
    """Names of blobs, snapshots and leftovers."""
    return {
        f"{directory}/{path.name}"
        for directory in ("blobs/sha256", "snapshots", "ingest", "trash")
        for path in (data_root / directory).iterdir()
    }
