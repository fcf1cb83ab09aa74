"""The tables give back what was put in."""

from __future__ import annotations

import json
import sqlite3

from tare.base.digest import sha256
from tare.base.reference import parse_reference
from tare.images import records
from tare.images.records import Image, Layer
from tare.oci.image import parse_config
from tare.wire.config import ContainerConfig

LAYER = Layer(
    chain_id=sha256(b"c"),
    parent=None,
    diff_id=sha256(b"c"),
    blob=sha256(b"b"),
    blob_size=1,
    compression="gzip",
    plain_size=2,
    size_bytes=3,
)
RAW = json.dumps({"rootfs": {"type": "layers", "diff_ids": [LAYER.diff_id]}}).encode()
IMAGE = Image(
    id=sha256(RAW), raw=RAW, document=parse_config(RAW), config=ContainerConfig(), layers=(LAYER,), imported_at=9
)


def test_round_trip_and_delete() -> None:
    db = sqlite3.connect(":memory:")
    db.executescript(records.SCHEMA)
    reference = parse_reference("x:1")
    records.insert_image(db, IMAGE)
    records.insert_image(db, IMAGE)
    records.set_tag(db, reference, IMAGE.id, 5)
    loaded = records.load_all(db)
    assert loaded.layers == {LAYER.chain_id: LAYER}
    assert loaded.images == [(IMAGE.id, RAW, None, 5, 9)]
    assert loaded.tags == {reference: IMAGE.id}
    records.delete(db, references=[reference], images=[IMAGE.id], layers=[LAYER.chain_id])
    empty = records.load_all(db)
    assert (empty.layers, empty.images, empty.tags) == ({}, [], {})


def test_an_image_adds_up() -> None:
    assert (IMAGE.size_bytes, IMAGE.chain_id, IMAGE.diff_ids) == (3, LAYER.chain_id, (LAYER.diff_id,))


def test_what_is_held_for_a_container_is_a_set_and_that_of_older_data_roots_is_in_it() -> None:
    db = sqlite3.connect(":memory:")
    db.executescript(records.SCHEMA)
    one, two, old = sha256(b"1"), sha256(b"2"), sha256(b"old")
    db.execute("INSERT INTO holds VALUES ('a', ?)", (old,))
    records.insert_holds(db, [("a", one), ("a", two), ("a", one), ("b", two)])
    assert records.load_all(db).holds == {"a": frozenset({old, one, two}), "b": frozenset({two})}
    records.delete_holds(db, ["a"])
    assert records.load_all(db).holds == {"b": frozenset({two})}
    db.close()
