"""The golden Dockerfiles: the plan of each, what tare makes of it, and that dockerd makes the same.

`builds/NAME.Dockerfile` over `context/`; `NAME.plan` is what its lines come to before anything is executed, `NAME.result`
the configuration and the files of the image. TARE_WRITE_GOLDEN=1 writes both anew, to be read before they are committed.
dockerd is held against the same files, so it needs none of its own.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tare.build.evaluate import Evaluator, Given, Platform, base_of, begin, created_by, global_arguments
from tare.build.instructions import Copy, Run, Stage, needed, parse_program
from tare.testing import reference
from tare.testing.daemon import Daemon
from tare.wire.config import ContainerConfig

HERE = Path(__file__).parent
NAMES = sorted(path.name.removesuffix(".Dockerfile") for path in (HERE / "builds").glob("*.Dockerfile"))
ARGUMENTS = {"arguments": ["GIVEN=given"]}
TARGETS = {"stages": "last"}
BUILDKIT_ONLY = ("documents", "modern")
"""What dockerd's own classic endpoint refuses; tare's takes it."""
_MADE_BY_ENGINES = {".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"}
_IS_WRITING = bool(os.environ.get("TARE_WRITE_GOLDEN"))


def make_context(directory: Path, name: str) -> Path:
    """The context with everything that a repository does not keep: modes, links, an archive."""
    shutil.copytree(HERE / "context", directory)
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (directory / "text/two.txt").chmod(0o711)
    (directory / "deep/b").chmod(0o2750)
    os.symlink("../text/one.txt", directory / "links/relative")
    os.symlink("/etc/passwd", directory / "links/absolute")
    os.symlink("nowhere", directory / "links/broken")
    os.link(directory / "links/target", directory / "links/hard")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for member, kind, mode, owner in (("pack", tarfile.DIRTYPE, 0o750, 7), ("pack/f", tarfile.REGTYPE, 0o4755, 8)):
            info = tarfile.TarInfo(member)
            info.type, info.mode, info.uid, info.gid = kind, mode, owner, owner
            tar.addfile(info)
        link = tarfile.TarInfo("pack/l")
        link.type, link.linkname = tarfile.SYMTYPE, "f"
        tar.addfile(link)
    # gzip's header has the time: it is the same archive every time
    raw = bytearray(archive.getvalue())
    raw[4:8] = bytes(4)
    (directory / "archive.tar.gz").write_bytes(raw)
    if name in BUILDKIT_ONLY:  # the classic builder loses the bit when it changes the owner
        (directory / "setuid").touch()
        (directory / "setuid").chmod(0o4711)
    shutil.copy(HERE / "builds" / f"{name}.Dockerfile", directory / "Dockerfile")
    ignore = HERE / "builds" / f"{name}.dockerignore"
    (directory / ".dockerignore").write_text(ignore.read_text() if ignore.exists() else "")
    return directory


def build(host: str, name: str, context: Path) -> str:
    """Build one with the stock command line and the classic endpoint; its reference."""
    reference = f"golden-{name}"
    words = [word for argument in ARGUMENTS.get(name, ()) for word in ("--build-arg", argument)]
    words += ["--target", TARGETS[name]] if name in TARGETS else []
    _docker(host, "build", "-t", reference, *words, str(context))
    return reference


def result_of(host: str, reference: str, base: str) -> str:
    """Configuration, and every path that is not in the base as it is there; for people to compare."""
    [found] = json.loads(_docker(host, "image", "inspect", reference))
    config = {key: value for key, value in found["Config"].items() if value and key not in ("Hostname", "Image")}
    before, after = _tree(host, base), _tree(host, reference)
    lines = [json.dumps(config, indent=1, sort_keys=True), ""]
    lines += [f"{path} {about}" for path, about in sorted(after.items()) if before.get(path) != about]
    lines += [f"{path} is gone" for path in sorted(before.keys() - after.keys())]
    return "\n".join(lines) + "\n"


def _tree(host: str, reference: str) -> dict[str, str]:
    container = _docker(host, "create", reference, "true").decode().strip()
    try:
        raw = _docker(host, "export", container)
    finally:
        _docker(host, "rm", "-v", container)
    found: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        for member in tar:
            path = member.name.removeprefix("./").rstrip("/")
            if path in _MADE_BY_ENGINES or (
                path.split("/")[0] in ("dev", "proc", "sys", "etc", "") and not member.isreg()
            ):
                continue
            found[path] = _about(tar, member)
    return found


def _about(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    owner = f"{member.mode & 0o7777:04o} {member.uid}:{member.gid}"
    if member.isreg():
        file = tar.extractfile(member)
        assert file is not None
        data = file.read()
        shown = repr(data.decode()) if len(data) < 80 and data.isascii() else hashlib.sha256(data).hexdigest()[:16]
        return f"file {owner} {shown}"
    if member.issym():
        return f"link {member.uid}:{member.gid} to {member.linkname}"
    if member.islnk():
        return f"same as {member.linkname.removeprefix('./')}"
    kind = "directory" if member.isdir() else "fifo" if member.isfifo() else "device"
    return f"{kind} {owner}" + (f" {member.devmajor}:{member.devminor}" if kind == "device" else "")


def _compare(kind: str, name: str, found: str) -> None:
    path = HERE / "builds" / f"{name}.{kind}"
    if _IS_WRITING:
        path.write_text(found)
    assert found == path.read_text()


def _docker(host: str, *argv: str) -> bytes:
    environment: dict[str, Any] = {**os.environ, "DOCKER_CONFIG": "/nonexistent", "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(["docker", "-H", host, *argv], capture_output=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, (argv, done.stdout[-2000:].decode(), done.stderr.decode())
    return done.stdout


# --- before anything is executed


def plan_of(name: str) -> str:
    """What a build would do, stage by stage, images taken as if they had no configuration."""
    program = parse_program((HERE / "builds" / f"{name}.Dockerfile").read_bytes())
    machine = Platform(architecture="amd64")
    arguments = dict(argument.split("=") for argument in ARGUMENTS.get(name, ()))
    given = Given(arguments=arguments, build=machine, target=machine)
    known = global_arguments(program, given)
    bases = [base_of(program, number, known, given)[0] for number in range(len(program.stages))]
    evaluator = Evaluator(given, known, escape=program.dockerfile.escape)
    lines: list[str] = []
    configs: dict[str, ContainerConfig] = {}
    for number in needed(program, TARGETS.get(name, ""), bases):
        stage, base = program.stages[number], bases[number]
        lines.append(f"stage {number} {stage.name} from {base}".replace("  ", " "))
        configs[stage.name] = _plan_stage(evaluator, stage, configs.get(base, ContainerConfig()), lines)
    return "\n".join(lines) + "\n"


def _plan_stage(evaluator: Evaluator, stage: Stage, base: ContainerConfig, lines: list[str]) -> ContainerConfig:
    state = begin(base)
    for instruction in stage.body:
        if isinstance(instruction, Run):
            run = evaluator.run(state, instruction)
            shown = [f"user {run.user}"] * bool(run.user) + [f"in {run.workdir}"] * bool(run.workdir)
            shown += [f"network {run.network}"] * (run.network != "default") + [str(mount) for mount in run.mounts]
            lines.append("  " + "; ".join([f"run {created_by(run)!r}", *shown]))
            if run.script:
                lines.append(f"      script {run.script!r}")
        elif isinstance(instruction, Copy):
            copy = evaluator.copy(state, instruction)
            words = [*map(repr, copy.sources), *(f"{name}={text!r}" for name, text in copy.files)]
            flags = {"from": copy.origin, "chown": copy.chown, "chmod": copy.chmod, "link": copy.link,
                     "parents": copy.parents, "exclude": list(copy.excludes), "unpack": copy.unpacks}  # fmt: skip
            given = [f"{name} {value}" for name, value in flags.items() if value not in ("", False, None, [])]
            verb = "add" if copy.adds else "copy"
            lines.append("  " + "; ".join([f"{verb} {' '.join(words)} to {copy.target!r} in {copy.workdir!r}", *given]))
        else:
            state, told = evaluator.apply(state, instruction)
            lines.append(f"  {told}")
    return state.config


@pytest.mark.parametrize("name", NAMES)
def test_the_plan(name: str) -> None:
    _compare("plan", name, plan_of(name))


# --- the image


@pytest.fixture(scope="module")
def dockerd(scratch: Path, rootfs_tar: bytes) -> Iterator[str]:
    """DOCKER_HOST of a dockerd of its own with the same base image."""
    if program := reference.missing():
        pytest.skip(f"{program} is not installed")
    engine = reference.Reference(scratch / "dockerd", space=f"tt-golden-{os.getpid()}")
    try:
        engine.start()
        words: Sequence[str] = ("import", "-c", 'CMD ["sh"]', "-c", "ENV PATH=/usr/bin:/bin", "-", "busybox:latest")
        subprocess.run(["docker", "-H", engine.host, *words], input=rootfs_tar, check=True, capture_output=True)
        yield engine.host
    finally:
        engine.destroy()


@pytest.mark.root
@pytest.mark.parametrize("name", NAMES)
def test_what_tare_makes_of_it(name: str, daemon: Daemon, tmp_path: Path) -> None:
    daemon.clear()
    made = build(daemon.host, name, make_context(tmp_path / "context", name))
    try:
        _compare("result", name, result_of(daemon.host, made, "busybox"))
    finally:
        daemon.request("DELETE", f"/images/{made}")


@pytest.mark.root
@pytest.mark.parametrize("name", [name for name in NAMES if name not in BUILDKIT_ONLY])
def test_dockerd_makes_the_same(name: str, dockerd: str, tmp_path: Path) -> None:
    made = build(dockerd, name, make_context(tmp_path / "context", name))
    found = result_of(dockerd, made, "busybox")
    assert found == (HERE / "builds" / f"{name}.result").read_text()


@pytest.mark.root
def test_a_dockerfile_from_outside_of_the_context(daemon: Daemon, tmp_path: Path) -> None:
    """The stock command line sends an archive then that ends with its last byte of data."""
    context = make_context(tmp_path / "context", "ignored")
    (context / "Dockerfile").rename(tmp_path / "Dockerfile")
    said = _docker(daemon.host, "build", "-t", "golden-outside", "-f", str(tmp_path / "Dockerfile"), str(context))
    assert b"Successfully tagged golden-outside:latest" in said
    daemon.request("DELETE", "/images/golden-outside")
