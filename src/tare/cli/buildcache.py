"""`tare build --cache-to`, `--cache-from`: caches in a directory of this machine, which the engine may not see.

    DIR/oci-layout, DIR/index.json    one entry, the cache
    DIR/blobs/sha256/<hex>            its manifest, its document, layers of steps, tars of cache mounts

A directory to take from travels with the build's context, below a hidden name, without what the engine has; one to write
to is read from the engine once the build is done. `index.json` is replaced last, so the directory is one cache or the other.
Source: docker buildx build, `--cache-to` and `--cache-from`.
"""

from __future__ import annotations

import os
import re

from tare.cli import exit as exits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tare.cli.buildcontext import Local
    from tare.cli.context import Context
    from tare.client.gojson import Json

_DOCUMENT = "application/vnd.tare.buildcache.v1+json"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})\Z")
_BLOB = re.compile(rb"blobs/sha256/([0-9a-f]{64})\Z")
_MAX_DOCUMENT = 8 * 1024 * 1024
_TRUE = {"true": True, "1": True, "false": False, "0": False}


class Target:
    """One --cache-to. text: what the query says; dest: the directory of a local one, "" for others."""

    def __init__(self, text: str, dest: str, mode: str, mounts: bool) -> None:
        self.text = text
        self.dest = dest
        self.mode = mode
        self.mounts = mounts


def targets(given: Sequence[str]) -> list[Target]:
    """`type=local,dest=DIR` or `type=registry,ref=REF`, each with `mode=min|max`, `mounts=true|false`. Raises ValueError."""
    found: list[Target] = []
    for text in given:
        known = _attributes(text, {"type", "dest", "ref", "mode", "mounts"})
        kind, dest = known.get("type", ""), known.get("dest", "")
        mode, mounts = known.get("mode", "min"), known.get("mounts", "true").lower()
        if mode not in ("min", "max") or mounts not in _TRUE:
            raise ValueError(f"--cache-to {text}: mode is min or max, mounts true or false")
        if kind == "registry":
            if not known.get("ref") or dest:
                raise ValueError(f"--cache-to {text}: type=registry needs ref=REFERENCE, and no dest")
            found.append(Target(text, "", mode, _TRUE[mounts]))
        elif kind == "local":
            if not dest or known.get("ref"):
                raise ValueError(f"--cache-to {text}: type=local needs dest=DIRECTORY, and no ref")
            found.append(Target("type=local", dest, mode, _TRUE[mounts]))
        else:
            raise ValueError(f"--cache-to {text}: unsupported type {kind!r}: use local or registry")
    return found


