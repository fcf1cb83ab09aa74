"""News: what a domain tells whoever listens, without knowing who does. The engine turns it into Docker events."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from msgspec import Struct, field


class News(Struct, frozen=True, kw_only=True):
    """One thing that happened. `type` is container, image, network or volume; `action` Docker's word for it."""

    type: str
    action: str
    id: str
    attributes: dict[str, str] = field(default_factory=dict)


asked_by: ContextVar[str] = ContextVar("asked_by", default="")
"""Whose request is being served, for the audit trail. Background tasks act for nobody."""

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The number of that request, which the daemon's log repeats."""

Publish = Callable[[News], None]
"""Never blocks, never raises; safe to call from the event loop's thread only."""
