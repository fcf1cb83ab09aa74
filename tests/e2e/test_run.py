"""A container's life through the stock docker command line: streams, exit codes, options, what stays and what goes.

Exercises engine/create, engine/prepare, engine/start, engine/attach, engine/exits, engine/release, engine/remove, engine/stop,
engine/logs, engine/listing, engine/export, engine/rename, engine/commit, engine/news, engine/prune and api/containers.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tare.testing.stockclient import docker, out

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="the stock docker command line is not installed"),
]


@pytest.mark.parametrize("runtime", ["crun", "runc"])
@pytest.mark.parametrize("network", ["bridge", "none", "host"])
def test_run_hello(engine_host: str, runtime: str, network: str) -> None:
    if shutil.which(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    assert (
        out(engine_host, "run", "--rm", "--runtime", runtime, "--network", network, "busybox", "echo", "hello")
        == "hello"
    )
    assert out(engine_host, "ps", "-aq") == ""


def test_streams_are_kept_apart_and_the_exit_code_is_the_programs(engine_host: str) -> None:
    done = docker(engine_host, "run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["busybox", "nosuch"], 127, 'exec: "nosuch": executable file not found in $PATH'),
        (["busybox", "/no/such"], 127, "no such file or directory"),
        (["busybox", "/etc"], 126, "is a directory"),
        (["busybox", "/etc/passwd"], 126, "permission denied"),
        (
            ["-u", "nobodyhere", "busybox", "true"],
            125,
            "unable to find user nobodyhere: no matching entries in passwd file",
        ),
        (["--memory", "1m", "busybox", "true"], 125, "Minimum memory limit allowed is 6MB"),
        (["--cap-add", "NOPE", "busybox", "true"], 125, "NOPE"),
        (["--network", "nowhere", "busybox", "true"], 125, "network nowhere not found"),
        (["--link", "nobody:x", "busybox", "true"], 125, "could not get container for nobody"),
        (["--runtime", "nope", "busybox", "true"], 125, "nope"),
        (["-w", "relative", "busybox", "true"], 125, "absolute path"),
        (["nosuchimage:1", "true"], 125, "nosuchimage:1"),
        (["Bad_Ref", "true"], 125, "must be lowercase"),
    ],
)
def test_what_cannot_start_says_why_and_leaves_nothing(engine_host: str, argv: list[str], code: int, text: str) -> None:
    done = docker(engine_host, "run", "--rm", *argv)
    assert (done.returncode, text in done.stderr) == (code, True), done.stderr
    assert out(engine_host, "ps", "-aq") == ""


def test_killed_is_137_and_terminated_by_signal_adds_128(engine_host: str) -> None:
    assert docker(engine_host, "run", "--rm", "busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?").returncode == 137
    out(engine_host, "run", "-d", "--name", "kk", "busybox", "sleep", "1000")
    out(engine_host, "kill", "kk")
    assert out(engine_host, "wait", "kk") == "137"


def test_stdin_reaches_the_program_and_ends(engine_host: str) -> None:
    assert out(engine_host, "run", "--rm", "-i", "busybox", "wc", "-c", stdin="x" * 100_000) == "100000"


def test_output_of_the_first_instant_is_not_lost(engine_host: str) -> None:
    for _ in range(10):
        assert out(engine_host, "run", "--rm", "busybox", "echo", "first") == "first"


def test_a_terminal_has_its_size_and_its_streams_in_one(engine_host: str) -> None:
    script = f"stty rows 31 cols 77; docker -H {engine_host} run --rm -it busybox sh -c 'sleep 0.2; stty size; tty; echo err >&2'"
    done = subprocess.run(
        ["script", "-qec", script, "/dev/null"],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert "31 77" in done.stdout
    assert "/dev/pts/0" in done.stdout
    assert "err" in done.stdout


def test_process_options(engine_host: str) -> None:
    text = out(
        engine_host, "run", "--rm", "-u", "app", "-w", "/tmp/new/dir", "-e", "A=b c", "-h", "box", "--group-add", "10",
        "--entrypoint", "sh", "busybox", "-c", 'id; pwd; echo "$A"; hostname; echo "$HOSTNAME"; echo $PATH',
    )  # fmt: skip
    lines = text.splitlines()
    assert lines[0].startswith("uid=1000(app) gid=1000(app) groups=")
    assert "10(wheel)" in lines[0]
    assert "28(video)" in lines[0]
    assert lines[1:] == ["/tmp/new/dir", "b c", "box", "box", "/usr/bin:/bin"]


def test_mounts(engine_host: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host")
    script = "cat /b/file; touch /b/no 2>&1; touch /w/yes; mount | grep ' /t '; touch /x 2>&1"
    done = docker(
        engine_host, "run", "--rm", "--read-only", "-v", f"{tmp_path}:/b:ro", "-v", f"{tmp_path}:/w",
        "--tmpfs", "/t:size=1m", "busybox", "sh", "-c", script,
    )  # fmt: skip
    assert done.stdout.startswith("from the host")
    assert done.stdout.count("Read-only file system") == 2
    assert "size=1024k" in done.stdout
    assert (tmp_path / "yes").exists()


def test_limits_reach_the_control_groups(engine_host: str) -> None:
    out(
        engine_host,
        "run",
        "-d",
        "--name",
        "lim",
        "-m",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "33",
        "busybox",
        "sleep",
        "99",
    )
    host_config = json.loads(out(engine_host, "inspect", "-f", "{{json .HostConfig}}", "lim"))
    assert (host_config["Memory"], host_config["MemorySwap"], host_config["NanoCpus"], host_config["PidsLimit"]) == (
        64 << 20, 128 << 20, 500_000_000, 33,
    )  # fmt: skip
    pid = out(engine_host, "inspect", "-f", "{{.State.Pid}}", "lim")
    groups = Path(f"/proc/{pid}/cgroup").read_text()
    assert "/tare/" in groups
    memory = next((line.split(":")[2] for line in groups.splitlines() if "memory" in line.split(":")[1]), None)
    if memory is not None:
        assert Path(f"/sys/fs/cgroup/memory{memory}/memory.limit_in_bytes").read_text().strip() == str(64 << 20)


def test_out_of_memory_is_told(engine_host: str) -> None:
    done = docker(
        engine_host, "run", "--name", "oom", "-m", "8m", "--memory-swap", "8m", "busybox", "tail", "/dev/zero"
    )
    assert done.returncode == 137
    assert out(engine_host, "inspect", "-f", "{{.State.OOMKilled}}", "oom") == "true"


def test_init_reaps_orphans(engine_host: str) -> None:
    assert out(engine_host, "run", "--rm", "--init", "busybox", "sh", "-c", "cat /proc/1/comm").strip() in {
        "docker-init", "tini", "tini-static", "catatonit",
    }  # fmt: skip


def test_stop_uses_the_signal_then_kills(engine_host: str) -> None:
    trap = 'trap "echo bye; exit 5" USR1; echo ready; while :; do sleep 0.05; done'
    out(engine_host, "run", "-d", "--name", "st", "--stop-signal", "USR1", "busybox", "sh", "-c", trap)
    wait_for_log(engine_host, "st", "ready")
    out(engine_host, "stop", "st")
    assert out(engine_host, "inspect", "-f", "{{.State.ExitCode}}", "st") == "5"
    assert out(engine_host, "logs", "st").splitlines() == ["ready", "bye"]
    out(engine_host, "run", "-d", "--name", "deaf", "busybox", "sh", "-c", 'trap "" TERM; while :; do sleep 1; done')
    out(engine_host, "stop", "-t", "0", "deaf")
    assert out(engine_host, "inspect", "-f", "{{.State.ExitCode}} {{.State.Status}}", "deaf") == "137 exited"


def wait_for_log(host: str, name: str, text: str) -> None:
    follower = subprocess.Popen(["docker", "-H", host, "logs", "-f", name], stdout=subprocess.PIPE, text=True)
    assert follower.stdout is not None
    for line in follower.stdout:
        if text in line:
            break
    follower.kill()
    follower.wait()
    follower.stdout.close()


def test_logs(engine_host: str) -> None:
    out(
        engine_host,
        "run",
        "--name",
        "lg",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4 5; do echo $i; done; echo e >&2; printf end",
    )
    done = docker(engine_host, "logs", "lg")
    assert (done.stdout, done.stderr) == ("1\n2\n3\n4\n5\nend", "e\n")
    assert (
        docker(engine_host, "logs", "--tail", "2", "lg").stdout
        + docker(engine_host, "logs", "--tail", "2", "lg").stderr
        == "ende\n"
    )
    assert docker(engine_host, "logs", "--tail", "0", "lg").stdout == ""
    stamped = docker(engine_host, "logs", "-t", "lg").stdout.splitlines()
    stamp, _, text = stamped[0].partition(" ")
    assert (text, len(stamp), stamp[-1]) == ("1", 30, "Z")
    assert docker(engine_host, "logs", "--since", "1h", "lg").stdout == done.stdout
    assert docker(engine_host, "logs", "--until", "1h", "lg").stdout == ""


def test_logs_follow_ends_with_the_container(engine_host: str) -> None:
    out(engine_host, "run", "-d", "--name", "fol", "busybox", "sh", "-c", "echo a; sleep 0.3; echo b")
    assert out(engine_host, "logs", "-f", "fol") == "a\nb"


def test_a_line_longer_than_a_record_stays_one_line(engine_host: str) -> None:
    out(
        engine_host,
        "run",
        "--name",
        "long",
        "busybox",
        "sh",
        "-c",
        "head -c 100000 /dev/zero | tr '\\0' x; echo; echo short",
    )
    lines = docker(engine_host, "logs", "long").stdout.splitlines()
    assert [len(line) for line in lines] == [100_000, 5]
    assert docker(engine_host, "logs", "--tail", "1", "long").stdout == "short\n"


def test_attach_to_a_running_container(engine_host: str) -> None:
    out(engine_host, "run", "-di", "--name", "at", "busybox", "cat")
    done = subprocess.Popen(
        ["docker", "-H", engine_host, "attach", "at"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert done.stdin is not None
    assert done.stdout is not None
    done.stdin.write("ping\n")
    done.stdin.flush()
    assert done.stdout.readline() == "ping\n"
    out(engine_host, "kill", "at")
    assert done.wait(20) == 137
    done.stdin.close()
    done.stdout.close()


def test_two_clients_see_the_same_output(engine_host: str) -> None:
    out(engine_host, "create", "-i", "--name", "two", "busybox", "cat")
    clients = [
        subprocess.Popen(
            ["docker", "-H", engine_host, "start", "-a", "two"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        for _ in range(1)
    ]
    wait_until_running(engine_host, "two")
    clients.append(
        subprocess.Popen(
            ["docker", "-H", engine_host, "attach", "--no-stdin", "two"],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
    )
    feeder = subprocess.Popen(
        ["docker", "-H", engine_host, "attach", "two"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert feeder.stdin is not None
    assert feeder.stdout is not None
    feeder.stdin.write(b"all\n")
    feeder.stdin.flush()
    assert feeder.stdout.readline() == b"all\n"
    assert clients[0].stdout is not None
    assert clients[0].stdout.readline() == b"all\n"
    out(engine_host, "kill", "two")
    for client in (*clients, feeder):
        client.wait(20)
        assert client.stdout is not None
        client.stdout.close()
    feeder.stdin.close()


def wait_until_running(host: str, name: str) -> None:
    name = out(host, "inspect", "-f", "{{.Id}}", name)  # events last: another test may have had one of that name
    waiter = subprocess.Popen(
        ["docker", "-H", host, "events", "--since", "1", "--filter", f"container={name}", "--filter", "event=start"],
        stdout=subprocess.PIPE,
    )
    assert waiter.stdout is not None
    waiter.stdout.readline()
    waiter.kill()
    waiter.wait()
    waiter.stdout.close()


def test_diff_and_export_and_names(engine_host: str, tmp_path: Path) -> None:
    out(
        engine_host,
        "run",
        "--name",
        "dif",
        "busybox",
        "sh",
        "-c",
        "echo x >/etc/new; rm /etc/group; mkdir /dir; touch /dir/f",
    )
    assert set(out(engine_host, "diff", "dif").splitlines()) == {
        "C /etc",
        "A /etc/new",
        "D /etc/group",
        "A /dir",
        "A /dir/f",
    }
    out(engine_host, "export", "-o", str(tmp_path / "t.tar"), "dif")
    names = subprocess.run(["tar", "tf", tmp_path / "t.tar"], capture_output=True, text=True, check=True).stdout.split()
    assert "etc/new" in names
    assert "etc/group" not in names
    out(engine_host, "rename", "dif", "exp")
    assert out(engine_host, "ps", "-a", "--format", "{{.Names}}") == "exp"
    clash = docker(engine_host, "create", "--name", "exp", "busybox")
    assert clash.returncode == 1
    assert 'Conflict. The container name "/exp" is already in use by container' in clash.stderr


def test_commit_is_a_new_version(engine_host: str) -> None:
    out(engine_host, "run", "--name", "com", "busybox", "sh", "-c", "echo v2 >/version")
    out(engine_host, "commit", "-m", "second", "-a", "me", "-c", 'CMD ["cat","/version"]', "com", "busybox:v2")
    assert out(engine_host, "run", "--rm", "busybox:v2") == "v2"
    assert "second" in out(engine_host, "history", "busybox:v2")
    out(engine_host, "rm", "com")
    out(engine_host, "rmi", "busybox:v2")


def test_events_come_in_dockers_order(engine_host: str) -> None:
    since = out(engine_host, "info", "-f", "{{.SystemTime}}")
    out(engine_host, "run", "--rm", "--name", "ev", "busybox", "true")
    until = out(engine_host, "info", "-f", "{{.SystemTime}}")
    lines = out(
        engine_host, "events", "--since", since, "--until", until, "--format", "{{.Type}} {{.Action}}"
    ).splitlines()
    assert lines == [
        "container create", "container attach", "network connect", "container start", "container die", "network disconnect",
        "container destroy",
    ]  # fmt: skip


def test_filters_of_ps(engine_host: str) -> None:
    out(engine_host, "create", "--name", "one", "-l", "a=1", "busybox")
    assert docker(engine_host, "run", "--name", "two", "-l", "a=2", "-l", "b", "busybox", "false").returncode == 1

    def names(*filters: str) -> list[str]:
        argv = [word for text in filters for word in ("--filter", text)]
        return sorted(out(engine_host, "ps", "-a", "--format", "{{.Names}}", *argv).split())

    assert names("label=a") == ["one", "two"]
    assert names("label=a=2") == ["two"]
    assert names("status=created") == ["one"]
    assert names("exited=1") == ["two"]
    assert names("name=w") == ["two"]
    assert names("ancestor=busybox") == ["one", "two"]
    assert names("since=one") == ["two"]
    assert names("network=bridge", "before=two") == ["one"]
    assert "invalid filter" in docker(engine_host, "ps", "--filter", "nope=1").stderr


def test_prune(engine_host: str) -> None:
    out(engine_host, "create", "busybox")
    out(engine_host, "run", "-d", "--name", "stays", "busybox", "sleep", "99")
    assert "Total reclaimed space" in out(engine_host, "container", "prune", "-f")
    assert out(engine_host, "ps", "-a", "--format", "{{.Names}}") == "stays"


def test_pause(engine_host: str) -> None:
    out(engine_host, "run", "-d", "--name", "pau", "busybox", "sleep", "99")
    out(engine_host, "pause", "pau")
    assert "(Paused)" in out(engine_host, "ps", "--format", "{{.Status}}")
    assert docker(engine_host, "pause", "pau").returncode == 1
    out(engine_host, "unpause", "pau")
    out(engine_host, "rm", "-f", "pau")
