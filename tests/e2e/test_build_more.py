"""Outputs, squashing, contexts and caches of builds, by the API and by both command lines.

Exercises engine/builds/results and engine/builds/squash with a real engine.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import select
import socket
import subprocess
import sys
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
    engine = Daemon(scratch / "more", bridge="ttbmr0", source=REPOSITORY / "src", arguments=["--allow-private-sources"])
    engine.start()
    try:
        engine.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        yield engine
    finally:
        engine.destroy()


@pytest.fixture(autouse=True)
def nothing_left(own: Daemon) -> Iterator[None]:
    """No test leaves containers, contexts, unfinished layers or mounts."""
    yield
    assert own.json("GET", "/containers/json?all=1") == []
    assert os.listdir(own.data_root / "builds") == []
    assert os.listdir(own.data_root / "ingest") == []
    assert str(own.data_root) not in Path("/proc/self/mountinfo").read_text()


class Alarm:
    """Wakes when something is made or goes in a directory."""

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


def tare(
    engine: Daemon, *words: str, text: str | None = None, environ: dict[str, str] | None = None, code: int = 0
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "tare.cli", "-H", engine.host, *words],
        input=(text or "").encode(),
        capture_output=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "DOCKER_CONFIG": "/nonexistent", **(environ or {})},
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def write(place: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return place


def api_build(engine: Daemon, files: dict[str, str], **query: Any) -> list[dict[str, Any]]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    headers = {"Content-Type": "application/x-tar"}
    _, body = engine.request("POST", f"/v1.51/build?{urlencode(query)}", body=out.getvalue(), headers=headers)
    return [json.loads(line) for line in body.splitlines() if line.strip()]


def images(engine: Daemon) -> set[str]:
    return {image["Id"] for image in engine.json("GET", "/images/json?all=1")}


# -- outputs


def test_the_files_of_a_build_come_out_and_no_image_stays(own: Daemon, tmp_path: Path) -> None:
    before = images(own)
    where = str(write(tmp_path / "c", {"Dockerfile": "FROM scratch\nCOPY a b /d/\n", "a": "1", "b": "2"}))
    tare(own, "build", "-o", str(tmp_path / "out"), "-o", f"type=tar,dest={tmp_path}/x.tar", where)
    assert (tmp_path / "out/d/a").read_text() == "1"
    with tarfile.open(tmp_path / "x.tar") as archive:
        assert {name.removeprefix("./") for name in archive.getnames()} >= {"d", "d/a", "d/b"}
    assert images(own) == before
    done = tare(own, "build", "-o", "-", where)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert "d/b" in {name.removeprefix("./") for name in archive.getnames()}
    assert b"Successfully built" in done.stderr
    assert images(own) == before


def test_archives_of_the_image_load_again(own: Daemon, tmp_path: Path) -> None:
    where = str(write(tmp_path / "c", {"Dockerfile": "FROM busybox\nRUN echo x > /x\n"}))
    oci, docker = tmp_path / "oci.tar", tmp_path / "docker.tar"
    tare(
        own, "build", "-o", f"type=oci,dest={oci}", "-o", f"type=docker,dest={docker},name=out:1",
        "--iidfile", str(tmp_path / "id"), where,
    )  # fmt: skip
    image = (tmp_path / "id").read_text()
    assert image not in images(own)
    with tarfile.open(oci) as archive:
        assert "manifest.json" not in archive.getnames()
        index = archive.extractfile("index.json")
        assert index is not None
        assert len(json.load(index)["manifests"]) == 1
    tare(own, "load", "-i", str(docker))
    assert own.json("GET", "/images/out:1/json")["Id"] == image
    own.request("DELETE", "/images/out:1?force=1")
    tare(own, "load", "-i", str(oci))
    assert image in images(own)
    tare(own, "build", "-o", f"type=local,dest={tmp_path}/o", where)
    assert image in images(own), "an image that was there before is not the build's to remove"
    own.request("DELETE", f"/images/{image}?force=1")


def test_results_are_refused_with_a_reason(own: Daemon, tmp_path: Path) -> None:
    status, body = own.request("GET", "/tare/v1/builds/sha256:0000/result?type=tar")
    assert (status, b"No such image" in body) == (404, True)
    image = own.json("GET", "/images/busybox/json")["Id"]
    status, body = own.request("GET", f"/tare/v1/builds/{image}/result?type=zip&last=1")
    assert (status, b"local, tar, oci, docker" in body) == (400, True)
    said = api_build(own, {"Dockerfile": "FROM scratch\n"}, outputs='[{"Type":"zip"}]')
    assert "unknown type of output" in said[0]["message"]
    where = str(write(tmp_path / "c", {"Dockerfile": "FROM busybox\nRUN exit 4\n"}))
    tare(own, "build", "-o", str(tmp_path / "out"), where, code=4)
    assert not (tmp_path / "out").exists()


def test_the_stock_command_line_still_builds_after_all(own: Daemon, tmp_path: Path) -> None:
    where = str(write(tmp_path / "c", {"Dockerfile": "FROM busybox\nMAINTAINER me\n"}))
    done = subprocess.run(
        ["docker", "-H", own.host, "build", "-t", "one:1", "-t", "two:2", "--label", "a=b",
         "--iidfile", str(tmp_path / "id"), where],
        env={**os.environ, "DOCKER_BUILDKIT": "0", "DOCKER_CONFIG": "/nonexistent"},
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    image = own.json("GET", "/images/one:1/json")
    assert image["Id"] == own.json("GET", "/images/two:2/json")["Id"] == (tmp_path / "id").read_text()
    assert image["Config"]["Labels"] == {"a": "b"}
    for name in ("one:1", "two:2"):
        own.request("DELETE", f"/images/{name}")


# -- one layer


def test_squashed_layers_are_one_and_hold_the_same_files(own: Daemon, tmp_path: Path) -> None:
    files = {
        "Dockerfile": "FROM under\n"
        "RUN mkdir /d && echo secret > /d/gone && echo 1 > /d/stays && ln /d/stays /d/again && rm -r /low\n"
        "RUN rm /d/gone && mkdir /low && echo new > /low/new\n"
        "COPY a /d/\n",
        "a": "a",
    }
    under = {"Dockerfile": "FROM busybox\nRUN mkdir /low && echo old > /low/old\n"}
    tare(own, "build", "-q", "-t", "under", str(write(tmp_path / "under", under)))
    where = str(write(tmp_path / "c", files))
    tare(own, "build", "-q", "-t", "whole", where)
    tare(own, "build", "-q", "-t", "flat", "--squash", where)
    base = own.json("GET", "/images/under/json")
    whole, flat = (own.json("GET", f"/images/{name}/json") for name in ("whole", "flat"))
    assert len(flat["RootFS"]["Layers"]) == len(base["RootFS"]["Layers"]) + 1
    history = own.json("GET", "/images/flat/history")
    assert history[0]["Comment"] == f"merge {whole['Id']} to {base['Id']}"
    assert not tare(own, "diff", "whole", "flat").stdout
    listing = tare(own, "run", "--rm", "flat", "sh", "-c", "ls /d; ls /low; stat -c %h /d/stays").stdout.split()
    assert listing == [b"a", b"again", b"stays", b"new", b"2"]
    for name in ("whole", "flat", "under"):
        own.request("DELETE", f"/images/{name}?force=1")


def test_squashed_layers_of_zeros_are_no_bomb(own: Daemon, tmp_path: Path) -> None:
    """Their blobs expand a thousand times: when they are joined, and when something first stands on what was made."""
    size = 120_000_000
    run = f"RUN head -c {size} /dev/zero > "
    where = str(write(tmp_path / "c", {"Dockerfile": f"FROM busybox\n{run}/a\n{run}/b\n"}))
    tare(own, "build", "-q", "-t", "zeros", "--squash", where)
    base, made = (own.json("GET", f"/images/{name}/json") for name in ("busybox", "zeros"))
    assert len(made["RootFS"]["Layers"]) == len(base["RootFS"]["Layers"]) + 1
    assert tare(own, "run", "--rm", "zeros", "stat", "-c", "%s", "/a", "/b").stdout.split() == [b"%d" % size] * 2
    own.request("DELETE", "/images/zeros?force=1")


# -- what is unwise


def test_a_check_builds_nothing_and_a_build_says_the_same(own: Daemon, tmp_path: Path) -> None:
    before = images(own)
    text = "FROM busybox AS Big\nRUN exit 3\nCMD $HOME $NOTHING\nCOPY $NOTHING/a /\n"
    where = str(write(tmp_path / "c", {"Dockerfile": text, ".dockerignore": "b\n"}))
    said = tare(own, "build", "--check", where, code=1).stdout.decode()
    assert "Check complete, 3 warnings have been found!" in said
    assert "WARNING: StageNameCasing - https://" in said
    assert "Usage of undefined variable '$NOTHING'\nDockerfile:4\n" in said
    assert images(own) == before
    well = str(write(tmp_path / "w", {"Dockerfile": "FROM busybox\n"}))
    assert tare(own, "build", "--check", well).stdout == b"Check complete, no warnings found.\n"
    told = api_build(own, {"Dockerfile": "FROM busybox\nMAINTAINER me\n"})
    text = "".join(message.get("stream", "") for message in told)
    rule = (
        "[Warning] MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (Dockerfile:2)\n"
    )
    assert f"{rule}Successfully built" in text
    refused = api_build(own, {"Dockerfile": "# check=error=true\nFROM busybox\nMAINTAINER me\n"})
    assert refused == [{"message": "lint violation found for rules: MaintainerDeprecated"}]
    made = next(message["aux"]["ID"] for message in told if "aux" in message)
    own.request("DELETE", f"/images/{made}?force=1")


# -- further contexts, caches that begin with files, agents


def test_directories_and_images_are_further_contexts(own: Daemon, tmp_path: Path) -> None:
    write(tmp_path / "lib", {"a.txt": "from lib\n", "no.txt": "x", ".dockerignore": "no.txt\n"})
    os.link(tmp_path / "lib/a.txt", tmp_path / "lib/b.txt")
    text = (
        "FROM scratch AS stage\nCOPY absent /\n"
        "FROM base\nCOPY --from=lib . /lib/\nCOPY --from=stage a.txt /stage\n"
        "RUN --mount=from=lib,target=/m cat /m/a.txt /lib/b.txt /stage; ls -A /lib; ! ls -d /.tare*\n"
        "COPY . /own/\nRUN ls -A /own\n"
    )
    where = str(write(tmp_path / "c", {"Dockerfile": text}))
    words = [
        "build", "--build-context", f"lib={tmp_path}/lib", "--build-context", f"stage={tmp_path}/lib",
        "--build-context", "base=docker-image://busybox", "--output", f"type=tar,dest={tmp_path}/t", where,
    ]  # fmt: skip
    said = tare(own, *words).stdout.decode()
    assert "from lib\nfrom lib\nfrom lib\n" in said
    assert ".dockerignore\na.txt\nb.txt\n" in said
    assert "Running in" in said
    assert tare(own, *words).stdout.decode().count("Using cache") == 5
    (tmp_path / "lib/a.txt").write_text("changed\n")
    assert "changed\nchanged\nchanged\n" in tare(own, *words).stdout.decode()
    files = str(write(tmp_path / "f", {"Dockerfile": "FROM lib\n"}))
    wrong = tare(own, "build", "--build-context", f"lib={tmp_path}/lib", files, code=1)
    assert b"files, not an image" in wrong.stderr


def test_a_cache_mount_begins_with_the_files_of_a_stage(own: Daemon) -> None:
    text = (
        "FROM busybox AS seed\nRUN mkdir -p /s/d && echo {0} > /s/d/x\nFROM busybox\n"
        "RUN --mount=type=cache,target=/c,from=seed,source=/s,uid=7,mode=0700 "
        "cat /c/d/x && stat -c %u:%a /c && echo more >> /c/d/x\n"
    )
    for seed, expected in (("one", "one\n7:700"), ("one", "one\nmore\n7:700"), ("two", "two\n7:700")):
        said = api_build(own, {"Dockerfile": text.format(seed)}, nocachefilter="1", outputs='[{"Type":"tar"}]')
        told = "".join(message.get("stream", "") for message in said)
        assert expected in told, told
        image = next(message["aux"]["ID"] for message in said if "aux" in message)
        own.request("GET", f"/tare/v1/builds/{image}/result?type=tar&last=1")


def test_a_step_reaches_the_agent_and_the_key_is_nowhere(own: Daemon, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "the-key", "-f", str(key)], check=True)
    text = (
        "FROM busybox\n"
        "RUN --mount=type=ssh,required=true,uid=5 stat -c %u:%a $SSH_AUTH_SOCK && test -S /run/buildkit/ssh_agent.0\n"
        'RUN test -z "$SSH_AUTH_SOCK" && ! test -S /run/buildkit/ssh_agent.0\n'
    )
    where = str(write(tmp_path / "c", {"Dockerfile": text}))
    said = tare(own, "build", "--ssh", f"default={key}", "-o", f"type=tar,dest={tmp_path}/t", where).stdout
    assert b"5:600\n" in said
    assert key.read_text() not in said.decode()
    missing = tare(own, "build", where, "--no-cache", code=1)
    assert b"ssh agent default: not found: give it with --ssh default" in missing.stderr
    status, body = own.request("POST", "/v1.51/build", body=b"", headers={"X-Tare-Ssh": "eyJhIjoiL2V0Yy9wYXNzd2QifQ"})
    assert (status, b"is no socket" in body) == (400, True)
    assert not list((own.exec_root / "builds").glob("*"))


# -- the cache's size


def test_the_cache_is_kept_within_its_size(scratch: Path, rootfs_tar: bytes) -> None:
    engine = Daemon(
        scratch / "bound", bridge="ttbmb0", source=REPOSITORY / "src", arguments=["--builder-cache-size", "2m"]
    )
    engine.start()
    try:
        engine.import_image("busybox:latest", rootfs_tar)
        text = (
            "FROM busybox\nRUN --mount=type=cache,id={0},target=/c head -c 1500000 /dev/urandom > /c/x; "
            "head -c 1000000 /dev/urandom > /{0}\n"
        )

        def kept() -> tuple[list[str], int]:
            records = engine.json("GET", "/system/df?type=build-cache")["BuildCache"] or []
            return [record["Description"][-1] for record in records], len(os.listdir(engine.data_root / "buildcache"))

        for name in ("a", "b"):
            done = api_build(engine, {"Dockerfile": text.format(name)}, outputs='[{"Type":"tar"}]')
            assert not [message for message in done if "error" in message], done
            image = next(message["aux"]["ID"] for message in done if "aux" in message)
            engine.request("GET", f"/tare/v1/builds/{image}/result?type=tar&last=1")
        # The second build found the first one's image gone: its step and its mount were the longest unused.
        assert kept() == (["b"], 1)
        engine.json("GET", "/info")
    finally:
        engine.destroy()


def test_what_was_read_is_told_and_no_secret(own: Daemon, tmp_path: Path) -> None:
    where = str(write(tmp_path / "c", {"Dockerfile": "FROM busybox\nARG V\nARG API_TOKEN\nCOPY a /\n", "a": "1"}))
    tare(
        own, "build", "-t", "told", "--provenance=mode=max", "--build-arg", "V=1", "--build-arg", "API_TOKEN=hush-hush",
        "--metadata-file", str(tmp_path / "m"), where,
    )  # fmt: skip
    written = (tmp_path / "m").read_text()
    definition = json.loads(written)["buildx.build.provenance"]["buildDefinition"]
    assert definition["externalParameters"]["request"]["args"] == {"V": "1"}
    base = own.json("GET", "/images/busybox/json")["Id"].removeprefix("sha256:")
    read = {item["uri"]: item["digest"] for item in definition["resolvedDependencies"]}
    assert read["docker-image://docker.io/library/busybox:latest"] == {"sha256": base}
    assert "context:context" in read
    statement = own.json("GET", "/tare/v1/builds/told/provenance")
    assert statement["subject"][0]["name"] == "docker.io/library/told:latest"
    assert "hush-hush" not in json.dumps(statement) + written
    own.request("DELETE", "/images/told?force=1")
    status, body = own.request("GET", "/tare/v1/builds/busybox/provenance")
    assert (status, b"--provenance" in body or b"no provenance" in body) == (404, True)


# -- hard cases


def test_a_step_that_wants_too_much_memory_ends_with_137(own: Daemon) -> None:
    before = images(own)
    said = api_build(own, {"Dockerfile": "FROM busybox\nRUN tail /dev/zero\n"}, memory=32 << 20, memswap=32 << 20)
    failed = said[-1]["errorDetail"]
    assert failed == {"code": 137, "message": "The command '/bin/sh -c tail /dev/zero' returned a non-zero code: 137"}
    assert images(own) == before


def test_a_secret_is_no_part_of_the_key_of_its_step(own: Daemon, tmp_path: Path) -> None:
    text = "FROM busybox\nRUN --mount=type=secret,id=s test -s /run/secrets/s && echo done > /done\n"
    where = str(write(tmp_path / "c", {"Dockerfile": text}))
    words = ("build", "--secret", "id=s,env=S", "-o", f"type=tar,dest={tmp_path}/t", where)
    assert b"Using cache" not in tare(own, *words, environ={"S": "first-secret"}).stdout
    done = tare(own, *words, environ={"S": "second-secret"})
    assert b"Using cache" in done.stdout
    assert b"-secret" not in own.log.read_bytes() + done.stdout + (tmp_path / "t").read_bytes()


@pytest.mark.parametrize("after", ["Step 1/4", "Step 2/4", "Running in"])
def test_a_build_that_is_cancelled_leaves_nothing(own: Daemon, tmp_path: Path, after: str) -> None:
    before = images(own)
    text = "FROM busybox\nCOPY a /a\nRUN while :; do sleep 1; done\nCOPY a /b\n"
    where = str(write(tmp_path / "c", {"Dockerfile": text, "a": after}))
    process = subprocess.Popen(
        [sys.executable, "-m", "tare.cli", "-H", own.host, "build", where],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "DOCKER_CONFIG": "/nonexistent"},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    with process, process.stdout, process.stderr:
        assert any(after.encode() in line for line in process.stdout)
        process.terminate()
    assert gone(own.data_root / "builds")
    assert images(own) == before


def test_a_client_that_leaves_while_git_waits_leaves_nothing(own: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(own.socket))
        remote = f"git://127.0.0.1:{silent.getsockname()[1]}/x.git"
        client.sendall(f"POST /build?remote={remote} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        silent.settimeout(20)
        connection, _ = silent.accept()
        with connection:
            connection.settimeout(20)
            assert os.listdir(own.data_root / "builds")
            client.close()
            while connection.recv(4096):  # what git asks for, and then its end
                pass
    assert gone(own.data_root / "builds")


def test_a_client_that_leaves_while_a_base_is_pulled_leaves_nothing(own: Daemon) -> None:
    before = images(own)
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(own.socket))
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            text = f"FROM 127.0.0.1:{silent.getsockname()[1]}/never\nRUN true\n".encode()
            info = tarfile.TarInfo("Dockerfile")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
        head = f"POST /build HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: {len(out.getvalue())}"
        client.sendall(f"{head}\r\n\r\n".encode() + out.getvalue())
        silent.settimeout(20)
        connection, _ = silent.accept()
        with connection:
            connection.settimeout(20)
            assert os.listdir(own.data_root / "builds")
            client.close()
            while connection.recv(4096):  # what it asks the registry for, and then its end
                pass
    assert gone(own.data_root / "builds")
    assert images(own) == before


def gone(directory: Path) -> bool:
    """Wait until the directory is empty: inotify tells of each change."""
    with Alarm(directory) as alarm:
        while os.listdir(directory):
            alarm.wait()
    return True
