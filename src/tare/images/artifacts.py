"""What registries keep beside images: artifacts (charts, signatures, bills of materials, attestations), as they came.

    <data-root>/artifacts/blobs/sha256/<hex>    every blob an artifact names
    artifacts           digest → media type and bytes of the manifest
    artifact_names      the references of those that were pulled or loaded by name
    artifact_holders    what an artifact travels with: the manifest it is about, or the index that lists it

An artifact is a manifest, or an index of manifests that are kept as artifacts of their own. It is kept as long as it has
a name, or something it travels with is here. Its bytes are never looked into: it goes out under the digest it came in
with. The blobs are apart from those of images, which come and go with layers; one that an image has too is linked.
Source: image-spec manifest.md ("Guidelines for Artifact Usage"), distribution-spec ("Listing Referrers").
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from tare.aio.tasks import finish
from tare.aio.threads import in_thread
from tare.base.digest import Digest, parse_digest, sha256
from tare.base.errors import Conflict, DataCorrupt, InvalidArgument, NotFound
from tare.base.news import News, Publish
from tare.base.reference import Reference, parse_reference
from tare.oci import image as oci
from tare.store.blobs import Blobs
from tare.store.db import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS artifacts (digest TEXT PRIMARY KEY, media_type TEXT NOT NULL, raw BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS artifact_names (name TEXT PRIMARY KEY, artifact TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS artifact_holders (
    artifact TEXT NOT NULL, holder TEXT NOT NULL, PRIMARY KEY (artifact, holder)
) WITHOUT ROWID;
"""


_FORGET = "DELETE FROM artifacts WHERE digest=?"
_SHOWN = 100

log = logging.getLogger(__name__)


class Artifact(Struct, frozen=True):
    """A manifest or index that is not an image's, as raw bytes and parsed. media_type: of the bytes."""

    digest: Digest
    media_type: str
    raw: bytes
    document: oci.Manifest | oci.Index

    @property
    def kind(self) -> str:
        """What it is, to be shown: the media type it calls itself by, as far as that is text of a line."""
        text = oci.artifact_type(self.document) or self.media_type
        return "".join(one for one in text[:_SHOWN] if one.isascii() and one.isprintable())

    @property
    def blobs(self) -> tuple[oci.Descriptor, ...]:
        """Config and layers, each digest once; an index has none."""
        if isinstance(self.document, oci.Index):
            return ()
        return tuple({one.digest: one for one in (self.document.config, *self.document.layers)}.values())

    @property
    def parts(self) -> tuple[oci.Descriptor, ...]:
        """The manifests an index lists, each digest once."""
        if isinstance(self.document, oci.Manifest):
            return ()
        return tuple({one.digest: one for one in self.document.manifests}.values())

    @property
    def size_bytes(self) -> int:
        """Of manifest and blobs; the parts of an index have sizes of their own."""
        return len(self.raw) + sum(blob.size for blob in self.blobs)

    @property
    def subject(self) -> str:
        """Digest of the manifest it is about, "" for none."""
        return self.document.subject.digest if self.document.subject else ""


def read_artifact(raw: bytes, media_type: str) -> Artifact:
    """From the bytes of its manifest or index. Raises InvalidArgument, also for a blob that cannot be stored."""
    document = oci.parse_manifest(raw, media_type)
    default = oci.OCI_INDEX if isinstance(document, oci.Index) else oci.OCI_MANIFEST
    artifact = Artifact(sha256(raw), document.mediaType or media_type or default, raw, document)
    for blob in (*artifact.blobs, *artifact.parts):
        if not blob.digest.startswith("sha256:"):
            raise InvalidArgument(f"blob {blob.digest[:80]}: blobs of artifacts must be named by sha256")
    return artifact


