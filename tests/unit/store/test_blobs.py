"""The content store: nothing unverified becomes visible, nothing half-written stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tare.base.digest import Digest, sha256
from tare.base.errors import DataCorrupt, NotFound
from tare.store.blobs import Blobs


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    with blobs.writer(expected=sha256(b"hello"), size=5) as writer:
        writer.write(b"hel")
        writer.write(b"lo")
        digest = writer.commit()
    assert blobs.read(digest, limit=5) == b"hello"
    assert blobs.size(digest) == 5
    assert os.listdir(tmp_path / "ingest") == []


@pytest.mark.parametrize(("expected", "size"), [(sha256(b"other"), None), (None, 4), (None, 6)])
def test_a_lie_leaves_nothing(tmp_path: Path, expected: Digest | None, size: int | None) -> None:
    blobs = Blobs(tmp_path)

    def lie() -> None:
        with blobs.writer(expected=expected, size=size) as writer:
            writer.write(b"hello")
            writer.commit()

    with pytest.raises(DataCorrupt):
        lie()
    assert os.listdir(tmp_path / "ingest") == []
    assert os.listdir(tmp_path / "blobs" / "sha256") == []


def test_changed_bytes_are_noticed(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    with blobs.writer() as writer:
        writer.write(b"hello")
        digest = writer.commit()
    blobs.path(digest).write_bytes(b"hullo")
    with pytest.raises(DataCorrupt):
        blobs.read(digest, limit=100)


def test_remove_is_idempotent_and_open_says_not_found(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    digest = sha256(b"x")
    blobs.remove(digest)
    with pytest.raises(NotFound):
        blobs.open(digest)
    with pytest.raises(NotFound):
        blobs.size(digest)


def test_sweep_keeps_what_has_a_record(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    kept = []
    for data in (b"a", b"b"):
        with blobs.writer() as writer:
            writer.write(data)
            kept.append(writer.commit())
    blobs.new_ingest()
    assert blobs.sweep({kept[0]}) == [kept[1]]
    assert blobs.exists(kept[0])
    assert not blobs.exists(kept[1])
    assert os.listdir(tmp_path / "ingest") == []
