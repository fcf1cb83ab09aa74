"""What the image handlers decide by themselves: platforms, targets, streams that fail early or late."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from tare.api import images as api
from tare.base.errors import InvalidArgument, NotFound
from tare.base.reference import parse_reference
from tare.oci.image import Platform
from tare.web.message import Query


def test_platform_is_json() -> None:
    amd = Query("platform=%7B%22os%22:%22linux%22,%22architecture%22:%22amd64%22%7D")
    assert api.wanted_platform(amd) == Platform("amd64", "linux", "")
    assert api.wanted_platform(Query("platform=")) is None
    for text in ("linux/amd64", "%7B%7D"):
        with pytest.raises(InvalidArgument):
            api.wanted_platform(Query(f"platform={text}"))


def test_targets() -> None:
    assert api._target("", "") is None
    assert api._target("x", "") == parse_reference("x:latest")
    assert api._target("x:1", "2") == parse_reference("x:2")
    with pytest.raises(InvalidArgument, match="digest reference"):
        api._target("x@sha256:" + "a" * 64, "")


async def failing(before: int) -> AsyncIterator[bytes]:
    for _ in range(before):
        yield b"x"
    raise NotFound("gone")


@pytest.mark.parametrize("before", [0, 1])
def test_a_failure_is_the_last_message_of_the_stream(before: int) -> None:
    async def story() -> None:
        parts = [part async for part in api._messages(failing(before))]
        assert parts[:before] == [b"x"] * before
        assert json.loads(parts[before])["error"] == "gone"

    asyncio.run(story())
