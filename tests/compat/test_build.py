"""The build request of tare and of the stock docker, for the same words and directory: query and tar the same."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_SPEC = importlib.util.spec_from_file_location("compat_recorder", Path(__file__).with_name("recorder.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
_RECORDER = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _RECORDER
_SPEC.loader.exec_module(_RECORDER)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Any]:
    found = _RECORDER.Recorder(tmp_path)
    yield found
    found.close()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    (root / "a/b").mkdir(parents=True)
    (root / "skip/deep").mkdir(parents=True)
    (root / "Dockerfile").write_text("FROM x\n")
    (root / "other.Dockerfile").write_text("FROM y\n")
    (root / "a/b/file").write_text("text")
    (root / "a/b/file").chmod(0o4755)
    os.link(root / "a/b/file", root / "a/hard")
    os.symlink("../b/nowhere", root / "a/link")
    os.mkfifo(root / "fifo")
    (root / "ünï").mkdir()
    (root / ("long" * 60)).write_text("long")
    for name in ("skip/one", "skip/keep", "skip/deep/keep"):
        (root / name).write_text(name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    (tmp_path / "outside").write_text("FROM z\n")
    return root


WORDS = [
    "{context}",
    "-f {context}/other.Dockerfile {context}",
    "-f {context}/../outside {context}",
    "-f - {context}",
    "--compress {context}",
    "-f {context}/nosuch {context}",
    "{context}/Dockerfile",
    "{context}/nosuch",
    "-",
    "-f - -",
    "-f x -",
    "-q -t a:1 --tag b --build-arg A=1 --build-arg HOME --build-arg NOT_SET_ANYWHERE --label x=y --label z {context}",
    "--ulimit nofile=1:2 --ulimit core=0 --cache-from a,b --cache-from c --add-host h=1.2.3.4 --network host {context}",
    "-m 1g --memory-swap -1 --shm-size 1m -c 5 --cpuset-cpus 0 --cpuset-mems 1 --cpu-period 7 --cpu-quota 8 {context}",
    "--cgroup-parent g --pull --no-cache --rm=false --force-rm --security-opt s --isolation i --target t {context}",
    "--platform linux/AMD64 {context}",
    "-t A:b {context}",
    "--label =x {context}",
    "--build-arg =x {context}",
    "--ulimit x {context}",
    "--add-host x {context}",
    "-m x {context}",
    "a b",
    "",
]
RULES = [
    "",
    "skip\na\n",
    "*\n!skip/keep\n",
    "**/keep\n# a\nDockerfile\n.dockerignore\n",
    "skip\n!skip/deep\n",
    "/a/b\n",
]


def _settled(requests: list[Any]) -> list[Any]:
    """Without pings and version, in the order of names, with one name and time for a Dockerfile that was added."""
    found = []
    for method, target, body in requests:
        if target.endswith("_ping"):
            continue
        members = body
        if isinstance(body, list):
            added = {m[0] for m in body if m[0].startswith(".dockerfile.")} | {"Dockerfile"}
            if any(name != "Dockerfile" for name in added):
                added.add(".dockerignore")  # written anew as well
            members = sorted(_plain((*m[:3], 0 if m[0] in added else m[3], *m[4:])) for m in body)
        found.append((method, _plain_text(target.partition("/build")[2]), members))
    return found


def _plain(member: tuple[Any, ...]) -> tuple[Any, ...]:
    text = member[-1]
    return (_plain_text(member[0]), *member[1:-1], _plain_text(text.decode()) if text is not None else "")


def _plain_text(text: str) -> str:
    return re.sub(r"\.dockerfile\.[0-9a-f]{20}", ".dockerfile.X", text)


def _same(run: Callable[..., Any], host: str, recorder: Any, words: list[str]) -> tuple[Any, ...]:
    recorder.requests.clear()
    said = run(host, "build", *words, stdin="FROM stdin\n")
    # docker says that its builder is deprecated, that it leaves sockets out, and after a failure with -q how much it sent.
    text = re.sub(r"DEPRECATED: .*\n(?: .*\n)*\n", "", said.err)
    text = re.sub(r"time=.* sockets not supported\"\n", "", text).replace("tarefile", "dockerfile")
    text = re.sub(r"Sending build context .*\n+", "", text)
    return said.code, text, _settled(recorder.requests)


@pytest.mark.parametrize("line", WORDS)
def test_same_request_same_error(
    line: str, recorder: Any, context: Path, docker: Callable[..., Any], tare: Callable[..., Any]
) -> None:
    words = [word.format(context=context) for word in line.split()]
    assert _same(tare, recorder.host, recorder, words) == _same(docker, recorder.host, recorder, words)


@pytest.mark.parametrize("file", ["", "-"])
@pytest.mark.parametrize("rules", RULES)
def test_same_files_for_the_same_rules(
    rules: str, file: str, recorder: Any, context: Path, docker: Callable[..., Any], tare: Callable[..., Any]
) -> None:
    (context / ".dockerignore").write_text(rules)
    words = ["-f", file, str(context)] if file else [str(context)]
    assert _same(tare, recorder.host, recorder, words) == _same(docker, recorder.host, recorder, words)
