"""A git repository as a build context, and those inside of it: fetched by git without hooks and without the system's
configuration, one commit of each.

Submodules are not left to `git submodule`: each is fetched as a repository of its own by the same rules, at the commit that
the outer one names.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct, field
from msgspec.structs import replace

from tare.aio import proc
from tare.aio.tasks import settle
from tare.aio.threads import in_thread
from tare.base.errors import DataCorrupt, InvalidArgument, NotFound, TareError, Unavailable
from tare.build.gitref import GitRef, read_modules, submodule
from tare.drivers import linux
from tare.images.sources import check_address

MAX_SUBMODULES, MAX_DEPTH = 100, 10
_GITLINK = "160000 commit "
_REDIRECTED = "returned error: 30"
_NOT_ALONE = ("unadvertised object", "not our ref", "couldn't find remote ref")
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "GIT_ALLOW_PROTOCOL": "git:http:https:ssh",
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes",
}


class Submodule(Struct, frozen=True):
    """A repository inside of another: its place in the outermost, the URL that was used, its commit."""

    path: str
    url: str
    commit: str


class Checkout(Struct, frozen=True):
    """What was fetched: the descriptor of the directory meant, for the caller to close; the commit; all submodules."""

    fd: int
    commit: str
    submodules: tuple[Submodule, ...] = ()

    @property
    def key(self) -> str:
        """What decides the files of the whole repository."""
        return " ".join((self.commit, *(f"{module.path}@{module.commit}" for module in self.submodules)))


async def fetch(wanted: GitRef, place: Path, *, allow_private: bool) -> Checkout:
    """Check the commit out below `place`, and in it, recursively, the commits of submodules that it names.

    Raises Unavailable (no git, no answer), Forbidden (private address), NotFound (no such ref or directory), DataCorrupt
    (another commit than was wanted), InvalidArgument (a submodule that must not be fetched).
    """
    fetching = _Fetching(_program(), place / "work", allow_private)
    commit = await fetching.take(wanted, fetching.work)
    if not commit.startswith(wanted.checksum):
        raise DataCorrupt(f"expected checksum to match {wanted.checksum}, got {commit}")
    if wanted.submodules:
        await fetching.descend(wanted, "", depth=1)
    if not wanted.keeps_git:
        for directory in (fetching.work, *(fetching.work / module.path for module in fetching.found)):
            await settle(in_thread(shutil.rmtree, directory / ".git"), name="remove git directory")
    root = os.open(fetching.work, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = linux.open_beneath(root, wanted.directory or ".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise NotFound(f"{wanted.directory} is no directory of {wanted.url}") from None
        raise InvalidArgument(f"{wanted.directory} leads out of {wanted.url}") from None
    finally:
        os.close(root)
    return Checkout(fd, commit, tuple(fetching.found))


class _Fetching(Struct):
    git: str
    work: Path
    allow_private: bool
    found: list[Submodule] = field(default_factory=list)

    async def take(self, wanted: GitRef, directory: Path) -> str:
        """One repository into a directory that is not there or empty; its commit."""
        options = await in_thread(_connection, wanted, self.allow_private)
        at = ("-C", str(directory))
        await _git(self.git, "init", "-q", str(directory))
        only = (
            "fetch",
            "-q",
            "--depth=1",
            "--no-tags",
            "--no-recurse-submodules",
            "--",
            wanted.url,
            wanted.ref or "HEAD",
        )
        wish = "FETCH_HEAD"
        try:
            await _git(self.git, *options, *at, *only)
        except TareError as error:
            if not wanted.ref or wanted.ref != wanted.checksum or not any(text in error.message for text in _NOT_ALONE):
                raise
            # A server that gives branches only (protocol 0, or an old one): the commit must be in one of them.
            branches = ("fetch", "-q", "--no-recurse-submodules", "--", wanted.url, "+refs/heads/*:refs/fetched/*")
            await _git(self.git, *options, *at, *branches)
            wish = wanted.ref
        await _git(self.git, *at, "checkout", "-q", "--detach", "--no-recurse-submodules", wish, "--")
        return (await _git(self.git, *at, "rev-parse", "HEAD")).strip()

    async def descend(self, parent: GitRef, prefix: str, *, depth: int) -> None:
        """The submodules of the repository that is checked out at `prefix`, and theirs."""
        outer = self.work / prefix
        at = ("-C", str(outer))
        if not await _git(self.git, *at, "ls-tree", "-z", "HEAD", "--", ".gitmodules"):
            return
        entries = await _git(self.git, *at, "config", "--blob", "HEAD:.gitmodules", "-z", "--list")
        if len(entries) >= proc.OUTPUT_LIMIT:
            raise InvalidArgument(f"{parent.url}: its .gitmodules is too long")
        for path, url in read_modules(entries).items():
            entry = await _git(self.git, "--literal-pathspecs", *at, "ls-tree", "-z", "HEAD", "--", path)
            about, _, name = entry.rstrip("\0").partition("\t")
            if name != path or not about.startswith(_GITLINK):
                continue  # it is not in this commit
            whole = f"{prefix}/{path}" if prefix else path
            if depth > MAX_DEPTH or len(self.found) >= MAX_SUBMODULES:
                raise InvalidArgument(
                    f"{whole[:200]}: more than {MAX_SUBMODULES} submodules, or {MAX_DEPTH} in each other"
                )
            wanted = submodule(parent, url, about.removeprefix(_GITLINK))
            place = self.work / whole
            self._check_place(place)
            try:
                wanted, commit = await self._take_submodule(wanted, place)
            except TareError as error:
                raise type(error)(f"submodule {whole[:200]}: {error.message}", hint=error.hint) from None
            if commit != wanted.checksum:
                raise DataCorrupt(f"submodule {whole[:200]}: expected {wanted.checksum}, got {commit}")
            self.found.append(Submodule(whole, wanted.url, commit))
            await self.descend(wanted, whole, depth=depth + 1)

    async def _take_submodule(self, wanted: GitRef, place: Path) -> tuple[GitRef, str]:
        """The same as `take`. Forges lead from `…/lib` to `…/lib.git`; since no redirect is followed, that is tried."""
        try:
            return wanted, await self.take(wanted, place)
        except TareError as error:
            if _REDIRECTED not in error.message or wanted.url.endswith(".git"):
                raise
        wanted = replace(wanted, url=f"{wanted.url.rstrip('/')}.git")
        return wanted, await self.take(wanted, place)

    def _check_place(self, place: Path) -> None:
        """git leaves an empty directory for a submodule. Raise InvalidArgument for anything else, and for links to it."""
        try:
            fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            raise InvalidArgument(f"the place of a submodule is no directory: {place.name}") from None
        try:
            if os.readlink(f"/proc/self/fd/{fd}") != os.path.realpath(self.work) + str(place)[len(str(self.work)) :]:
                raise InvalidArgument(f"the place of a submodule is behind a link: {place.name}")
            if os.listdir(fd):
                raise InvalidArgument(f"the place of a submodule is not empty: {place.name}")
        finally:
            os.close(fd)


async def resolve(wanted: GitRef, *, allow_private: bool) -> str:
    """The commit that the whole name of a ref (`refs/heads/…`; "" for the default branch) is now.

    Raises as `fetch`.
    """
    git = _program()
    options = await in_thread(_connection, wanted, allow_private)
    ref = wanted.ref or "HEAD"
    for line in (await _git(git, *options, "ls-remote", "--", wanted.url, ref)).splitlines():
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
    options = ("core.hooksPath=/dev/null", "core.symlinks=true", "gc.auto=0", "maintenance.auto=false")
    settings = [word for option in options for word in ("-c", option)]
    done = await proc.run([git, *settings, *words], env=_ENVIRONMENT, has_group=True)
    if done.status:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        text = lines[-1] if lines else f"git ended with status {done.status}"
        is_missing = any(word in text for word in ("couldn't find remote ref", "not found", "no such repository"))
        kind = NotFound if is_missing else Unavailable
        hint = "redirects are not followed: give the URL that it leads to" if _REDIRECTED in text else None
        raise kind(f"unable to fetch the git repository: {text[:300]}", hint=hint)
    return done.stdout


def _connection(wanted: GitRef, allow_private: bool) -> tuple[str, ...]:
    """Options of git for reaching a repository at an address that may be reached, and at no other.

    Blocking. Raises Unavailable, Forbidden.
    """
    try:
        found = socket.getaddrinfo(wanted.host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"cannot resolve {wanted.host}: {error.strerror or error}") from None
    for *_, address in found:
        check_address(str(address[0]), allow_private=allow_private)
    url = urlsplit(wanted.url)
    if allow_private or url.scheme not in ("http", "https"):
        return ()
    # A redirect, or a name that means something else a moment later, must not lead to where the check would have said no.
    port = url.port or (443 if url.scheme == "https" else 80)
    pinned = ",".join(dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found))
    options = ("-c", "http.followRedirects=false")
    if ":" in wanted.host:  # a number already
        return options
    return (*options, "-c", f"http.curloptResolve={wanted.host}:{port}:{pinned}")