class Artifacts:
    """See the module. `restore` first."""

    def __init__(
        self, database: Database, data_root: Path, *, publish: Publish | None = None, others: Blobs | None = None
    ) -> None:
        """others: the blobs of images."""
        directory = data_root / "artifacts"
        directory.mkdir(mode=0o700, exist_ok=True)
        self.blobs = Blobs(directory)
        self._db = database
        self._publish = publish
        self._others = others
        self._known: dict[Digest, Artifact] = {}
        self._names: dict[Reference, Digest] = {}
        self._holders: dict[Digest, set[str]] = {}
        self._in_use: Counter[str] = Counter()  # blobs of operations in flight
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Artifacts({len(self._known)} known, {len(self._names)} names)"

    async def restore(self) -> None:
        """At start: read the records, and forget what nothing keeps."""

        def work(
            db: sqlite3.Connection,
        ) -> tuple[list[tuple[str, str, bytes]], list[tuple[str, str]], list[tuple[str, str]]]:
            return (
                db.execute("SELECT digest, media_type, raw FROM artifacts").fetchall(),
                db.execute("SELECT name, artifact FROM artifact_names").fetchall(),
                db.execute("SELECT artifact, holder FROM artifact_holders").fetchall(),
            )

        rows, names, holders = await self._db.read(work)
        for digest, media_type, raw in rows:
            if sha256(raw) == digest:
                self._known[Digest(digest)] = read_artifact(raw, media_type)
            else:
                log.warning("artifact %s: its bytes have another digest: forgotten", digest)
                await self._db.write(lambda db, digest=digest: db.execute(_FORGET, (digest,)) and None)  # type: ignore[misc]
        self._names = {parse_reference(name): Digest(digest) for name, digest in names if digest in self._known}
        for digest, holder in holders:
            if digest in self._known:
                self._holders.setdefault(Digest(digest), set()).add(holder)
        await self.sweep()
        await in_thread(self.blobs.sweep, self._wanted())

    # -- looking ------------------------------------------------------------------------------------------------------

    def find(self, digest: str) -> Artifact | None:
        """The artifact with this digest, or None."""
        return self._known.get(Digest(digest))

    def named(self, text: str) -> tuple[Artifact, Reference | None] | None:
        """The artifact that a name, `name@digest` or a digest means, and the reference that led there."""
        if text.startswith("sha256:"):
            found = self.find(text)
            return (found, None) if found else None
        try:
            reference = parse_reference(text).with_default_tag()
        except InvalidArgument:
            return None
        digest = self._names.get(reference)
        return (self._known[digest], reference) if digest else None

    def names(self) -> dict[Reference, Artifact]:
        """Every name and its artifact."""
        return {reference: self._known[digest] for reference, digest in self._names.items()}

    def names_of(self, digest: Digest) -> list[Reference]:
        """The names of one artifact, sorted."""
        return sorted((name for name, known in self._names.items() if known == digest), key=Reference.canonical)

    def all(self) -> list[Artifact]:
        """Every artifact, those with names first."""
        return sorted(
            self._known.values(), key=lambda known: (not self.names_of(known.digest), known.kind, known.digest)
        )

    def about(self, subject: str) -> list[Artifact]:
        """The artifacts that say they are about a manifest (its referrers), sorted by digest."""
        return sorted((known for known in self._known.values() if known.subject == subject), key=lambda one: one.digest)

    def about_all(self, subjects: Iterable[str]) -> list[Artifact]:
        """Referrers of any of these, and the referrers of those, each after what it is about."""
        found: dict[Digest, Artifact] = {}
        pending = list(subjects)
        while pending:
            for known in self.about(pending.pop(0)):
                if known.digest not in found:
                    found[known.digest] = known
                    pending.append(known.digest)
        return list(found.values())

    def refuse(self, text: str) -> None:
        """Raise InvalidArgument if the text means an artifact: the caller wants an image."""
        found = self.named(text)
        if found is not None:
            raise InvalidArgument(
                f"{text} is an artifact of type {found[0].kind}, not an image",
                hint="it cannot be run; pull, push, tag, save and rmi take it",
            )

    def parts_of(self, artifact: Artifact) -> list[Artifact]:
        """What an index lists that is here, and what that lists, each before the one that lists it. Itself is left out."""
        found: dict[Digest, Artifact] = {}

        def visit(above: Artifact, depth: int) -> None:
            for entry in above.parts if depth < oci.MAX_INDEX_DEPTH else ():
                part = self.find(entry.digest)
                if part is not None and part.digest not in found:
                    visit(part, depth + 1)
                    found[part.digest] = part

        visit(artifact, 0)
        return list(found.values())

    def bytes(self) -> int:
        """Bytes of all blobs, each counted once (`du --apparent-size` of the directory)."""
        sizes = {blob.digest: blob.size for known in self._known.values() for blob in known.blobs}
        return sum(sizes.values())

    def tell(self, action: str, artifact: Artifact, name: str, *, about: str = "") -> None:
        """Publish news as of an image: Docker's action word and name attribute. about: see `Images.tell`."""
        if self._publish is not None:
            news = News(type="image", action=action, id=about or artifact.digest, attributes={"name": name})
            self._publish(news)

    # -- keeping ------------------------------------------------------------------------------------------------------

    @contextmanager
    def in_use(self, *artifacts: Artifact) -> Iterator[None]:
        """Inside the block their blobs are not collected, though they are not recorded yet or any more; those that
        nothing keeps go at its end."""
        wanted = [blob.digest for artifact in artifacts for blob in artifact.blobs]
        self._in_use.update(wanted)
        try:
            yield
        finally:
            self._in_use.subtract(wanted)
            self._in_use += Counter()  # drop the zeros
            for digest in set(map(Digest, wanted)) - self._wanted():
                self.blobs.remove(digest)

    def has(self, blob: oci.Descriptor) -> bool:
        """Whether the blob is here as promised; one that an image has is linked. Blocking."""
        digest = parse_digest(blob.digest)
        if self.blobs.exists(digest):
            return self.blobs.size(digest) == blob.size
        if self._others is None:
            return False
        try:
            if self._others.size(digest) != blob.size:
                return False
            self.adopt(self._others.path(digest), digest)
        except (NotFound, FileNotFoundError):  # no image has it, or it goes just now
            return False
        return True

    def adopt(self, file: Path, digest: Digest) -> None:
        """Take a file whose bytes were hashed to `digest` into the store; the file stays. Blocking."""
        ingest = self.blobs.new_ingest()
        try:
            os.link(file, ingest / "blob")
            self.blobs.publish(ingest / "blob", digest, synced=False)
        finally:
            (ingest / "blob").unlink(missing_ok=True)
            ingest.rmdir()

    async def keep(
        self,
        artifact: Artifact,
        *,
        reference: Reference | None = None,
        holder: str = "",
        parts: Sequence[Artifact] = (),
    ) -> None:
        """Record an artifact whose blobs are here, its name, and what it travels with. Survives a power cut.

        parts: what it lists, and what that lists, recorded with it or not at all.

        Raises Conflict for neither name nor holder, DataCorrupt for a blob that is missing or has another size.
        """
        if reference is None and not holder:
            raise Conflict(f"nothing would lead to artifact {artifact.digest}")
        every = {one.digest: one for one in (artifact, *parts)}
        for one in every.values():
            for blob in one.blobs:
                digest = parse_digest(blob.digest)
                if not self.blobs.exists(digest) or self.blobs.size(digest) != blob.size:
                    raise DataCorrupt(
                        f"blob {digest} of artifact {one.digest} does not have the {blob.size} bytes promised"
                    )
        held = [(Digest(entry.digest), one.digest) for one in every.values() for entry in one.parts]
        held = [(part, by) for part, by in held if part in every]
        held += [(artifact.digest, Digest(holder))] if holder else []

        def work(db: sqlite3.Connection) -> None:
            rows = [(one.digest, one.media_type, one.raw) for one in every.values()]
            db.executemany("INSERT OR IGNORE INTO artifacts VALUES (?,?,?)", rows)
            if reference is not None:
                db.execute(
                    "INSERT OR REPLACE INTO artifact_names VALUES (?,?)", (reference.canonical(), artifact.digest)
                )
            db.executemany("INSERT OR IGNORE INTO artifact_holders VALUES (?,?)", held)

        async def act() -> None:
            before = self._names.get(reference) if reference is not None else None
            async with self._lock:
                await self._db.write(work)
                self._known.update({digest: one for digest, one in every.items() if digest not in self._known})
                if reference is not None:
                    self._names[reference] = artifact.digest
                for part, by in held:
                    self._holders.setdefault(part, set()).add(by)
            if before not in (None, artifact.digest):  # the name was all that led to the one before
                await self._sweep()

        await finish(act(), name="record artifact")

    async def give_up(self, reference: Reference) -> None:
        """An image has the name now."""
        if reference in self._names:
            await self._forget_name(reference)
            await self.sweep()

    async def _forget_name(self, reference: Reference) -> None:
        digest = self._names.pop(reference, None)
        if digest is not None:
            name = reference.canonical()
            await self._db.write(lambda db: db.execute("DELETE FROM artifact_names WHERE name=?", (name,)) and None)
            self.tell("untag", self._known[digest], digest)

    async def remove(self, text: str) -> list[tuple[str, str]]:
        """Drop the name, or all names of what a digest means, and what is kept by nothing then.

        ("Untagged", name) and ("Deleted", digest) in order. Raises NotFound; Conflict for what travels with something.
        """
        found = self.named(text)
        if found is None:
            raise NotFound(f"No such image: {text}")
        artifact, reference = found
        names = [reference] if reference is not None else self.names_of(artifact.digest)
        if not names:
            raise Conflict(
                f"artifact {artifact.digest} belongs to {min(self._holders.get(artifact.digest, {''}))} and goes with it"
            )
        for name in names:
            await self._forget_name(name)
        done = [("Untagged", name.familiar()) for name in names]
        return done + [("Deleted", digest) for digest in await self.sweep()]

    async def prune(self, chosen: Callable[[Artifact], bool]) -> list[tuple[str, str]]:
        """Drop every name of those chosen, and what is kept by nothing then. As `remove`."""
        done: list[tuple[str, str]] = []
        for name, known in sorted(self.names().items(), key=lambda item: item[0].canonical()):
            if chosen(known) and name in self._names:
                await self._forget_name(name)
                done.append(("Untagged", name.familiar()))
        return done + [("Deleted", digest) for digest in await self.sweep()]

    async def forget_blob(self, digest: Digest) -> None:
        """Forget the artifacts that have this blob, which was damaged, the indexes that list those, and what was kept
        for them: what is fetched again comes whole."""

        async def act() -> None:
            gone = {known.digest for known in self._known.values() if digest in {blob.digest for blob in known.blobs}}
            while above := {
                known.digest
                for known in self._known.values()
                if known.digest not in gone and gone & {entry.digest for entry in known.parts}
            }:
                gone |= above
            for name in [name for name, known in self._names.items() if known in gone]:
                await self._forget_name(name)
            for known in gone:
                self._holders.pop(known, None)
            await self._sweep()

        await finish(act(), name="forget damaged artifacts")

    async def sweep(self) -> list[Digest]:
        """Forget what has no name and travels with nothing that is here. The digests forgotten."""
        return await finish(self._sweep(), name="sweep artifacts")

    async def _sweep(self) -> list[Digest]:
        def look(db: sqlite3.Connection) -> set[str]:
            rows = db.execute("SELECT digest, led_by FROM manifests WHERE image IN (SELECT id FROM images)")
            return {digest for row in rows for digest in row if digest}

        async with self._lock:
            alive = await self._db.read(look) | set(self._names.values())
            gone = [(digest,) for digest in unheld(self._known, self._holders, alive)]
            if not gone:
                return []

            def forget(db: sqlite3.Connection) -> None:
                db.executemany(_FORGET, gone)
                db.executemany("DELETE FROM artifact_holders WHERE artifact=?", gone)

            await self._db.write(forget)
            blobs: set[str] = set()
            for (digest,) in gone:
                self._holders.pop(digest, None)
                known = self._known.pop(digest)
                blobs.update(blob.digest for blob in known.blobs)
                self.tell("delete", known, digest)
            for blob in blobs - self._wanted():
                self.blobs.remove(Digest(blob))
            return [digest for (digest,) in gone]

    def _wanted(self) -> set[Digest]:
        held = {Digest(blob.digest) for known in self._known.values() for blob in known.blobs}
        return held | {Digest(digest) for digest in self._in_use}

    def damaged(self) -> list[str]:
        """Blobs that are missing or are not what their names say. Reads everything; blocking."""
        import hashlib

        wrong = []
        for digest in sorted({parse_digest(blob.digest) for known in self._known.values() for blob in known.blobs}):
            try:
                with os.fdopen(self.blobs.open(digest), "rb") as file:
                    if f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" != digest:
                        wrong.append(str(digest))
            except NotFound:
                wrong.append(str(digest))
        return wrong


def unheld(known: Iterable[Digest], holders: dict[Digest, set[str]], alive: set[str]) -> list[Digest]:
    """Those that are neither alive nor held, over any number of steps, by what is. Pure."""
    kept = set(alive)
    pending: Sequence[Digest] = list(known)
    while True:
        rest = [digest for digest in pending if digest not in kept and not holders.get(digest, set()) & kept]
        if len(rest) == len(pending):
            return rest
        kept.update(set(pending) - set(rest))
        pending = rest


__all__ = ["Artifact", "Artifacts", "read_artifact", "unheld"]
