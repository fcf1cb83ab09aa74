"""Builds from a tar to an image that runs, by the API and by the stock command line.

Exercises api/build, engine/builds/build, engine/builds/compose, engine/builds/context, engine/builds/copy,
engine/builds/prune, engine/builds/repository, engine/builds/request, engine/builds/sandbox and engine/builds/stages with real sandboxes.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import io
import json
import os
import select
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tare.testing.daemon import Daemon

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def own(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    """An engine of its own: what builds leave is counted."""
    engine = Daemon(
        scratch / "build",
        bridge="ttbld0",
        source=REPOSITORY / "src",
        arguments=["--allow-private-sources"],
    )
    engine.start()
    try:
        engine.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        yield engine
    finally:
        engine.destroy()


def context(files: dict[str, bytes | str | tuple[bytes, int]], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            data, mode = content if isinstance(content, tuple) else (content, 0o644)
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), mode, 1_000_000_000
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


class Built:
    """What a build answered."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.messages: list[dict[str, Any]] = [json.loads(line) for line in body.splitlines() if line.strip()]
        self.text = "".join(message.get("stream", "") for message in self.messages)
        self.error = next((message["error"] for message in self.messages if "error" in message), "")
        self.code = next((m["errorDetail"].get("code", 0) for m in self.messages if "errorDetail" in m), 0)
        self.id = next((message["aux"]["ID"] for message in self.messages if "aux" in message), "")


def build(
    engine: Daemon, files: dict[str, Any], *, headers: dict[str, str] | None = None, links: Any = None, **query: Any
) -> Built:
    pairs = [(key, item) for key, value in query.items() for item in (value if isinstance(value, list) else [value])]
    status, body = engine.request(
        "POST",
        f"/v1.51/build?{urlencode(pairs)}",
        body=context(files, links),
        headers={"Content-Type": "application/x-tar", **(headers or {})},
    )
    return Built(status, body)


def run(engine: Daemon, image: str, *cmd: str) -> str:
    body = {"Image": image, **({"Cmd": list(cmd)} if cmd else {})}
    container = engine.json("POST", "/containers/create", body, expect=201)["Id"]
    engine.json("POST", f"/containers/{container}/start", expect=204)
    engine.json("POST", f"/containers/{container}/wait")
    _, raw = engine.request("GET", f"/containers/{container}/logs?stdout=1&stderr=1")
    engine.request("DELETE", f"/containers/{container}?force=1")
    out = b""
    while raw:
        size = int.from_bytes(raw[4:8], "big")
        out, raw = out + raw[8 : 8 + size], raw[8 + size :]
    return out.decode()


class Alarm:
    """Wakes when something in a directory changes."""

    def __init__(self, directory: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_CLOEXEC)
        assert libc.inotify_add_watch(self._fd, os.fsencode(directory), 0x200 | 0x100) >= 0

    def __enter__(self) -> Alarm:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)

    def wait(self) -> None:
        assert select.select([self._fd], [], [], 20)[0], "nothing happened for 20 s"
        os.read(self._fd, 4096)


def nothing_left(engine: Daemon) -> None:
    assert engine.json("GET", "/containers/json?all=1") == []
    assert os.listdir(engine.data_root / "builds") == []
    assert os.listdir(engine.data_root / "ingest") == []
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(engine.data_root) not in mounts


