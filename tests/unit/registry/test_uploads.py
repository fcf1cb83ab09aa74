"""Uploads: in one piece, after a cut, after a restart."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tare.base.digest import sha256
from tare.base.reference import parse_reference
from tare.registry.challenge import Refusal
from tare.registry.hosts import RegistryOptions
from tare.registry.remote import Remote, remote_for
from tare.registry.transport import Transport
from tare.registry.uploads import Uploads
from tare.testing.registry import Fault, Registry, registry

DATA = bytes(range(256)) * 10_000
DIGEST = sha256(DATA)


def run(root: Path, server: Registry, story: Callable[[Remote, Uploads, int], Awaitable[None]]) -> None:
    async def main() -> None:
        transport = Transport(RegistryOptions(backoff_s=0))
        (root / "blob").write_bytes(DATA)
        fd = os.open(root / "blob", os.O_RDONLY)
        try:
            remote = remote_for(transport, parse_reference(f"{server.host}/a:1"), push=True)
            await asyncio.wait_for(story(remote, Uploads(root), fd), 20)
        finally:
            os.close(fd)
            await transport.close()

    asyncio.run(main())


def test_in_one_piece(tmp_path: Path) -> None:
    with registry() as server:
        told: list[int] = []

        async def story(remote: Remote, uploads: Uploads, fd: int) -> None:
            await uploads.send(remote, DIGEST, len(DATA), file=fd, location="", report=told.append)
            small = sha256(DATA[:10])
            location = await remote.begin_upload()
            await uploads.send(remote, small, 10, file=fd, location=location, report=told.append)

        run(tmp_path, server, story)
        assert server.blobs[DIGEST] == DATA
        assert len(server.blobs) == 2
        assert told[-2:] == [len(DATA), 10]
        assert os.listdir(tmp_path / "uploads") == []


def test_after_a_cut(tmp_path: Path) -> None:
    with registry() as server:
        server.faults.append(Fault(path="uploads/", method="PATCH", cut_at=1_000_000))

        async def story(remote: Remote, uploads: Uploads, fd: int) -> None:
            await uploads.send(remote, DIGEST, len(DATA), file=fd, location="", report=lambda _: None)

        run(tmp_path, server, story)
        assert server.blobs[DIGEST] == DATA
        assert server.requests("PATCH", "uploads/")[1].headers["Content-Range"] == f"1000000-{len(DATA) - 1}"


def test_after_a_restart(tmp_path: Path) -> None:
    with registry() as server:

        async def story(remote: Remote, uploads: Uploads, fd: int) -> None:
            location = await remote.begin_upload()
            server.uploads["u0"] += DATA[:500_000]
            uploads.remember(remote, DIGEST, location)
            assert (tmp_path / "uploads" / os.listdir(tmp_path / "uploads")[0]).stat().st_mode & 0o777 == 0o600
            await uploads.send(remote, DIGEST, len(DATA), file=fd, location="", report=lambda _: None)

        run(tmp_path, server, story)
        assert server.blobs[DIGEST] == DATA
        assert server.received == len(DATA) - 500_000


def test_a_forgotten_session_begins_again(tmp_path: Path) -> None:
    with registry() as server:

        async def story(remote: Remote, uploads: Uploads, fd: int) -> None:
            uploads.remember(remote, DIGEST, f"http://{server.host}/v2/a/blobs/uploads/gone")
            await uploads.send(remote, DIGEST, len(DATA), file=fd, location="", report=lambda _: None)
            server.faults.append(Fault(path="uploads/", method="PUT", status=404))
            await uploads.send(remote, DIGEST, len(DATA), file=fd, location="", report=lambda _: None)

        run(tmp_path, server, story)
        assert server.blobs[DIGEST] == DATA


def test_a_refused_upload_fails(tmp_path: Path) -> None:
    with registry() as server:
        server.faults.append(Fault(path="uploads/", method="PATCH", status=403, times=99))

        async def story(remote: Remote, uploads: Uploads, fd: int) -> None:
            with pytest.raises(Refusal):
                await uploads.send(remote, DIGEST, len(DATA), file=fd, location="", report=lambda _: None)

        run(tmp_path, server, story)


def test_old_ones_are_swept(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    (tmp_path / "uploads" / "x").touch()
    uploads.sweep(older_than_s=0)
    assert os.listdir(tmp_path / "uploads") == ["x"]
    uploads.sweep(older_than_s=2e9)
    assert os.listdir(tmp_path / "uploads") == []
