"""What Puppet's docker module types: the same commands, and the same questions by which it decides to do nothing.

A resource is applied by asking first and acting only if the answer says so; a second pass must find nothing to do. The
commands and conditions are those of puppetlabs-docker (docker::image, docker::run, docker::exec, docker_network,
docker_volume and its facts), on a machine that is not Windows.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root


class Node:
    """A machine that Puppet looks after: commands go through a shell, as its `exec` does."""

    def __init__(self, host: str, directory: Path) -> None:
        self.directory = directory
        self._environment = {**os.environ, "DOCKER_HOST": host, "HOME": str(directory)}
        self.changes: list[str] = []

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "-c", command], capture_output=True, text=True, env=self._environment, timeout=60, check=False
        )

    def holds(self, command: str) -> bool:
        """Whether a condition is met."""
        return self.shell(command).returncode == 0

    def read(self, command: str) -> str:
        done = self.shell(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def change(self, command: str) -> None:
        self.read(command)
        self.changes.append(command)


@dataclass(frozen=True)
class Exec:
    """An `exec`: done unless one condition holds, and only if the other does."""

    command: str
    unless: str = ""
    onlyif: str = ""

    def apply(self, node: Node) -> None:
        if self.unless and node.holds(self.unless):
            return
        if self.onlyif and not node.holds(self.onlyif):
            return
        node.change(self.command)


@dataclass(frozen=True)
class Image:
    """docker::image with a tag: from a tar or a directory, or absent."""

    name: str
    tag: str
    source: str = ""
    is_absent: bool = False

    def apply(self, node: Node) -> None:
        found = f"docker images -q {self.name}:{self.tag} | grep ."
        if self.is_absent:
            Exec(f"docker rmi {self.name}:{self.tag}", onlyif=found).apply(node)
        elif self.source.endswith(".tar"):
            Exec(f"docker load -i {self.source}", unless=found).apply(node)
        else:
            Exec(f"docker build -t {self.name}:{self.tag} {self.source}", unless=found).apply(node)


@dataclass(frozen=True)
class Network:
    """docker_network: there by name; what is there is never changed."""

    name: str
    flags: Sequence[str] = ()
    is_absent: bool = False

    def apply(self, node: Node) -> None:
        there: dict[str, Any] = {}
        for line in node.read("docker network ls").splitlines()[1:]:
            _, name, driver = line.split()[:3]
            found = json.loads(node.read(f"docker network inspect {name}"))[0]
            config = found["IPAM"]["Config"]
            subnet = config[0].get("Subnet") if config else None
            there[name] = (found["Id"], driver, found["IPAM"]["Driver"], subnet)
        if self.is_absent and self.name in there:
            node.change(f"docker network rm {self.name}")
        elif not self.is_absent and self.name not in there:
            node.change(" ".join(["docker network create", *self.flags, self.name]))
        elif not self.is_absent:
            asked = dict(flag.removeprefix("--").split("=", 1) for flag in self.flags)
            assert there[self.name][1:] == (asked["driver"], asked.get("ipam-driver", "default"), asked["subnet"])


@dataclass(frozen=True)
class Volume:
    """docker_volume: there by name."""

    name: str
    flags: Sequence[str] = ()
    is_absent: bool = False

    def apply(self, node: Node) -> None:
        there: dict[str, Any] = {}
        for line in node.read("docker volume ls").splitlines()[1:]:
            driver, name = line.split()
            found = json.loads(node.read(f"docker volume inspect {name}"))[0]
            there[name] = (driver, found["Mountpoint"], found["Options"])
        if self.is_absent and self.name in there:
            node.change(f"docker volume rm {self.name}")
        elif not self.is_absent and self.name not in there:
            node.change(" ".join(["docker volume create", *self.flags, self.name]))


@dataclass(frozen=True)
class Container:
    """docker::run with `restart`: made again when image, volumes or ports differ from what inspect says."""

    name: str
    image: str
    command: str
    flags: Sequence[str] = ()
    volumes: Sequence[str] = ()
    ports: Sequence[str] = ()
    is_running: bool = True
    is_absent: bool = False
    unless: Sequence[str] = field(default=())

    def apply(self, node: Node) -> None:
        cid = node.directory / f"docker-{self.name}.cid"
        seen = f"docker inspect {self.name}"
        running = f'docker inspect {self.name} -f "{{{{ .State.Running }}}}" | grep true'
        if self.is_absent:
            Exec(f"docker stop --time=0 {self.name}", onlyif=seen).apply(node)
            Exec(f"docker rm -v {self.name}", onlyif=seen).apply(node)
            cid.unlink(missing_ok=True)
            return
        if node.holds(seen):
            if self._differs(json.loads(node.read(seen))[0]):
                node.change(f"docker stop --time=0 {self.name}")
                node.change(f"docker rm -v {self.name}")
                cid.unlink()
                node.change(self._run(cid))
        else:
            node.change(self._run(cid))
        if self.is_running:
            Exec(f"docker start {self.name}", unless=running).apply(node)
        else:
            Exec(f"docker stop --time=0 {self.name}", onlyif=running).apply(node)
        unhealthy = f"docker inspect {self.name} -f '{{{{ if eq \"unhealthy\" .State.Health.Status }}}} {{{{ .Name }}}}{{{{ end }}}}'"
        Exec(f"docker restart {self.name}", onlyif=f"{unhealthy} | grep {self.name}").apply(node)

    def _run(self, cid: Path) -> str:
        flags = [*self.flags, *(f"-p {port}" for port in self.ports), *(f"-v {volume}" for volume in self.volumes)]
        wrapped = " \\\n".join(flags)
        return (
            f'docker run -d {wrapped} \\\n --name {self.name} --cidfile={cid} --restart="unless-stopped" '
            f"{self.image} {self.command}"
        )

    def _differs(self, found: dict[str, Any]) -> bool:
        """By the fields, and the order of the fields, that the module reads."""
        paths = [volume for volume in self.volumes if ":" not in volume]
        mounts = [volume.split(":") for volume in self.volumes if ":" in volume]
        values = [list(mount.values()) for mount in found["Mounts"]]
        names = [value[1] for value in values if value[1] in [mount[0] for mount in mounts]]
        targets = [value[3] for value in values if value[3] in [mount[1] for mount in mounts]]
        ports = [key.split("/")[0] for key in found["HostConfig"]["PortBindings"]]
        return (
            found["Config"]["Image"] != self.image
            or list(found["Config"].get("Volumes") or {}) != paths
            or names != [mount[0] for mount in mounts]
            or targets != [mount[1] for mount in mounts]
            or sorted(self.ports) != ports
        )


def site(directory: Path, **changed: Any) -> list[Any]:
    """A catalogue."""
    health = ["--health-cmd='true'", "--health-interval=30s"]
    web = {
        "flags": [
            *("-u 'root'", "-h 'web.test'", "--net puppet-net", "-m 64m", "--cpuset-cpus=0", *health, "-t"),
            *("--read-only=true", "--dns 192.0.2.53", "--dns-search corp.test", "--expose=4444", "-e 'A=1 2'"),
            *(f"--env-file {directory}/env", "-l role=web", "--add-host other:192.0.2.7", "--cap-add=SYS_NICE"),
        ],
        "volumes": ["puppet-data:/data", "/anonymous"],  # of two with names, docker itself mixes the order up
        "ports": ["8080", "8443"],
    } | changed
    ready = "docker ps --no-trunc --format='table {{.Names}}' | grep '^web$'"
    return [
        Image("puppet/base", "1", source=f"{directory}/base.tar"),
        Image("puppet/built", "1", source=str(directory)),
        Network("puppet-net", ["--driver=bridge", "--subnet=10.215.1.0/24", "--gateway=10.215.1.1", "--opt=a=b"]),
        Volume("puppet-data", ["--driver=local"]),
        Volume("puppet-logs", ["--driver=local", "--opt=type=tmpfs", "--opt=device=tmpfs"]),
        Container("db", "puppet/base:1", "sleep 1000", flags=["--privileged"]),
        Container("web", "puppet/built:1", "sleep 1000", **web),
        Container("old", "puppet/base:1", "sleep 1000", flags=["--link db:db"], is_running=False),
        Container("tool", "puppet/base:1", "sleep 1000", flags=["--volumes-from db", "--link db"], volumes=["puppet-logs:/logs:ro"]),
        Exec("docker exec -i -t=false -e X=1 web sh -c 'echo done > /data/mark'", unless="docker exec -i web test -e /data/mark"),
        Exec("docker exec --detach=true db touch /mark", onlyif=f"{ready} && ! docker exec db test -e /mark"),
    ]  # fmt: skip


def gone() -> list[Any]:
    return [
        *(Container(name, "", "", is_absent=True) for name in ("tool", "old", "web", "db")),
        Network("puppet-net", is_absent=True),
        *(Volume(name, is_absent=True) for name in ("puppet-data", "puppet-logs")),
        *(Image(f"puppet/{name}", "1", is_absent=True) for name in ("built", "base")),
    ]


@pytest.fixture
def node(engine_host: str, docker: Callable[..., Any], tmp_path: Path) -> Iterator[Node]:
    found = Node(engine_host, tmp_path)
    (tmp_path / "env").write_text("FROM_FILE=1\n")
    (tmp_path / "Dockerfile").write_text("FROM puppet/base:1\nLABEL built=yes\n")
    found.read("docker tag busybox:latest puppet/base:1")
    found.read(f"docker save -o {shlex.quote(str(tmp_path / 'base.tar'))} puppet/base:1")
    found.read("docker rmi puppet/base:1")
    yield found
    for resource in gone():
        resource.apply(found)


def applied(node: Node, resources: Sequence[Any]) -> list[str]:
    node.changes.clear()
    for resource in resources:
        resource.apply(node)
    return list(node.changes)


def test_a_catalogue_twice(node: Node) -> None:
    resources = site(node.directory)
    first = applied(node, resources)
    assert len(first) == len(resources) + 1, "each once, and `old` is stopped after it was made"
    node.read("until docker exec db test -e /mark; do :; done")
    assert applied(node, resources) == []
    assert node.read("docker ps --format '{{.Names}}' --filter name=web --filter status=running") == "web\n"
    assert (
        node.read("docker exec web sh -c 'echo $A $FROM_FILE; hostname; cat /data/mark'") == "1 2 1\nweb.test\ndone\n"
    )


def test_what_differs_is_made_again(node: Node) -> None:
    applied(node, site(node.directory))
    changed = site(node.directory, ports=["8080"])
    assert len(applied(node, changed)) == 3, "stopped, removed, run"
    assert applied(node, changed) == []
    node.read("docker kill web")
    assert applied(node, changed) == ["docker start web"]


def test_removal_is_idempotent(node: Node) -> None:
    before = _left(node)
    applied(node, site(node.directory))
    assert len(applied(node, gone())) == 4 * 2 + 1 + 2 + 2
    assert applied(node, gone()) == []
    assert _left(node) == before, "rm -v takes the anonymous volume too"


def _left(node: Node) -> list[str]:
    return [node.read(f"docker {words}") for words in ("ps -aq", "volume ls -q", "network ls -q", "images -aq")]


def test_facts(node: Node) -> None:
    """What the module's facts read: version, info, every network."""
    version = json.loads(node.read("docker version --format '{{json .}}'"))
    assert version["Client"]["Version"]
    assert version["Server"]["Version"]
    info = json.loads(node.read("docker info --format '{{json .}}'"))
    assert info == json.loads(node.read("docker system info --format '{{json .}}'")) | {
        key: info[key] for key in ("SystemTime", "NFd", "NGoroutines") if key in info
    }
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    names = [line.split()[1] for line in node.read("docker network ls | tail -n +2").splitlines()]
    assert {"bridge", "host", "none"} <= set(names)
    for name in names:
        assert json.loads(node.read(f"docker network inspect {name}"))[0]["Name"] == name
    applied(node, [Volume("puppet-data", ["--driver=local"])])
    listed = node.read("docker volume ls --format '{{.Driver}} {{.Name}} {{.Mountpoint}}' --filter name=puppet-data")
    assert listed.split()[:2] == ["local", "puppet-data"]
    assert listed.split()[2] == node.read("docker volume inspect -f '{{.Mountpoint}}' puppet-data").strip()
