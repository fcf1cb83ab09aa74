"""Digests: the `algorithm:hex` names of bytes, and the chainID built from them.

Only the two algorithms of the OCI image specification are accepted, in their canonical lower-case spelling.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import NewType

from tare.base.errors import DataCorrupt, InvalidArgument

Digest = NewType("Digest", str)
"""`sha256:<64 hex>` or `sha512:<128 hex>`; made only by this module, so it can be used in a file name."""

_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")


def parse_digest(text: str) -> Digest:
    """Check that `text` is a canonical digest. Raises InvalidArgument (`invalid checksum digest …`)."""
    if not _DIGEST.match(text):
        raise InvalidArgument(f"invalid checksum digest format: {text[:200]!r}")
    return Digest(text)


def sha256(data: bytes) -> Digest:
    """The sha256 digest of `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def hex_of(digest: Digest) -> str:
    """The hex part, without the algorithm."""
    return digest.partition(":")[2]


def verify(data: bytes, expected: Digest, *, what: str) -> None:
    """Raise DataCorrupt unless `data` has the digest `expected`. `what` names the document in the message."""
    algorithm, _, want = expected.partition(":")
    if hashlib.new(algorithm, data).hexdigest() != want:
        raise DataCorrupt(f"{what} does not match its digest {expected}")


def chain_id(diff_ids: Sequence[Digest]) -> Digest:
    """Name the filesystem made by applying these layers in order.

    diff_ids: base first, at least one; digests of *uncompressed* tars.
    Raises InvalidArgument if empty.
    Source: image-spec config.md, "Layer ChainID".
    """
    if not diff_ids:
        raise InvalidArgument("a chain needs at least one layer")
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = sha256(f"{chain} {diff_id}".encode())
    return chain
