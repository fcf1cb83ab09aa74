"""Events: the news of all domains in the order they happened, for whoever listens now or asks later.

A reader that does not keep up loses its place, never the engine's memory: its queue is bounded and it is told by the
end of its stream.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from tare.base import clock
from tare.base.news import News

REMEMBERED = 4096
QUEUE = 4096


@dataclass(frozen=True, slots=True)
class Event:
    """News with the time it was told (nanoseconds)."""

    at: int
    news: News


class Events:
    """Publish and subscribe; the last `REMEMBERED` are kept for `since`."""

    def __init__(self) -> None:
        self._kept: deque[Event] = deque(maxlen=REMEMBERED)
        self._queues: set[asyncio.Queue[Event | None]] = set()
        self._last = 0

    def publish(self, news: News) -> None:
        """Tell everyone. Times never repeat or go back, so that `since` can continue exactly."""
        self._last = max(clock.now(), self._last + 1)
        event = Event(self._last, news)
        self._kept.append(event)
        for queue in list(self._queues):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._queues.discard(queue)
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(None)

    @property
    def listeners(self) -> int:
        """How many streams are open (for `info`)."""
        return len(self._queues)

    async def stream(self, *, since: int, until: int) -> AsyncIterator[Event]:
        """Events from `since` (0: from now on) to `until` (0: for ever), in nanoseconds."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(QUEUE)
        self._queues.add(queue)
        try:
            past = [event for event in self._kept if event.at >= since] if since else []
            for event in past:
                if until and event.at > until:
                    return
                yield event
            while True:
                left = (until - clock.now()) / 1e9 if until else None
                if left is not None and left <= 0:
                    return
                try:
                    queued = await asyncio.wait_for(queue.get(), left)
                except TimeoutError:
                    return
                if queued is None or (until and queued.at > until):
                    return
                yield queued
        finally:
            self._queues.discard(queue)


def matches(news: News, filters: Mapping[str, list[str]]) -> bool:
    """Whether an event passes Docker's event filters (W43).

    Source: moby daemon/events/filter.go.
    """
    if "event" in filters and not any(
        news.action == want or news.action.startswith(want + ":") for want in filters["event"]
    ):
        return False
    if "type" in filters and news.type not in filters["type"]:
        return False
    if "scope" in filters and "local" not in filters["scope"]:
        return False
    labels_wanted = filters.get("label", [])
    for want in labels_wanted:
        key, equals, value = want.partition("=")
        if key not in news.attributes or (equals and news.attributes[key] != value):
            return False
    for kind in ("container", "network", "volume", "image", "daemon", "plugin"):
        if kind not in filters:
            continue
        name = news.attributes.get("name", "")
        if kind == "image":
            candidates = [news.id, name] if news.type == "image" else [news.attributes.get("image", "")]
            candidates += [candidate.partition(":")[0] for candidate in list(candidates)]
        elif news.type != kind:
            candidates = [news.attributes.get(kind, "")] if news.attributes.get(kind) else []
        else:
            candidates = [news.id, name]
        if not any(c == want or (c == news.id and c.startswith(want)) for want in filters[kind] for c in candidates):
            return False
    return True
