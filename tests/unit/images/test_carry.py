"""Artifacts from and to a registry that misbehaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tare.base.digest import sha256
from tare.base.errors import DataCorrupt
from tare.base.reference import parse_reference
from tare.images import artifacts, carry, manifests, records
from tare.images.artifacts import Artifact, Artifacts, read_artifact
from tare.oci.image import OCI_MANIFEST
from tare.registry.downloads import Downloads
from tare.registry.hosts import RegistryOptions
from tare.registry.remote import Remote, remote_for
from tare.registry.transport import Transport
from tare.registry.uploads import Uploads
from tare.store.db import Database
from tare.testing.registry import Fault, Registry, digest_of, registry

NOTE = "application/x.note"

NAME = parse_reference("x:1")


@dataclass
class World:
    """The parts, and the repository they talk to."""

    remote: Remote
    store: Artifacts
    downloads: Downloads
    uploads: Uploads


def tell(root: Path, server: Registry, story: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        transport = Transport(RegistryOptions(backoff_s=0))
        database = Database(root / "db", [records.SCHEMA, manifests.SCHEMA, artifacts.SCHEMA])
        try:
            remote = remote_for(transport, parse_reference(f"{server.host}/a"), push=True)
            world = World(remote, Artifacts(database, root), Downloads(root, slots=3), Uploads(root))
            await asyncio.wait_for(story(world), 30)
        finally:
            await transport.close()
            database.close()

    asyncio.run(main())


async def statuses(steps: AsyncIterator[carry.Progress]) -> list[str]:
    return [step.status async for step in steps]


async def look(world: World, name: str) -> Artifact:
    found = await world.remote.manifest(name)
    return read_artifact(found.raw, OCI_MANIFEST)


def test_cuts_are_healed_and_lies_found(tmp_path: Path) -> None:
    with registry() as server:
        data = bytes(range(256)) * 4000
        server.put_artifact("a", "1", {NOTE: data, "application/x.nothing": b""})

        async def story(world: World) -> None:
            artifact = await look(world, "1")
            server.faults.append(Fault(path=f"blobs/{digest_of(data)}", flip_at=5))
            with pytest.raises(DataCorrupt, match=f"verification failed for digest {digest_of(data)}"):
                await statuses(carry.fetch(world.remote, world.store, world.downloads, artifact, reference=NAME))
            assert list((tmp_path / "downloads").iterdir()) == []
            server.faults.append(Fault(path=f"blobs/{digest_of(data)}", cut_at=100_000))
            seen = await statuses(carry.fetch(world.remote, world.store, world.downloads, artifact, reference=NAME))
            assert seen.count("Pull complete") == 3  # nothing was kept of the attempt that failed
            assert server.requests("GET", f"blobs/{digest_of(data)}")[-1].headers["Range"] == "bytes=100000-"
            again = await statuses(carry.fetch(world.remote, world.store, world.downloads, artifact, reference=NAME))
            assert again == ["Already exists"] * 3
            assert list((tmp_path / "downloads").iterdir()) == []

        tell(tmp_path, server, story)


def test_damaged_bytes_of_an_earlier_attempt_are_fetched_anew(tmp_path: Path) -> None:
    with registry() as server:
        data = b"note" * 100_000
        server.put_artifact("a", "1", {NOTE: data})

        async def story(world: World) -> None:
            (tmp_path / "downloads" / digest_of(data).removeprefix("sha256:")).write_bytes(b"x" * 1000)
            artifact = await look(world, "1")
            await statuses(carry.fetch(world.remote, world.store, world.downloads, artifact, reference=NAME))
            assert world.store.damaged() == []

        tell(tmp_path, server, story)


@pytest.mark.parametrize("serves_referrers", [True, False])
def test_referrers_there_and_back(tmp_path: Path, serves_referrers: bool) -> None:
    """From a registry with or without the list, to another such: the same bytes, and found there again."""
    with registry(serves_referrers=serves_referrers) as server:
        subject = server.put_image("a", "1", [b""])
        first = server.put_artifact("a", "", {NOTE: b"1"}, artifact_type="application/x.sig", subject=subject)
        second = server.put_artifact("a", "", {NOTE: b"2"}, subject=subject)
        above = server.put_artifact("a", "", {NOTE: b"3"}, subject=first)
        if not serves_referrers:
            for about, found in ((subject, [first, second]), (first, [above])):
                entries = [
                    {"mediaType": OCI_MANIFEST, "digest": one, "size": len(server.manifests["a", one][1])}
                    for one in found
                ]
                document = {"schemaVersion": 2, "manifests": entries}
                index = "application/vnd.oci.image.index.v1+json"
                server.put_manifest("a", about.replace(":", "-"), document, index)

        async def story(world: World) -> None:
            seen = await statuses(carry.fetch_referrers(world.remote, world.store, world.downloads, [subject]))
            assert len([one for one in seen if one.startswith("Pulling referrer")]) == 3
            found = world.store.about_all([subject])
            assert {one.digest for one in found} == {first, second, above}
            transport = Transport(world.remote.options)
            there = Remote(transport, domain=server.host, path="b", push=True)
            for artifact in found:
                await statuses(carry.send(there, world.store, world.uploads, artifact))
                assert server.manifests["b", artifact.digest] == server.manifests["a", artifact.digest]
            assert {one.digest for one in await there.referrers(subject)} == {first, second}
            assert [one.digest for one in await there.referrers(first)] == [above]
            if not serves_referrers:
                listed = json.loads(server.manifests["b", subject.replace(":", "-")][1])["manifests"]
                assert {one["artifactType"] for one in listed} == {"application/x.sig", NOTE}
            await transport.close()

        tell(tmp_path, server, story)


def test_an_index_tells_which_attestations_come_along(tmp_path: Path) -> None:
    with registry() as server:
        ours, other = (server.put_image("a", "", [data]) for data in (b"1", b"2"))
        about = {server.put_artifact("a", "", {"application/vnd.in-toto+json": data}): data for data in (b"o", b"t")}
        wanted, unwanted = about
        index = server.put_index("a", "1", [], attested={wanted: ours, unwanted: other})
        raw = server.manifests["a", index][1]

        async def story(world: World) -> None:
            digest = sha256(raw)
            steps = carry.fetch_listed(world.remote, world.store, world.downloads, raw, digest, {ours})
            await statuses(steps)
            assert [one.digest for one in world.store.all()] == [wanted]
            del server.manifests["a", unwanted]  # a registry that has lost one
            await statuses(carry.fetch_listed(world.remote, world.store, world.downloads, raw, digest, {other}))
            assert [one.digest for one in world.store.all()] == [wanted]

        tell(tmp_path, server, story)
