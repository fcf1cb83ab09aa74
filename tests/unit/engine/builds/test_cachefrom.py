"""Which steps the images named by --cache-from give."""

from __future__ import annotations

import json

from tare.base.digest import sha256
from tare.engine.builds.cachefrom import CacheSources
from tare.images.records import Image, Layer
from tare.oci.image import parse_config
from tare.wire.config import ContainerConfig

BASE = {"created_by": "base"}
ENV = {"created_by": "ENV A=1", "empty_layer": True}
RUN = {"created_by": "RUN make"}


def layer(letter: str) -> Layer:
    digest = sha256(letter.encode())
    return Layer(
        chain_id=digest, parent=None, diff_id=digest, blob=digest, blob_size=1, compression="plain", plain_size=1,
        size_bytes=1,
    )  # fmt: skip


def image(*history: dict[str, object], layers: str) -> Image:
    raw = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer(letter).diff_id for letter in layers]},
            "history": history,
        }
    ).encode()
    return Image(
        id=sha256(raw),
        raw=raw,
        document=parse_config(raw),
        config=ContainerConfig(),
        layers=tuple(layer(letter) for letter in layers),
    )


BUILT = CacheSources((image(BASE, layers="x"), image(BASE, ENV, RUN, layers="ab")))
NOTHING = CacheSources(())


def test_files_are_those_of_any_layer_of_any_image() -> None:
    assert [BUILT.have_files(layer(letter).chain_id) for letter in "abxc"] == [True, True, True, False]
    assert not NOTHING.have_files(layer("a").chain_id)
    assert (BUILT.have_files(None), NOTHING.have_files(None)) == (True, False)


def test_a_step_without_files_needs_the_same_steps_before_it() -> None:
    assert BUILT.have_step([BASE], "ENV A=1")
    assert not BUILT.have_step([BASE], "ENV A=2")
    assert not BUILT.have_step([{"created_by": "other base"}], "ENV A=1")
    assert not BUILT.have_step([], "base"), "the base has files"
    assert not BUILT.have_step([BASE, ENV], "RUN make"), "so has a RUN"
    assert not BUILT.have_step([BASE, ENV, RUN], "CMD x"), "further than any image goes"
    assert not NOTHING.have_step([], "ENV A=1")
