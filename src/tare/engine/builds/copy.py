"""COPY, ADD and WORKDIR: a layer put together from members of archives; nothing is unpacked to make it."""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import re
import secrets
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from tare.aio.tasks import finish
from tare.aio.threads import in_thread
from tare.base.errors import DataCorrupt, InvalidArgument, NotFound
from tare.build import copying
from tare.build.copying import Chosen, Layout, Owner, Place, Wish
from tare.build.evaluate import CopyStep
from tare.build.gitref import GitRef, check_commit, parse_git
from tare.build.ignore import has_wildcards
from tare.build.tree import FILE, Tree, clean_source
from tare.drivers import linux, trees
from tare.drivers.archive.spool import Member, Part
from tare.drivers.archive.tar import kind_of
from tare.drivers.snapshots.stack import Stack
from tare.engine.builds.compose import composed, parts_of
from tare.engine.builds.context import Spool, spool
from tare.engine.builds.repository import Checkout, fetch
from tare.engine.builds.request import Build
from tare.engine.builds.sandbox import Sources, mounted, ready
from tare.engine.engine import Engine
from tare.images.drafts import Draft, done
from tare.images.sources import open_url, url_chunks

_MAX_PASSWD = 10 * 1024 * 1024
_GIT = re.compile(r"(git://|git@|ssh://|https?://[^#?]+\.git(?:[#?]|$))")
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
_READ = 1024 * 1024


class Group(Struct):
    """What one source means: members of a tree with their bytes. `keeps_owner`: as the archive says."""

    spool: Spool
    chosen: list[Chosen]
    keeps_owner: bool = False


class Gathered(Struct):
    """All sources of a COPY. `digest` decides the cache key."""

    groups: list[Group]
    digest: str


async def gather(build: Build, step: CopyStep, sources: Sources) -> Gathered:
    """Find what the sources mean. Raises NotFound, InvalidArgument; for --from only the name's key is looked at."""
    own = build.named(step.origin)
    if step.origin and own is None:
        return Gathered([], hashlib.sha256((await sources.key_of(step.origin)).encode()).hexdigest())
    groups: list[Group] = []
    digests: list[str] = []
    for source in step.sources:
        if step.adds and _GIT.match(source):
            taken, digest = await _repository(build, step, source)
            groups.append(taken)
            digests.append(digest)
            continue
        if step.adds and urlsplit(source).scheme in ("http", "https"):
            groups.append(await _download(build, step, source))
            digests.append(copying.digest_of(groups[-1].spool.tree, [groups[-1].chosen]))
            continue
        context = own or build.context.spool
        for chosen in copying.choose(
            context.tree, [source], parents=step.parents, excludes=step.excludes, what=step.line.keyword
        ):
            digests.append(copying.digest_of(context.tree, [chosen]))
            groups.append(Group(context, chosen))
    return Gathered(groups, ",".join(digests))


async def repository_files(engine: Engine, wanted: GitRef, directory: Path) -> tuple[Spool, Checkout]:
    """The files of a repository, fetched now, and what that is (without a descriptor). Raises as `repository.fetch`."""
    place = directory / f"git-{secrets.token_hex(8)}"
    place.mkdir(mode=0o700)
    try:
        found = await fetch(wanted, place, allow_private=engine.images.options.allow_private_sources)
        try:
            async with engine.archiver.pack(found.fd) as reader:
                return await spool(engine.archiver, directory, reader), replace(found, fd=-1)
        finally:
            os.close(found.fd)
    finally:
        await finish(in_thread(trees.discard, place), name="remove repository")


async def _repository(build: Build, step: CopyStep, url: str) -> tuple[Group, str]:
    """ADD of a git repository: its files without their owners, and what decides them, which is the commit."""
    wanted = parse_git(url)
    if wanted is None:
        raise step.line.error(f"invalid git URL {url[:200]}")
    check_commit(step.checksum)
    keeps = step.keeps_git or wanted.keeps_git
    wanted = replace(wanted, checksum=step.checksum or wanted.checksum, keeps_git=keeps)
    if keeps and wanted.directory:
        raise step.line.error("--keep-git-dir is for a whole repository, not for a directory of one")
    taken, found = await repository_files(build.engine, wanted, build.directory)
    build.spools.append(taken)
    build.read += read_of(url, found)
    for member in taken.members:
        member.uid = member.gid = 0
        member.mtime_ns = build.now_ns
    chosen = [Chosen(place=path, path=path, is_contents=True) for path in taken.tree.walk("")]
    # `.git` has times of now in it, so what is in the files cannot be the key.
    return Group(taken, chosen), f"git {found.key} {wanted.directory} {keeps}"


def read_of(url: str, found: Checkout) -> list[dict[str, object]]:
    """A repository and those inside of it, as provenance tells them."""
    every = [(url, found.commit), *((module.url, module.commit) for module in found.submodules)]
    return [
        {"uri": f"git+{uri}" if uri.startswith("http") else uri, "digest": {"sha1": commit}} for uri, commit in every
    ]


