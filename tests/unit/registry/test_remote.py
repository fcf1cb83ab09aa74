"""The distribution protocol, against a registry that misbehaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from tare.base.errors import DataCorrupt, InvalidArgument, Unauthorized
from tare.base.reference import parse_reference
from tare.oci.image import OCI_MANIFEST, Descriptor
from tare.registry.challenge import Refusal
from tare.registry.credentials import Credentials
from tare.registry.hosts import RegistryOptions
from tare.registry.remote import Remote, referrers_tag, remote_for
from tare.registry.transport import Transport, Unreachable
from tare.testing.registry import Fault, Registry, digest_of, registry

OPTIONS = RegistryOptions(backoff_s=0)


def run(server: Registry, story: Callable[[Remote], Awaitable[None]], **options: object) -> None:
    async def main() -> None:
        transport = Transport(replace(OPTIONS, **options))  # type: ignore[arg-type]
        try:
            await asyncio.wait_for(story(remote_for(transport, parse_reference(f"{server.host}/a:1"))), 30)
        finally:
            await transport.close()

    asyncio.run(main())


def test_manifests() -> None:
    with registry() as server:
        digest = server.put_manifest("a", "1", {"schemaVersion": 2})

        async def story(remote: Remote) -> None:
            found = await remote.manifest("1")
            assert (found.digest, found.media_type) == (digest, OCI_MANIFEST)
            head = await remote.head("1")
            assert head is not None
            assert head.digest == digest
            assert head.size == len(found.raw)
            assert await remote.head("none") is None
            with pytest.raises(Refusal) as caught:
                await remote.manifest("none")
            assert (caught.value.status, caught.value.code) == (404, "MANIFEST_UNKNOWN")
            server.put_manifest("a", "old", b"{}", "application/vnd.docker.distribution.manifest.v1+json")
            with pytest.raises(InvalidArgument, match="schema 1"):
                await remote.manifest("old")
            server.faults.append(Fault(path="manifests", flip_at=1))
            with pytest.raises(DataCorrupt):
                await remote.manifest(digest)
            assert "application/vnd.oci.image.index.v1+json" in server.log[-1].headers["Accept"]

        run(server, story)


def test_blobs_from_an_offset() -> None:
    with registry() as server:
        data = bytes(range(256)) * 10
        digest = server.put_blob("a", data)

        async def read(remote: Remote, offset: int, size: int) -> tuple[int, bytes]:
            async with remote.blob(digest, offset=offset, size=size) as (start, chunks):
                return start, b"".join([chunk async for chunk in chunks])

        async def story(remote: Remote) -> None:
            assert await read(remote, 0, len(data)) == (0, data)
            assert await read(remote, 100, len(data)) == (100, data[100:])
            server.faults.append(Fault(path="blobs", ignores_range=True))
            assert await read(remote, 100, len(data)) == (0, data)
            with pytest.raises(DataCorrupt, match="instead of"):
                await read(remote, 0, len(data) + 1)
            server.faults.append(Fault(path="blobs", status=206, headers={"Content-Range": "bytes 5-9/2560"}))
            with pytest.raises(DataCorrupt, match="another range"):
                await read(remote, 100, len(data))

        run(server, story)


def test_small_documents_are_verified() -> None:
    with registry() as server:
        raw = b'{"a":1}'
        descriptor = Descriptor("m", server.put_blob("a", raw), len(raw))

        async def story(remote: Remote) -> None:
            assert await remote.document(descriptor, limit=100) == raw
            with pytest.raises(InvalidArgument):
                await remote.document(descriptor, limit=3)
            with pytest.raises(DataCorrupt):
                await remote.document(Descriptor("m", descriptor.digest, 9), limit=100)
            server.faults.append(Fault(path="blobs", flip_at=2))
            with pytest.raises(DataCorrupt):
                await remote.document(descriptor, limit=100)

        run(server, story)


def test_attempts_end() -> None:
    with registry() as server:
        server.put_manifest("a", "1", {})

        async def story(remote: Remote) -> None:
            server.faults.append(Fault(path="manifests", status=503, times=4))
            await remote.manifest("1")
            server.faults.append(Fault(path="manifests", status=503, times=99))
            count = len(server.log)
            with pytest.raises(Refusal):
                await remote.manifest("1")
            assert len(server.log) - count == 5
            server.faults[-1].times = 0
            server.faults.append(Fault(path="manifests", status=429, headers={"Retry-After": "3600"}, times=9))
            count = len(server.log)
            with pytest.raises(Refusal, match="toomanyrequests"):
                await remote.manifest("1")
            assert len(server.log) - count == 1  # nobody waits for an hour

        run(server, story)


def test_lists_page_by_page() -> None:
    with registry() as server:
        for number in range(7):
            server.put_manifest("a", f"t{number}", {})

        async def story(remote: Remote) -> None:
            assert await remote.tags() == [f"t{number}" for number in range(7)]
            assert await remote.catalog(limit=10) == ["a"]
            assert len(server.requests("GET", "tags/list")) == 4

        run(server, story)


def test_uploads_begin_or_mount() -> None:
    with registry() as server:
        digest = server.put_blob("other", b"data")

        async def story(remote: Remote) -> None:
            assert not await remote.has_blob(digest)
            assert (await remote.begin_upload(mount=digest, source="nowhere")).startswith(f"http://{server.host}/v2/a/")
            assert await remote.begin_upload(mount=digest, source="other") == ""
            assert await remote.has_blob(digest)
            await remote.put_manifest("1", b"{}", OCI_MANIFEST)
            assert await remote.has_manifest(digest_of(b"{}"))

        run(server, story)


def test_tokens_are_got_kept_and_renewed() -> None:
    with registry(user="u", password="p", token_uses=2) as server:
        server.put_manifest("a", "1", {})

        async def main() -> None:
            transport = Transport(OPTIONS)
            try:
                reference = parse_reference(f"{server.host}/a:1")
                remote = remote_for(transport, reference, Credentials("u", "p"))
                for _ in range(4):
                    await remote.manifest("1")
                assert len(server.requests("GET", "^/token")) == 2
                asked = server.requests("GET", "^/token")[0]
                assert "scope=repository%3Aa%3Apull" in asked.path
                with pytest.raises(Unauthorized, match="incorrect username or password"):
                    await remote_for(transport, reference, Credentials("u", "wrong")).manifest("1")
                fixed = remote_for(transport, reference, Credentials(registry_token=server.new_token()))
                await fixed.manifest("1")
                refresh = remote_for(transport, reference, Credentials(identity_token="refresh-me"))
                await refresh.manifest("1")
                assert len(server.requests("POST", "^/token")) == 1
            finally:
                await transport.close()

        asyncio.run(main())


def test_a_dead_mirror_is_passed_by() -> None:
    with registry() as server, registry() as mirror:
        server.put_manifest("a", "1", {})
        address = f"http://{mirror.host}"

        async def story(remote: Remote) -> None:
            await remote.manifest("1")
            assert len(mirror.requests("GET", "manifests")) == 1  # it was asked, and did not have it
            mirror.put_manifest("a", "1", {"from": "mirror"})
            assert json.loads((await remote.manifest("1")).raw) == {"from": "mirror"}

        run(server, story, mirrors={server.host: (address,)})
        mirror.close()
        run(server, lambda remote: _fine(remote), mirrors={server.host: (address,)})


async def _fine(remote: Remote) -> None:
    assert json.loads((await remote.manifest("1")).raw) == {}


def test_nothing_at_the_other_end() -> None:
    with registry() as server:
        host = server.host

    async def main() -> None:
        transport = Transport(OPTIONS)
        try:
            with pytest.raises(Unreachable, match="refused"):
                await remote_for(transport, parse_reference(f"{host}/a:1")).manifest("1")
        finally:
            await transport.close()

    asyncio.run(main())


@pytest.mark.parametrize("status", [404, 405, 501])
def test_referrers_by_list_or_by_tag(status: int) -> None:
    with registry(serves_referrers=True) as server:
        subject = server.put_image("a", "1", [b""])
        found = {server.put_artifact("a", "", {"application/x": data}, subject=subject) for data in (b"1", b"2", b"3")}

        async def story(remote: Remote) -> None:
            assert {entry.digest for entry in await remote.referrers(subject)} == found  # page by page
            assert await remote.referrers(digest_of(b"nobody")) == []
            server.faults.append(Fault(path="referrers", status=status, times=9))
            assert await remote.referrers(subject) == []
            one, two = (Descriptor(OCI_MANIFEST, digest_of(data), 1, artifactType="x/y") for data in (b"1", b"2"))
            for entry in (one, two, one):
                await remote.add_referrer(subject, entry)
            assert await remote.referrers(subject) == [one, two]
            assert referrers_tag(subject) == subject.replace(":", "-")
            server.faults.append(Fault(path="referrers", status=403, times=9))
            server.faults.pop(0)
            with pytest.raises(Refusal):
                await remote.referrers(subject)

        run(server, story)
