"""What is counted where it happens, for whoever asks later."""

from __future__ import annotations

from collections import Counter

from msgspec import Struct, field


class Timed(Struct):
    """How often a route was asked for, and how long the answers took that were waited for."""

    count: int = 0
    waited: int = 0
    seconds: float = 0.0


class Counters(Struct):
    """Of the API since the start."""

    routes: dict[tuple[str, str], Timed] = field(default_factory=dict)
    errors: Counter[int] = field(default_factory=Counter)

    def of(self, method: str, pattern: str) -> Timed:
        """The counter of one route, for the caller to increment."""
        return self.routes.setdefault((method, pattern), Timed())
