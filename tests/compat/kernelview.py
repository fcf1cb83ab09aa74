"""What the kernel knows of a container, read from /proc, /sys/fs/cgroup and the runtime's own bundle: never from inspect."""

from __future__ import annotations

import functools
import json
import os
import re
import stat
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Run = Callable[..., Any]

_FLAG = re.compile(r"^ +(?:-(\w), |    )--([a-z0-9-]+)", re.MULTILINE)


def flags_of(run: Run, host: str, command: str) -> dict[str, str]:
    """Every flag that `docker COMMAND --help` lists: the long form, and the same for its short form."""
    said = run(host, *command.split(), "--help")
    assert said.code == 0, said.err
    found: dict[str, str] = {}
    for short, long in _FLAG.findall(said.out):
        found[f"--{long}"] = f"--{long}"
        if short:
            found[f"-{short}"] = f"--{long}"
    assert "--help" in found or len(found) >= 1, said.out
    found.pop("--help", None)
    return found


def used(words: tuple[str, ...], known: Mapping[str, str]) -> set[str]:
    """The long names of the flags among these words; those that help does not list are left out."""
    return {known[flag] for word in words if (flag := word.partition("=")[0]) in known}


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo. options: those of the mount and those of the file system."""

    type: str
    source: str
    root: str
    options: frozenset[str]
    propagation: str


class Box:
    """A running container."""

    def __init__(self, host: str, run: Run, name: str, said: Any = None) -> None:
        self.host, self.name, self.said, self._run = host, name, said, run

    @functools.cached_property
    def inspect(self) -> dict[str, Any]:
        """Docker's view, once."""
        found = self._run(self.host, "inspect", self.name)
        assert found.code == 0, found.err
        return dict(json.loads(found.out)[0])

    def shown(self, path: str) -> object:
        """A value of inspect by its dotted path."""
        value: Any = self.inspect
        for part in path.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        return value

    @property
    def pid(self) -> int:
        """Of the first process, on the host."""
        return int(self.inspect["State"]["Pid"])

    def refresh(self) -> Box:
        """Look anew: after a restart or an update."""
        return Box(self.host, self._run, self.name, self.said)

    def proc(self, name: str) -> str:
        """A file of /proc/PID."""
        return Path(f"/proc/{self.pid}/{name}").read_text()

    def words(self, name: str) -> list[str]:
        """cmdline or environ."""
        return self.proc(name).rstrip("\0").split("\0")

    def status(self, *keys: str) -> tuple[str, ...]:
        """Lines of /proc/PID/status, tabs as blanks."""
        return tuple(status_lines(self.proc("status"))[key] for key in keys)

    def limit(self, name: str) -> tuple[str, str]:
        """Soft and hard, from /proc/PID/limits."""
        for line in self.proc("limits").splitlines():
            if line.startswith(name + " "):
                return (line[26:].split()[0], line[26:].split()[1])
        raise KeyError(name)

    def ns(self, kind: str) -> str:
        """Which namespace."""
        return os.readlink(f"/proc/{self.pid}/ns/{kind}")

    def shares(self, kind: str, other: int | None = None) -> bool:
        """Whether the namespace is that of another process (None: ours)."""
        return self.ns(kind) == os.readlink(f"/proc/{other or 'self'}/ns/{kind}")

    def root(self, path: str) -> Path:
        """A file inside, seen from outside (no absolute links on the way)."""
        return Path(f"/proc/{self.pid}/root{path}")

    def mounts(self) -> dict[str, Mount]:
        """mountinfo by mount point; of several on one place the last."""
        found: dict[str, Mount] = {}
        for line in self.proc("mountinfo").splitlines():
            left, _, right = line.partition(" - ")
            fields, tail = left.split(), right.split()
            found[fields[4]] = Mount(
                type=tail[0],
                source=tail[1],
                root=fields[3],
                options=frozenset(fields[5].split(",")) | frozenset(tail[2].split(",")),
                propagation=" ".join(re.sub(r":\d+", "", word) for word in fields[6:]),
            )
        return found

    def mount(self, target: str, *options: str) -> tuple[str, tuple[str, ...]]:
        """The type of a mount, and which of these options it has."""
        found = self.mounts()[target]
        return found.type, tuple(option for option in options if option in found.options)

    def group(self, controller: str) -> str:
        """The path of its control group in a hierarchy ("" is v2's)."""
        for line in self.proc("cgroup").splitlines():
            _, names, path = line.split(":", 2)
            if controller in names.split(","):
                return path
        raise KeyError(controller)

    def cgroup(self, controller: str, file: str) -> str:
        """A file of its control group, trimmed."""
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            left, _, right = line.partition(" - ")
            kind, _, options = right.split(" ", 2)
            if kind == "cgroup" and controller in options.split(","):
                return (Path(left.split()[4]) / self.group(controller).lstrip("/") / file).read_text().strip()
        raise KeyError(controller)

    def device(self, path: str) -> tuple[str, int, int]:
        """Kind and numbers of a node."""
        found = self.root(path).stat()
        kind = "c" if stat.S_ISCHR(found.st_mode) else "b" if stat.S_ISBLK(found.st_mode) else "-"
        return kind, os.major(found.st_rdev), os.minor(found.st_rdev)

    def inside(self, *argv: str) -> str:
        """What a command in it prints, trimmed."""
        said = self._run(self.host, "exec", self.name, *argv)
        assert said.code == 0, said.err
        return str(said.out).strip()

    def monitor(self) -> list[str]:
        """The command line of the process that holds it: conmon's, with the runtime and the bundle."""
        parent = status_lines(self.proc("status"))["PPid"]
        return Path(f"/proc/{parent}/cmdline").read_text().rstrip("\0").split("\0")

    def bundle(self) -> dict[str, Any]:
        """The OCI specification that the runtime was given."""
        argv = self.monitor()
        return dict(json.loads((Path(argv[argv.index("--bundle") + 1]) / "config.json").read_text()))


def status_lines(text: str) -> dict[str, str]:
    """/proc/PID/status as a dict."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {key: " ".join(value.split()) for key, _, value in pairs}


def new_name() -> str:
    """A name for a container of a test."""
    return f"tare-view-{uuid.uuid4().hex[:10]}"
