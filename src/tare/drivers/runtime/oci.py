"""An OCI runtime (crun, runc) by its command line.

<exec-root>/runtime/<name>/<container>/     the runtime's own state
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from pathlib import Path

from msgspec import Struct

from tare.aio import failpoints, proc
from tare.base.errors import InternalError, InvalidArgument, Unavailable


class OciRuntime(Struct, frozen=True, kw_only=True):
    """One runtime program. `root` holds its state; `arguments` go before every command.

    `program` is what is executed: `path`, or for crun a sealed copy of it in memory. crun protects itself from the
    container (CVE-2019-5736) by re-executing a copy at every call; handed one, it need not (1.3 ms of every call).
    """

    name: str
    path: str
    root: Path
    version: str
    program: str
    arguments: tuple[str, ...] = ()

    @property
    def is_crun(self) -> bool:
        """Whether crun's extensions (compiled seccomp by annotation) are understood."""
        return self.version.startswith("crun ")

    def argv(self, *command: str) -> list[str]:
        """The full command line for one of the runtime's commands."""
        return [self.program, *self.global_arguments(), *command]

    def global_arguments(self) -> list[str]:
        """What stands before the command: state root and configured arguments."""
        return ["--root", str(self.root), *self.arguments]

    async def start(self, container_id: str, *, has_hooks: bool = False) -> None:
        """Let the created container execute its program. Raises what `translate` makes of the runtime's words."""
        if self.is_crun and not has_hooks and self._release(container_id):
            return
        done = await proc.run(self.argv("start", container_id))
        if done.status != 0:
            raise translate(done.stderr)

    def _release(self, container_id: str) -> bool:
        """What `crun start` does for a container without hooks: one byte into the fifo its first process waits at.

        False when nobody waits there (the process died): crun itself finds the words for that.
        """
        failpoints.hit("runtime.start")
        fifo = self.root / container_id / "exec.fifo"
        try:
            fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fifo.unlink()
            os.write(fd, b"\0")
        finally:
            os.close(fd)
        return True

    async def delete(self, container_id: str, *, has_hooks: bool = False) -> None:
        """Remove the runtime's state of a container that has ended, killing what is left. Idempotent.

        crun keeps nothing but a directory; its cgroup is the caller's to remove. has_hooks: some are to be run then.
        """
        state = self.root / container_id
        if not state.exists():
            return
        if not self.is_crun or has_hooks:
            await proc.run(self.argv("delete", "--force", container_id))
        shutil.rmtree(state, ignore_errors=True)


def sealed_copy(path: str) -> str:
    """A copy of a program in memory that nobody can write to, as a path that works while this process lives."""
    fd = os.memfd_create(Path(path).name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(path, "rb") as source:
        while data := source.read(1 << 20):
            os.write(fd, data)
    os.fchmod(fd, 0o755)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return f"/proc/{os.getpid()}/fd/{fd}"


async def probe(name: str, path: str, root: Path, arguments: tuple[str, ...] = ()) -> OciRuntime:
    """Find the program and ask its version. Raises Unavailable with what to install."""
    found = shutil.which(path)
    if found is None:
        raise Unavailable(f"runtime {name}: {path} is not installed", hint=f"apt-get install {name}")
    done = await proc.run([found, "--version"])
    version = done.stdout.splitlines()[0] if done.stdout else ""
    if done.status != 0 or not version:
        raise Unavailable(f"runtime {name}: {found} --version failed: {done.stderr.strip()}")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    program = await _executable_copy(found) if version.startswith("crun ") else found
    return OciRuntime(name=name, path=found, root=root, version=version, program=program, arguments=arguments)


async def _executable_copy(path: str) -> str:
    """The sealed copy if the kernel lets it run (vm.memfd_noexec may forbid), else the program itself."""
    copy = sealed_copy(path)
    try:
        works = (await proc.run([copy, "--version"])).status == 0
    except OSError:
        works = False
    return copy if works else path


_NOT_FOUND = re.compile(
    r"executable file [`'\"]?(?P<a>[^`'\"]*?)[`'\"]? not found in \$PATH"
    r"|exec: \"(?P<b>[^\"]*)\": executable file not found"
    r"|stat (?P<c>\S+): no such file or directory"
    r"|exec(?:ve)?:? [`'\"]?(?P<d>/[^:`'\"]*)[`'\"]?: no such file or directory"
    r"|open executable: (?P<e>.*?)no such file or directory",
    re.IGNORECASE,
)
_DENIED = re.compile(r"permission denied|is a directory", re.IGNORECASE)
_PREFIX = "failed to create task for container: failed to create shim task: OCI runtime create failed: "


class CommandNotFound(InvalidArgument):
    """The program to run does not exist in the container: exit code 127."""


class CommandNotInvokable(InvalidArgument):
    """The program exists and cannot be executed: exit code 126."""


def translate(text: str) -> InvalidArgument | InternalError:
    """A runtime's complaint as the error whose wording `docker run` reads its exit code from (W9)."""
    line = _message(text)
    found = _NOT_FOUND.search(line)
    if found is not None:
        program = next((group for group in found.groups() if group), "")
        return CommandNotFound(
            f'{_PREFIX}unable to start container process: exec: "{program}": executable file not found in $PATH'
        )
    if _DENIED.search(line) and "exec" in line.lower():
        return CommandNotInvokable(f"{_PREFIX}unable to start container process: {line.lower()}")
    return InternalError(f"{_PREFIX}{line}" if line else f"{_PREFIX}the runtime gave no reason")


def _message(text: str) -> str:
    """The runtime's last words, without time stamps and log dressing."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    last = lines[-1]
    if last.startswith("{"):
        try:
            last = str(json.loads(last).get("msg", last))
        except ValueError:
            pass
    return re.sub(r"^\d{4}-\d\d-\d\dT\S+Z?:? ", "", last)
