"""Finding images by what people write, and choosing them by filters. Pure, over values handed in."""

from __future__ import annotations

import datetime
import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from msgspec import Struct

from tare.base.digest import Digest
from tare.base.errors import InvalidArgument, NotFound
from tare.base.reference import Reference, parse_reference
from tare.images.cleanup import parse_age
from tare.images.records import Image
from tare.wire.changes import parse_duration

_FULL = re.compile(r"(?:sha256:)?([0-9a-f]{64})\Z")
_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{4,63})\Z")

Filters = Mapping[str, Sequence[str]]

LIST_FILTERS = frozenset({"dangling", "label", "label!", "before", "since", "until", "reference", "unused-for"})
PRUNE_FILTERS = frozenset({"dangling", "label", "label!", "until", "unused-for"})


def find(
    text: str, images: Mapping[Digest, Image], tags: Mapping[Reference, Digest]
) -> tuple[Digest, Reference | None]:
    """The image `text` means, and the reference that led there (None when it was an ID).

    Order: full ID, name:tag or name@digest, prefix of an ID (at least four hex digits).
    Raises NotFound (`No such image: name:tag`), InvalidArgument for what is no reference at all.
    """
    full = _FULL.match(text)
    if full:
        wanted = Digest(f"sha256:{full[1]}")
        if wanted in images:
            return wanted, None
        raise NotFound(f"No such image: {text}")
    reference = None
    if not text.startswith("sha256:"):
        reference = parse_reference(text).with_default_tag()
        if reference in tags:
            return tags[reference], reference
        if reference.digest and reference.tag and (plain := reference.with_digest(reference.digest)) in tags:
            return tags[plain], plain
    prefix = _PREFIX.match(text)
    if prefix:
        found = [image for image in images if image.startswith(f"sha256:{prefix[1]}")]
        if len(found) == 1:
            return found[0], None
        if found:
            raise NotFound(f"ambiguous reference: {text}")
    elif reference is None:
        raise InvalidArgument("invalid reference format")
    raise NotFound(f"No such image: {reference.familiar() if reference else text}")


def created_ns(image: Image) -> int:
    """When the image was made, in ns since the epoch; 0 when it does not say."""
    return time_ns(image.created)


@lru_cache(maxsize=4096)  # lists sort by it, again and again
def time_ns(text: str) -> int:
    """An RFC 3339 time in ns since the epoch; 0 for anything else or before."""
    match = re.match(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)\Z", text)
    if match is None:
        return 0
    try:
        zone = "+00:00" if match[3] in "Zz" else match[3]
        seconds = int(datetime.datetime.fromisoformat(match[1] + zone).timestamp())
    except (ValueError, OverflowError):
        return 0
    return max(0, seconds * 1_000_000_000 + int((match[2] or "0").ljust(9, "0")))


def parse_moment(text: str, now_ns: int) -> int:
    """`until=`: a duration ago (`10m`), a Unix time, or a date, in ns since the epoch. Raises InvalidArgument."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return int(float(text) * 1_000_000_000)
    try:
        return now_ns - parse_duration(text)
    except InvalidArgument:
        pass
    whole = text if "T" in text else f"{text}T00:00:00"
    if re.fullmatch(r".*T\d\d:\d\d", whole):
        whole += ":00"
    moment = time_ns(whole if re.search(r"(?:[Zz]|[+-]\d\d:\d\d)\Z", whole) else whole + "Z")
    if not moment:
        raise InvalidArgument(f"invalid time: {text!r}")
    return moment


class View(Struct, frozen=True):
    """What filters look at beside the image itself."""

    references: Callable[[Digest], list[Reference]]
    resolve: Callable[[str], Image]
    now_ns: int
    last_use: Callable[[Image], int] = lambda _: 0


def choose(images: Iterable[Image], filters: Filters, view: View, *, known: frozenset[str]) -> list[Image]:
    """The images that pass every filter; values of one key are alternatives, except `label`, where all must hold.

    Raises InvalidArgument (`invalid filter 'x'`), NotFound for `before`/`since` of an unknown image.
    """
    for key in filters:
        if key not in known:
            raise InvalidArgument(f"invalid filter '{key}'")
    kept = list(images)
    if values := filters.get("dangling"):
        dangling = truth(values, "dangling")
        kept = [image for image in kept if (not view.references(image.id)) == dangling]
    for value in filters.get("label", ()):
        kept = [image for image in kept if has_label(image, value)]
    for value in filters.get("label!", ()):
        kept = [image for image in kept if not has_label(image, value)]
    for value in filters.get("before", ()):
        moment = created_ns(view.resolve(value))
        kept = [image for image in kept if created_ns(image) < moment]
    for value in filters.get("since", ()):
        moment = created_ns(view.resolve(value))
        kept = [image for image in kept if created_ns(image) > moment]
    for value in filters.get("until", ()):
        moment = parse_moment(value, view.now_ns)
        kept = [image for image in kept if created_ns(image) < moment]
    for value in filters.get("unused-for", ()):
        moment = view.now_ns - parse_age(value)
        kept = [image for image in kept if view.last_use(image) <= moment]
    if patterns := filters.get("reference"):
        kept = [image for image in kept if any(matches(known, patterns) for known in view.references(image.id))]
    return kept


def truth(values: Sequence[str], key: str) -> bool:
    """A boolean filter value. Raises InvalidArgument."""
    if all(value.lower() in ("true", "1", "t") for value in values):
        return True
    if all(value.lower() in ("false", "0", "f") for value in values):
        return False
    raise InvalidArgument(f"invalid filter '{key}={values}'")


def has_label(image: Image, wanted: str) -> bool:
    """Whether the image has the label `key` or `key=value`."""
    key, equals, value = wanted.partition("=")
    labels = image.config.Labels or {}
    return key in labels and (not equals or labels[key] == value)


def matches(reference: Reference, patterns: Sequence[str]) -> bool:
    """Docker's reference patterns: a shell pattern for the familiar name, with or without tag; `*` stops at `/`."""
    names = (reference.familiar(), reference.familiar_name)
    return any(_glob(pattern).fullmatch(name) is not None for pattern in patterns for name in names)


def _glob(pattern: str) -> re.Pattern[str]:
    translated = fnmatch.translate(pattern[:512]).replace(".*", "[^/]*")
    return re.compile(translated)