def test_stages_copies_and_mounts_make_an_image_that_runs(own: Daemon) -> None:
    dockerfile = """
    ARG V=1
    FROM busybox AS one
    ARG V
    ENV X=y${V}
    RUN echo "built $X" > /one && mkdir /d
    COPY a.txt link /d/
    COPY sub /d/sub
    WORKDIR w/x
    RUN --mount=type=cache,target=/c <<EOF
    echo heredoc > h.txt
    EOF
    FROM busybox AS unused
    RUN exit 1
    FROM busybox
    COPY --from=one /one /w/x/h.txt /out/
    COPY --from=one /d /d
    COPY --chmod=755 --chown=3:4 <<X /bin/hi
    #!/bin/sh
    cat /out/one /out/h.txt /d/a.txt /d/link /d/sub/b.txt
    stat -c '%u:%g %a' /bin/hi
    X
    RUN hi > /dev/null
    LABEL l="a b"
    EXPOSE 80 90-91/udp
    CMD ["hi"]
    """
    dockerfile = "\n".join(line[4:] for line in dockerfile.splitlines())
    files = {"Dockerfile": dockerfile, "a.txt": "hello\n", "sub/b.txt": "b\n"}
    done = build(own, files, links={"link": "a.txt"}, t=["app:1", "app:2"], buildargs='{"V":"7"}')
    assert done.error == "", done.text
    assert "Step 1/" in done.text
    assert f"Successfully built {done.id[7:19]}\n" in done.text
    assert "Successfully tagged app:1\n" in done.text
    assert run(own, "app:2") == "built y7\nheredoc\nhello\nhello\nb\n3:4 755\n"
    config = own.json("GET", "/images/app:1/json")["Config"]
    assert config["Labels"] == {"l": "a b"}
    assert set(config["ExposedPorts"]) == {"80/tcp", "90/udp", "91/udp"}
    nothing_left(own)

    again = build(own, files, links={"link": "a.txt"}, t="app:3", buildargs='{"V":"7"}')
    assert again.id == done.id
    assert "Running in" not in again.text
    assert again.text.count("Using cache") == 9
    changed = build(own, {**files, "sub/b.txt": "c\n"}, links={"link": "a.txt"}, t="app:3", buildargs='{"V":"7"}')
    assert changed.id != done.id
    assert run(own, "app:3") == "built y7\nheredoc\nhello\nhello\nc\n3:4 755\n"


def test_a_change_invalidates_only_what_depends_on_it(own: Daemon) -> None:
    dockerfile = "FROM busybox\nCOPY a /a\nRUN cat /a > /b\nENV E=1\nCOPY c /c\nRUN echo $E\n"
    first = build(own, {"Dockerfile": dockerfile, "a": "1", "c": "1"})
    assert first.text.count("Running in") == 2
    second = build(own, {"Dockerfile": dockerfile, "a": "1", "c": "2"})
    assert (second.text.count("Using cache"), second.text.count("Running in")) == (2, 1)
    assert build(own, {"Dockerfile": dockerfile, "a": "1", "c": "2"}, nocache=1).text.count("Running in") == 2


def test_named_images_are_the_only_cache(own: Daemon) -> None:
    files = {"Dockerfile": "FROM busybox\nENV FROM_IMAGE=1\nRUN echo 1 > /baz\nRUN echo 2 > /bax\n"}
    first = build(own, files, t="cachefrom:1")
    assert (first.error, first.text.count("Using cache")) == ("", 0)
    taken = build(own, files, cachefrom='["cachefrom:1","gone:1"]')
    assert (taken.id, taken.text.count("Using cache")) == (first.id, 3)
    without = build(own, files, cachefrom='["gone:1"]')
    assert (without.error, without.text.count("Using cache"), without.text.count("Running in")) == ("", 0, 2)
    other = build(own, files, cachefrom='["busybox"]')
    assert (other.text.count("Using cache"), other.text.count("Running in")) == (0, 2)
    nothing_left(own)


def test_what_a_step_says_on_stderr_is_red(own: Daemon) -> None:
    done = build(own, {"Dockerfile": "FROM busybox\nRUN echo out; echo 'err \u00e9' >&2\n"}, nocache=1)
    said = [message.get("stream") for message in done.messages]
    assert "\x1b[91merr \u00e9\n\x1b[0m" in said, done.text
    assert "out\n" in said


def test_a_killed_daemon_keeps_the_cache_and_nothing_else(own: Daemon) -> None:
    dockerfile = "FROM busybox\nRUN echo kept > /kept\nRUN sleep 30\n"
    tar = context({"Dockerfile": dockerfile})
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(own.socket))
        head = f"POST /v1.51/build HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: {len(tar)}\r\n\r\n"
        connection.sendall(head.encode() + tar)
        seen = b""
        while seen.count(b"Running in") < 2:
            seen += connection.recv(65536)
        own.kill()
    own.start()
    nothing_left(own)
    again = build(own, {"Dockerfile": dockerfile.replace("sleep 30", "cat /kept")})
    assert again.error == ""
    assert "kept\n" in again.text


