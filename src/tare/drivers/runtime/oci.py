"""An OCI runtime (crun, runc) by its command line.

<exec-root>/runtime/<name>/<container>/     the runtime's own state
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tare.aio import proc
from tare.base.errors import InternalError, InvalidArgument, Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class OciRuntime:
    """One runtime program. `root` holds its state; `arguments` go before every command."""

    name: str
    path: str
    root: Path
    version: str
    arguments: tuple[str, ...] = ()

    @property
    def is_crun(self) -> bool:
        """Whether crun's extensions (compiled seccomp by annotation) are understood."""
        return self.version.startswith("crun ")

    def argv(self, *command: str) -> list[str]:
        """The full command line for one of the runtime's commands."""
        return [self.path, *self.global_arguments(), *command]

    def global_arguments(self) -> list[str]:
        """What stands before the command: state root and configured arguments."""
        return ["--root", str(self.root), *self.arguments]

    async def start(self, container_id: str) -> None:
        """Let the created container execute its program. Raises what `translate` makes of the runtime's words."""
        done = await proc.run(self.argv("start", container_id))
        if done.status != 0:
            raise translate(done.stderr)

    async def delete(self, container_id: str, *, force: bool = False) -> None:
        """Remove the runtime's state, cgroup included. Idempotent: what is not there is not an error."""
        if not (self.root / container_id).exists():
            return
        done = await proc.run(self.argv("delete", *(["--force"] if force else []), container_id))
        if done.status != 0 and (self.root / container_id).exists():
            if force:
                shutil.rmtree(self.root / container_id, ignore_errors=True)
                return
            raise InternalError(f"cannot delete container {container_id}: {done.stderr.strip()}")


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
    return OciRuntime(name=name, path=found, root=root, version=version, arguments=arguments)


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