async def _download(build: Build, step: CopyStep, url: str) -> Group:
    """A file from a URL as a tree of one member."""
    images = build.engine.images
    response = await in_thread(lambda: open_url(url, allow_private=images.options.allow_private_sources))
    name = posixpath.basename(urlsplit(url).path)
    if not name:
        response.close()
        if step.target.endswith("/"):
            raise InvalidArgument(f"cannot determine filename for source {url[:200]}")
        name = "download"
    path = build.directory / f"url-{len(build.spools)}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    digest, size = hashlib.sha256(), 0
    made = Spool(Tree(()), [], fd)
    build.spools.append(made)
    options = images.options
    async for chunk in url_chunks(response, max_bytes=options.max_source_bytes, max_seconds=options.max_source_seconds):
        digest.update(chunk)
        size += len(chunk)
        await in_thread(os.write, fd, chunk)
    build.read.append({"uri": url, "digest": {"sha256": digest.hexdigest()}})
    if step.checksum and step.checksum != f"sha256:{digest.hexdigest()}":
        raise DataCorrupt(f"digest mismatch of {url[:200]}: sha256:{digest.hexdigest()} instead of {step.checksum}")
    member = Member(name, FILE, 0o600, 0, 0, size, build.now_ns, sha256=digest.hexdigest())
    made.members = [member]
    made.tree = Tree(made.members)
    group = Group(made, [Chosen(place=name, path=name, is_contents=False)])
    return await _unpacked(build, group) or group if step.unpacks else group


async def lay(
    build: Build, step: CopyStep, gathered: Gathered, below: Draft | None, sources: Sources, *, eager: bool
) -> Draft | None:
    """Make the layer. eager: something will stand on its files. None when nothing was copied. Raises InvalidArgument."""
    groups = gathered.groups
    if step.origin and build.named(step.origin) is None:
        groups = await _from_elsewhere(build, step, sources)
    if step.adds and step.unpacks is not False:
        groups = [await _unpacked(build, group) or group for group in groups]
    stack = await stack_of(build, None if step.link else below)
    owner = _owner(step, stack)
    target = posixpath.join(step.workdir, step.target)
    if step.target.endswith("/") or step.target in (".", "./") or step.target.endswith("/."):
        target = posixpath.normpath(target).rstrip("/") + "/"
    many = len(groups) + len(step.files) > 1
    wish = Wish(target=target, owner=owner, chmod=step.chmod, many=many, mtime_ns=build.now_ns)
    layout = Layout(wish, _look(stack))
    fds: list[int] = []
    holders: dict[int, int] = {}
    for group in groups:
        if group.spool.data_fd not in fds:
            fds.append(group.spool.data_fd)
        number = fds.index(group.spool.data_fd)
        holders.update((id(member), number) for member in group.spool.members)
        if group.keeps_owner and not step.chown:
            layout.with_owner(None).add_group(group.spool.tree, group.chosen)
        else:
            layout.add_group(group.spool.tree, group.chosen)
    for name, text in step.files:
        layout.add_text(name, text)
    parts = parts_of(layout.items(), holders, newest_ns=build.wanted.epoch_ns)
    return await _layer(build, parts, fds, below, eager=eager)


async def make_directory(build: Build, path: str, below: Draft | None, *, eager: bool) -> Draft | None:
    """WORKDIR: the directory if it is not there. None if it is."""
    stack = await stack_of(build, below)
    found = stack.look(path)
    if found is not None and stat.S_ISDIR(found.info.st_mode):
        return None
    wish = Wish(target=path.rstrip("/") + "/", mtime_ns=build.now_ns)
    layout = Layout(wish, _look(stack))
    layout.add_directory(path)
    parts = parts_of(layout.items(), {}, newest_ns=build.wanted.epoch_ns)
    return await _layer(build, parts, [], below, eager=eager)


async def _layer(
    build: Build, parts: Sequence[Part], fds: list[int], below: Draft | None, *, eager: bool
) -> Draft | None:
    if not parts:
        return None
    parent = await below.made if below is not None else None
    layers = build.engine.images.layers
    if eager and parent is not None:
        await layers.make_ready(parent.chain_id)
    async with composed(build.engine.archiver, build.directory, parts, fds) as reader:
        layer = await layers.unpack(build.lease, reader, parent, extract=eager)
    return done(layer)


async def stack_of(build: Build, draft: Draft | None) -> Stack:
    """For looking at the files of a draft."""
    if draft is None:
        return Stack(())
    await ready(build, draft)
    snapshots = build.engine.snapshots
    return Stack([snapshots.upper(draft.snapshot), *snapshots.lowers(draft.snapshot)[1:]])


