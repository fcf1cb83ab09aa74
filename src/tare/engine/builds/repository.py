"""A git repository as a build context: fetched by git without hooks, without the system's configuration, one commit."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from tare.aio import proc
from tare.aio.threads import in_thread
from tare.base.errors import DataCorrupt, InvalidArgument, NotFound, Unavailable
from tare.build.gitref import GitRef
from tare.drivers import linux
from tare.images.sources import check_address

_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "GIT_ALLOW_PROTOCOL": "git:http:https:ssh",
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes",
}


async def fetch(wanted: GitRef, place: Path, *, allow_private: bool) -> tuple[int, str]:
    """Check the commit out below `place`. The descriptor of the directory meant, for the caller to close; the commit.

    Raises Unavailable (no git, no answer), Forbidden (private address), NotFound (no such ref or directory), DataCorrupt
    (another commit than was wanted). Submodules are not fetched.
    """
    git = _program()
    await in_thread(_check_host, wanted.host, allow_private)
    work = place / "work"
    await _git(git, "init", "-q", str(work))
    await _git(git, "-C", str(work), "fetch", "-q", "--depth=1", "--no-tags", "--", wanted.url, wanted.ref or "HEAD")
    await _git(git, "-C", str(work), "checkout", "-q", "--detach", "FETCH_HEAD")
    commit = (await _git(git, "-C", str(work), "rev-parse", "HEAD")).strip()
    if not commit.startswith(wanted.checksum):
        raise DataCorrupt(f"expected checksum to match {wanted.checksum}, got {commit}")
    if not wanted.keeps_git:
        shutil.rmtree(work / ".git")
    root = os.open(work, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return linux.open_beneath(root, wanted.directory or ".", os.O_RDONLY | os.O_DIRECTORY), commit
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise NotFound(f"{wanted.directory} is no directory of {wanted.url}") from None
        raise InvalidArgument(f"{wanted.directory} leads out of {wanted.url}") from None
    finally:
        os.close(root)


async def resolve(wanted: GitRef, *, allow_private: bool) -> str:
    """The commit that the whole name of a ref (`refs/heads/…`; "" for the default branch) is now.

    Raises as `fetch`.
    """
    git = _program()
    await in_thread(_check_host, wanted.host, allow_private)
    ref = wanted.ref or "HEAD"
    for line in (await _git(git, "ls-remote", "--", wanted.url, ref)).splitlines():
        commit, _, name = line.partition("\t")
        if name == ref:
            return commit
    what = f"no branch {ref.removeprefix('refs/heads/')}" if wanted.ref else "no default branch: name one"
    raise NotFound(f"{wanted.url}: there is {what}")


def _program() -> str:
    git = shutil.which("git")
    if git is None:
        raise Unavailable("git is not installed", hint="apt-get install git")
    return git


async def _git(git: str, *words: str) -> str:
    done = await proc.run([git, "-c", "core.hooksPath=/dev/null", "-c", "core.symlinks=true", *words], env=_ENVIRONMENT)
    if done.status:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        text = lines[-1] if lines else f"git ended with status {done.status}"
        is_missing = any(word in text for word in ("couldn't find remote ref", "not found", "no such repository"))
        kind = NotFound if is_missing else Unavailable
        raise kind(f"unable to fetch the git repository: {text[:300]}")
    return done.stdout


def _check_host(host: str, allow_private: bool) -> None:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"cannot resolve {host}: {error.strerror or error}") from None
    for *_, address in found:
        check_address(str(address[0]), allow_private=allow_private)