def test_a_client_that_leaves_ends_its_build(own: Daemon) -> None:
    tar = context({"Dockerfile": "FROM busybox\nRUN --mount=type=bind,target=/ctx sleep 1000\n"})
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(own.socket))
        head = f"POST /v1.51/build HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: {len(tar)}\r\n\r\n"
        connection.sendall(head.encode() + tar)
        seen = b""
        while b"Running in" not in seen:
            seen += connection.recv(65536)
    # The build's directory is the last of it to go.
    with Alarm(own.data_root / "builds") as alarm:
        while os.listdir(own.data_root / "builds"):
            alarm.wait()
    nothing_left(own)


LOOP = "FROM busybox\nRUN ln -s /m /l && ln -s /l /m\n"


@pytest.mark.parametrize(
    ("dockerfile", "status", "said"),
    [
        ("FROM busybox\nRNU x\n", 400, "unknown instruction: RNU (did you mean RUN?)"),
        ("FROM busybox\nCOPY --bad=1 a /\n", 400, "unknown flag: --bad"),
        ("RUN x\n", 400, "no build stage"),
        ("", 400, "the Dockerfile (Dockerfile) cannot be empty"),
        ("# nothing\n", 400, "file with no instructions"),
        ("FROM busybox\nCOPY nothing /\n", 200, "stat nothing: file does not exist"),
        ("FROM busybox\nCOPY ../../etc/passwd /\n", 200, "stat etc/passwd: file does not exist"),
        ("FROM busybox\nCOPY out/passwd /\n", 200, "file does not exist"),
        ("FROM busybox\nRUN --mount=type=secret,id=s,required cat /run/secrets/s\n", 200, "secret s: not found"),
        ("FROM no.such.name.invalid/x\n", 200, "no.such.name.invalid"),
        ("FROM busybox\nRUN --security=insecure true\n", 200, "security.insecure is not allowed"),
        ("FROM busybox\nRUN --network=host true\n", 200, "network.host is not allowed"),
        ("FROM busybox\nCOPY --chown=nobodyhere a /\n", 200, "nobodyhere"),
        (LOOP + "COPY a /l\n", 200, "too many links in /l"),
        (LOOP + "COPY a /l/x/\n", 200, "too many links in /l/x"),
        (LOOP + "WORKDIR /l\n", 200, "too many links in /l"),
        (LOOP + "FROM busybox\nCOPY --from=0 /l /x\n", 200, "COPY failed: too many links in /l of 0"),
        (LOOP + "FROM busybox\nCOPY --from=0 /l/y /x\n", 200, "COPY failed: too many links in /l/y of 0"),
        (LOOP + "FROM busybox\nCOPY --from=0 /bin/sh/y /x\n", 200, "stat /bin/sh/y: file does not exist in 0"),
        (LOOP + "FROM busybox\nRUN --mount=from=0,source=/l,target=/x ls\n", 200, "too many links in /l of 0"),
        ("FROM busybox\nCOPY loop /x\n", 200, "stat loop: file does not exist"),
        ("FROM busybox\nCOPY loop/a /x\n", 200, "stat loop/a: file does not exist"),
        ("FROM busybox AS own\nCOPY --from=0 /bin/sh /\n", 200, "circular dependency detected on stage: own"),
        ("FROM busybox AS own\nRUN --mount=type=bind,from=own,target=/x ls\n", 200, "circular dependency"),
        (
            "FROM busybox AS x\nCOPY --from=y /bin/sh /\nFROM busybox AS y\nCOPY --from=x /bin/sh /\n",
            200,
            "circular dependency detected on stage: ",
        ),
    ],
)
def test_what_is_wrong_is_said(own: Daemon, dockerfile: str, status: int, said: str) -> None:
    done = build(own, {"Dockerfile": dockerfile, "a": "x"}, links={"out": "/etc", "loop": "pool", "pool": "loop"})
    assert done.status == status
    text = done.error or done.messages[0]["message"]
    assert said in text
    nothing_left(own)


def test_a_step_leaves_the_sandbox_only_when_it_may(own: Daemon) -> None:
    dockerfile = (
        "FROM busybox\nRUN --security=insecure --network=host ls /sys/class/net && grep CapEff /proc/self/status\n"
    )
    done = build(own, {"Dockerfile": dockerfile}, allow=["security.insecure", "network.host"])
    assert done.error == "", done.error
    assert own.bridge in done.text
    own_caps = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    assert own_caps.split()[1] in done.text
    assert build(own, {"Dockerfile": dockerfile}, allow="everything").status == 400
    nothing_left(own)


