"""Output, error texts and exit codes of tare and of the stock docker on one engine."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.root

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def box(engine_host: str, docker: Run) -> Iterator[str]:
    """A running container with a port, labels and some output; removed afterwards."""
    name = f"tare-compat-{uuid.uuid4().hex[:8]}"
    words = ("sh", "-c", "echo out; echo err >&2; sleep 1000")
    made = docker(engine_host, "run", "-d", "--name", name, "-l", "a=1", "-l", "b.c-d=2", "busybox", *words)
    assert made.code == 0, made.err
    yield name
    docker(engine_host, "rm", "-fv", name)


READS = [
    "ps -a --filter name={box}",
    "ps -as --no-trunc --filter name={box}",
    "ps -aq --filter name={box}",
    "ps --format json --filter name={box}",
    'ps --format {{{{.Names}}}}|{{{{.Label\t"a"}}}}|{{{{.State}}}} --filter name={box}',
    "images --no-trunc busybox",
    "images -q busybox",
    "images --format {{{{.Repository}}}}:{{{{.Tag}}}}|{{{{.Size}}}} busybox",
    "history busybox",
    "history --no-trunc --format json busybox",
    "inspect {box}",
    "inspect busybox {box}",
    "inspect -f {{{{.State.Status}}}}{{{{.Config.Labels}}}}{{{{json\t.Args}}}} {box}",
    "inspect -f {{{{.Nope}}}} {box}",
    "inspect -f {{{{range\t$k,$v:=.NetworkSettings.Networks}}}}{{{{$k}}}}{{{{$v.IPAddress}}}}{{{{end}}}} {box}",
    "logs {box}",
    "logs -t {box}",
    "logs --tail 1 {box}",
    "top {box}",
    "diff {box}",
    "port {box}",
    "exec {box} sh -c exit\t3",
    "exec {box} /nosuch",
    "network ls",
    "volume ls",
    "version -f {{{{.Server.Version}}}}{{{{.Server.APIVersion}}}}",
    "info -f {{{{.NCPU}}}}",
]

BAD = [
    "ps -Z",
    "ps x",
    "ps --last x",
    "ps --format {{{{.Foo}}}}",
    "ps --format {{{{",
    "ps -f nonsense=1",
    "inspect nosuch-thing",
    "inspect --type image nosuch-thing",
    "rm nosuch-thing",
    "kill nosuch-thing",
    "logs nosuch-thing",
    "start nosuch-thing",
    "stop",
    "run",
    "run --nope busybox",
    "run -m abc busybox",
    "run --rm busybox /nosuch",
    "run --rm busybox /etc/passwd",
    "run --rm busybox sh -c exit\t7",
    "run --pull never nosuch-thing",
    "run -d --name {box} busybox",
    "create --name {box} busybox",
    "rename {box}",
    "wait nosuch-thing",
    "tag nosuch-thing x",
    "rmi nosuch-thing",
    "volume inspect nosuch-thing",
    "network rm nosuch-thing",
    "cp a b",
    "cp nosuch-thing:/x /tmp",
    "-H tcp://127.0.0.1:1 ps",
    "nosuch-command",
    "container nosuch-command",
]


@pytest.mark.parametrize("words", [*READS, *BAD])
def test_same_bytes(words: str, box: str, engine_host: str, docker: Run, tare: Run) -> None:
    argv = [word.replace("\t", " ") for word in words.format(box=box).split(" ")]
    before = docker(engine_host, *argv)
    ours = tare(engine_host, *argv)
    if ours != before:  # a clock may have moved on: "47 seconds ago"
        assert ours == docker(engine_host, *argv)


def test_stdin_reaches_the_program_and_ends(engine_host: str, docker: Run, tare: Run) -> None:
    argv = ("run", "-i", "--rm", "busybox", "sh", "-c", "wc -c; echo done >&2; exit 4")
    text = "x" * 300_000
    assert tare(engine_host, *argv, stdin=text) == docker(engine_host, *argv, stdin=text)