def sources(given: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """What the query says of --cache-from, and the directories to send, by their place in the tar. Raises ValueError."""
    import secrets

    from tare.cli.csvline import fields

    said: list[str] = []
    sent: dict[str, str] = {}
    for text in given:
        if "=" not in text:
            said += fields(text)  # as the stock docker: images, several with commas
            continue
        known = _attributes(text, {"type", "src", "ref"})
        if known.get("type") != "local":
            said.append(text)
            continue
        if not known.get("src"):
            raise ValueError(f"--cache-from {text}: type=local needs src=DIRECTORY")
        place = f".tare-cache-{secrets.token_hex(8)}"
        said.append(f"type=tar,src={place}")
        sent[place] = known["src"]
    return said, sent


def _attributes(text: str, allowed: set[str]) -> dict[str, str]:
    from tare.cli.csvline import fields

    known: dict[str, str] = {}
    for part in fields(text):
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if not equals or key not in allowed:
            raise ValueError(f"unexpected {part!r} in {text!r}: use {', '.join(sorted(allowed))}")
        known[key] = value
    return known


# -- sending


def read(context: Context, directory: str, place: str) -> Local | None:
    """What is to be sent of a cache; None, and a warning, for a directory that holds none. Raises Exit."""
    from tare.cli.buildcontext import Entry, Local

    try:
        names = ["index.json", *_named(context, directory)]
        entries = tuple(Entry(name, os.lstat(os.path.join(directory, name))) for name in names)
    except (OSError, ValueError) as error:
        reason = (error.strerror or "cannot be read").lower() if isinstance(error, OSError) else str(error)
        context.error(f"WARNING: the cache in {directory} is not used: {reason}")
        return None
    return Local(root=os.path.realpath(directory), entries=entries, dockerfile="", prefix=f"{place}/")


def _named(context: Context, directory: str) -> list[str]:
    """The files of a cache that the engine needs: its documents, and the blobs it has not."""
    manifest_digest, manifest = _manifest(directory)
    config = _digest(manifest.get("config"))
    document = _load(directory, _path(config))
    layers = [_digest(entry) for entry in _list(manifest.get("layers"))]
    mounts = {str(entry.get("layer")): str(entry.get("name")) for entry in _list(document.get("mounts"))}
    asked = {"Digests": [digest for digest in layers if digest not in mounts], "CacheMounts": sorted(mounts.values())}
    answer = context.client.post("/tare/v1/missing", body=asked)
    assert isinstance(answer, dict)
    lacking = {str(digest) for digest in _plain(answer.get("Missing"))}
    absent = {str(name) for name in _plain(answer.get("CacheMounts"))}
    lacking |= {digest for digest, name in mounts.items() if name in absent}
    return [_path(digest) for digest in (manifest_digest, config, *(digest for digest in layers if digest in lacking))]


def _manifest(directory: str) -> tuple[str, dict[str, Json]]:
    entries = _list(_load(directory, "index.json").get("manifests"))
    if len(entries) != 1 or entries[0].get("artifactType") != _DOCUMENT:
        raise ValueError("it holds no build cache")
    digest = _digest(entries[0])
    return digest, _load(directory, _path(digest))


def _load(directory: str, name: str) -> dict[str, Json]:
    from tare.client import gojson

    with open(os.path.join(directory, name), "rb") as file:
        found = gojson.loads(file.read(_MAX_DOCUMENT))
    if not isinstance(found, dict):
        raise ValueError(f"{name} is damaged")
    return found


def _plain(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _list(value: Json) -> list[dict[str, Json]]:
    return [entry for entry in _plain(value) if isinstance(entry, dict)]


def _digest(entry: Json) -> str:
    text = str(entry.get("digest")) if isinstance(entry, dict) else ""
    if not _DIGEST.match(text):
        raise ValueError("it is damaged: a digest that is none")
    return text


def _path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


# -- receiving


def check(given: Sequence[Target]) -> None:
    """Raise Exit for a directory that holds something else, before anything is built."""
    for target in given:
        if not target.dest:
            continue
        if not os.path.lexists(target.dest):
            continue
        try:
            if set(os.listdir(target.dest)) - {"blobs", "oci-layout"}:  # those alone: a writing that was cut off
                _manifest(target.dest)
        except (OSError, ValueError):
            text = f"--cache-to: {target.dest} is not empty and holds no build cache: name another directory"
            raise exits.Exit(exits.FAILED, text) from None


def write(context: Context, build_id: str, target: Target) -> None:
    """Read the cache of a build from the engine into a directory. Raises Exit."""
    blobs = os.path.join(target.dest, "blobs", "sha256")
    try:
        os.makedirs(blobs, exist_ok=True)
        have = [f"sha256:{name}" for name in sorted(os.listdir(blobs)) if _DIGEST.match(f"sha256:{name}")]
        body = {"Mode": target.mode, "Mounts": target.mounts, "Have": have}
        answer = context.client.request("POST", f"/tare/v1/builds/{build_id}/cache", body=body)
        try:
            _receive(iter(answer), target.dest)
        finally:
            answer.close()
        _tidy(target.dest)
    except OSError as error:
        raise exits.Exit(exits.FAILED, f"--cache-to: {target.dest}: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:
        raise exits.Exit(exits.FAILED, f"--cache-to: {target.dest}: {error}") from None


def _receive(pieces: Iterator[bytes], directory: str) -> None:
    from tare.drivers.archive import tar

    source = tar.Source(lambda: next(pieces, b""))
    is_whole = False
    try:
        for entry in tar.read_entries(source):
            if entry.kind == tar.DIR:
                continue
            if entry.name == b"index.json":
                is_whole = True
            elif entry.name != b"oci-layout" and not _BLOB.match(entry.name):
                raise ValueError(f"the engine sent a file that is no part of a cache: {entry.name[:100]!r}")
            _keep(directory, entry.name.decode(), source, entry.size)
        source.drain()
    except tar.ArchiveError as error:
        raise ValueError(f"what the engine sent is damaged: {error}") from None
    if not is_whole:
        raise ValueError("the engine could not send all of the cache: see its log")


def _keep(directory: str, name: str, source: Source, size: int) -> None:
    """Write one file under a name that is right only when it is whole and a blob's digest is that of its bytes."""
    import hashlib

    path = os.path.join(directory, name)
    temporary = f"{path}.{os.getpid()}.new"
    digest = hashlib.sha256()
    try:
        with open(temporary, "xb") as file:
            for span in source.spans(size):
                digest.update(span)
                file.write(span)
        if name.startswith("blobs/") and digest.hexdigest() != name.rpartition("/")[2]:
            raise ValueError(f"{name} does not match its digest")
        os.replace(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise


def _tidy(directory: str) -> None:
    """Remove the blobs of the cache that was there before."""
    digest, manifest = _manifest(directory)
    kept = {digest, _digest(manifest.get("config")), *(_digest(entry) for entry in _list(manifest.get("layers")))}
    blobs = os.path.join(directory, "blobs", "sha256")
    for name in os.listdir(blobs):
        if _DIGEST.match(f"sha256:{name}") and f"sha256:{name}" not in kept:
            os.unlink(os.path.join(blobs, name))


if TYPE_CHECKING:
    from tare.drivers.archive.tar import Source

__all__ = ["Target", "check", "read", "sources", "targets", "write"]