def test_a_step_that_fails_gives_its_exit_code(own: Daemon) -> None:
    done = build(own, {"Dockerfile": "FROM busybox\nRUN echo out; exit 7\n"})
    assert "out\n" in done.text
    assert (done.code, done.error) == (7, "The command '/bin/sh -c echo out; exit 7' returned a non-zero code: 7")
    nothing_left(own)


def test_a_secret_is_seen_by_its_step_and_by_nothing_else(own: Daemon) -> None:
    packed = base64.urlsafe_b64encode(json.dumps({"s": base64.b64encode(b"hush-hush-hush").decode()}).encode()).decode()
    digest = hashlib.sha256(b"hush-hush-hush").hexdigest()
    dockerfile = (
        "FROM busybox\n"
        f"RUN --mount=type=secret,id=s [ $(sha256sum < /run/secrets/s | cut -c1-64) = {digest} ] && stat -c %a /run/secrets/s\n"
        f"RUN --mount=type=secret,id=s,env=WORD [ $(printf %s $WORD | sha256sum | cut -c1-64) = {digest} ] && ! [ -s /run/secrets/s ]\n"
    )
    done = build(own, {"Dockerfile": dockerfile}, headers={"X-Tare-Secrets": packed}, t="secret")
    assert done.error == "", done.error
    assert "400\n" in done.text
    for root, _, names in os.walk(own.data_root):
        for name in names:
            path = Path(root) / name
            if path.is_file() and not path.is_symlink():
                assert b"hush-hush-hush" not in path.read_bytes(), path
    assert b"hush-hush-hush" not in own.log.read_bytes()


def test_the_same_build_at_another_time_gives_the_same_digest(own: Daemon) -> None:
    dockerfile = "FROM busybox\nRUN date > /dev/null; echo x > /x; mkdir /new\nCOPY a /deep/er/a\n"
    query = {"buildargs": '{"SOURCE_DATE_EPOCH":"1700000000"}', "nocache": 1}
    first = build(own, {"Dockerfile": dockerfile, "a": "1"}, **query)
    second = build(own, {"Dockerfile": dockerfile, "a": "1"}, **query)
    assert first.error == ""
    assert first.id == second.id


def test_stages_that_need_nothing_of_each_other_run_at_once(own: Daemon) -> None:
    # Each waits until the other has begun: one after the other would never end.
    side = (
        "RUN --mount=type=cache,id=meet,target=/m touch /m/{0}; until [ -e /m/{1} ]; do sleep 0.02; done; touch /{0}\n"
    )
    dockerfile = (
        "FROM busybox AS a\n" + side.format("a", "b") + "FROM busybox AS b\n" + side.format("b", "a")
        + "FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\nRUN ls /a /b\n"
    )  # fmt: skip
    done = build(own, {"Dockerfile": dockerfile}, nocache=1)
    assert done.error == "", done.error
    assert "/a\n/b\n" in done.text


def test_triggers_targets_and_ignored_files(own: Daemon) -> None:
    base = "FROM busybox\nONBUILD COPY . /app\nONBUILD RUN ls /app\n"
    assert build(own, {"Dockerfile": base}, t="trigger").error == ""
    files = {
        "Dockerfile": "FROM trigger AS first\nLABEL a=b\nFROM first\nRUN exit 1\n",
        ".dockerignore": "*.log\n!keep.log\nsecret\n",
        "a.log": "x", "keep.log": "x", "secret/x": "x", "code": "x",
    }  # fmt: skip
    done = build(own, files, target="first", t="triggered")
    assert done.error == "", done.error
    assert "# Executing 2 build triggers\n" in done.text
    assert run(own, "triggered", "ls", "-A", "/app").split() == [".dockerignore", "Dockerfile", "code", "keep.log"]


def test_add_takes_archives_apart(own: Daemon) -> None:
    inner = context({"in/side": "inside\n"})
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("z/file")
        info.size, info.uid = 2, 7
        tar.addfile(info, io.BytesIO(b"z\n"))
    files = {
        "Dockerfile": "FROM busybox\nADD a.tar b.tgz /x/\nADD --unpack=false a.tar /y/\nCOPY a.tar /z/\n"
        "RUN cat /x/in/side /x/z/file; stat -c %u /x/z/file; ls /y /z\n",
        "a.tar": inner,
        "b.tgz": packed.getvalue(),
    }
    done = build(own, files)
    assert done.error == "", done.error
    assert "inside\nz\n7\n/y:\na.tar\n\n/z:\na.tar\n" in done.text