def _look(stack: Stack) -> Callable[[str], Place | None]:
    def look(path: str) -> Place | None:
        found = stack.look(path)
        if found is None:
            lead = stack.lead(path)
            return Place(path=lead, kind="") if lead != posixpath.normpath(path) else None
        info = found.info
        kind = kind_of(info.st_mode) or b"0"
        return Place(
            path=found.path,
            kind=kind.decode(),
            mode=stat.S_IMODE(info.st_mode),
            uid=info.st_uid,
            gid=info.st_gid,
            mtime_ns=info.st_mtime_ns,
        )

    return look


# -- owners -----------------------------------------------------------------------------------------------------------


def _owner(step: CopyStep, stack: Stack) -> Owner:
    if not step.chown:
        return Owner(uid=0, gid=0)
    user, colon, group = step.chown.partition(":")
    uid, own = _lookup(step, user, stack, "/etc/passwd", "user")
    if not colon:
        return Owner(uid=uid, gid=own if own is not None else uid)
    return Owner(uid=uid, gid=_lookup(step, group, stack, "/etc/group", "group")[0])


def _lookup(step: CopyStep, name: str, stack: Stack, path: str, what: str) -> tuple[int, int | None]:
    """The number of a user or group, and a user's own group where it is known."""
    if name.isdecimal():
        if int(name) > 2**31 - 1:
            raise step.line.error(f"invalid {what} id {name}")
        return int(name), None
    if step.link:
        raise step.line.error(f"--chown={step.chown} with --link needs numbers: names cannot be looked up")
    data = stack.read(path, limit=_MAX_PASSWD) or b""
    for line in data.decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[0] == name and fields[2].isdecimal():
            gid = int(fields[3]) if what == "user" and len(fields) > 3 and fields[3].isdecimal() else None
            return int(fields[2]), gid
    raise step.line.error(f"unable to convert {what} name {name!r} to a number: it is not in the image's {path}")


# -- other trees ------------------------------------------------------------------------------------------------------


async def _from_elsewhere(build: Build, step: CopyStep, sources: Sources) -> list[Group]:
    """The members that the sources mean in a stage or image."""
    draft = await sources.draft_of(step.origin)
    groups: list[Group] = []
    async with mounted(build, draft) as root:
        for source in step.sources:
            taken = await _pack_source(build, root, source, step)
            build.spools.append(taken)
            for chosen in copying.choose(
                taken.tree, [source], parents=step.parents, excludes=step.excludes, what=step.line.keyword
            ):
                groups.append(Group(taken, chosen))
    return groups


async def _pack_source(build: Build, root: Path, source: str, step: CopyStep) -> Spool:
    """Take apart the part of a file system that a source can mean."""
    clean = clean_source(source)
    prefix: list[str] = []
    for part in clean.split("/"):
        if has_wildcards(part):
            break
        prefix.append(part)
    plain = "/".join(prefix)
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            found = linux.open_in_root(root_fd, plain or ".", os.O_PATH)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise InvalidArgument(
                    f"{step.line.keyword} failed: too many links in {source} of {step.origin}"
                ) from None
            raise NotFound(f"{step.line.keyword} failed: stat {source}: file does not exist in {step.origin}") from None
        try:
            real = os.readlink(f"/proc/self/fd/{found}")
            is_directory = stat.S_ISDIR(os.fstat(found).st_mode)
        finally:
            os.close(found)
    finally:
        os.close(root_fd)
    archiver = build.engine.archiver
    if is_directory:
        fd = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        named, member = plain or None, None
    else:
        fd = os.open(os.path.dirname(real), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        named, member = plain, os.path.basename(real)
    try:
        async with archiver.pack(fd, name=named, member=member) as reader:
            return await spool(archiver, build.directory, reader)
    finally:
        os.close(fd)


async def _unpacked(build: Build, group: Group) -> Group | None:
    """ADD: what is in an archive that is a file of the context; None if the source is no archive."""
    if len(group.chosen) != 1 or group.chosen[0].is_contents:
        return None
    member = group.spool.tree.file(group.chosen[0].path)
    if member is None or member.kind != FILE or not member.size:
        return None
    head = os.pread(group.spool.data_fd, 512, member.offset)
    if not head.startswith(_PACKED) and head[257:262] != b"ustar":
        return None

    async def chunks() -> AsyncIterator[bytes]:
        at = 0
        while at < member.size:
            count = min(_READ, member.size - at)
            yield await in_thread(os.pread, group.spool.data_fd, count, member.offset + at)
            at += count

    try:
        taken = await spool(build.engine.archiver, build.directory, chunks())
    except InvalidArgument:
        if head[257:262] == b"ustar":
            raise
        return None  # packed, but no archive: a plain file
    build.spools.append(taken)
    chosen = [Chosen(place="", path="", is_contents=True)]
    chosen += [Chosen(place=path, path=path, is_contents=True) for path in taken.tree.walk("")]
    return Group(taken, chosen, keeps_owner=True)


__all__ = ["Gathered", "gather", "lay", "make_directory", "read_of", "repository_files", "stack_of"]