def test_pruning_the_cache_gives_the_space_back(own: Daemon) -> None:
    build(own, {"Dockerfile": "FROM busybox\nRUN head -c 3000000 /dev/urandom > /big\nRUN exit 1\n"})
    before = own.json("GET", "/system/df")["BuildCache"]
    assert any(item["Size"] == 3_000_000 for item in before)
    report = own.json("POST", "/build/prune?all=1")
    assert report["SpaceReclaimed"] >= 3_000_000
    assert own.json("GET", "/system/df")["BuildCache"] == []
    kept = {layer for image in own.json("GET", "/images/json?all=1") for layer in _layers(own, image["Id"])}
    snapshots = {name for name in os.listdir(own.data_root / "snapshots") if name != "init"}
    assert len(snapshots) <= len(kept)


def _layers(engine: Daemon, image: str) -> list[str]:
    return list(engine.json("GET", f"/images/{image}/json")["RootFS"].get("Layers") or ())


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    """A git server on loopback with one repository: branch main, a tag, a directory with a Dockerfile of its own."""
    work = tmp_path / "served" / "app.git"
    work.mkdir(parents=True)
    (work / "Dockerfile").write_text("FROM busybox\nCOPY . /src\nRUN ls -A /src\n")
    (work / "sub").mkdir()
    (work / "sub/Dockerfile").write_text("FROM busybox\nRUN echo from the sub-directory\n")
    (work / "out").symlink_to("/etc")
    environment = {
        **os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t",
    }  # fmt: skip

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(work), *words], check=True, env=environment, capture_output=True)

    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    git("tag", "v1")
    (work / "later").write_text("x")
    git("add", "-A")
    git("commit", "-q", "-m", "second")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        ["git", "daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}", "--verbose",
         "--log-destination=stderr", f"--base-path={tmp_path}/served", "--informative-errors"],
        stderr=subprocess.PIPE, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        assert server.stderr is not None
        assert b"Ready to rumble" in server.stderr.readline()
        yield f"git://127.0.0.1:{port}/app.git"
    finally:
        os.killpg(server.pid, 15)
        server.wait()
        assert server.stderr is not None
        server.stderr.close()


def test_a_git_repository_is_a_context(own: Daemon, repository: str) -> None:
    def remote(url: str) -> Built:
        return Built(*own.request("POST", f"/v1.51/build?{urlencode({'remote': url, 'nocache': '1'})}"))

    assert "Dockerfile\nlater\nout\nsub\n" in remote(repository).text
    assert "Dockerfile\nout\nsub\n" in remote(f"{repository}#v1").text
    assert "from the sub-directory\n" in remote(f"{repository}#main:sub").text
    for wrong, status in (
        (f"{repository}#nothing", 404),
        (f"{repository}#main:nothing", 404),
        (f"{repository}#main:out", 400),
    ):
        assert remote(wrong).status == status, wrong
    nothing_left(own)


def test_a_git_repository_is_added_and_is_a_further_context(own: Daemon, repository: str) -> None:
    done = build(
        own,
        {
            "Dockerfile": f"FROM busybox\nADD {repository}#v1 /one\nADD --keep-git-dir {repository} /all\n"
            f"ADD {repository}#main:sub /sub/\nCOPY --from=more later /more\n"
            "RUN ls -A /one /all /sub /more && stat -c %u:%g /one/Dockerfile && test -f /all/.git/HEAD\n"
        },
        contexts=json.dumps({"more": f"{repository}#main"}),
    )
    assert done.error == "", done.error
    assert "/all:\n.git\nDockerfile\nlater\nout\nsub\n\n/one:\nDockerfile\nout\nsub\n" in done.text
    assert "0:0\n" in done.text
    again = build(
        own, {"Dockerfile": f"FROM busybox\nADD {repository}#v1 /one\nADD --keep-git-dir {repository} /all\n"}
    )
    assert again.text.count("Using cache") == 2
    wrong = build(own, {"Dockerfile": f"FROM busybox\nADD --checksum={'0' * 40} {repository} /x\n"})
    assert "expected checksum to match" in wrong.error
    nothing_left(own)
