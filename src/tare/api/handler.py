"""What all handlers share: the type, reading JSON bodies, wrapping byte iterators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import TypeVar

import msgspec

from tare.base.errors import InvalidArgument
from tare.engine.engine import Engine
from tare.web.message import MAX_JSON_BODY_BYTES, Answer, Request, Response
from tare.wire.decode import decode

Handler = Callable[[Engine, Request], Response | Awaitable[Answer]]
"""A plain function where the answer is known at once (it only looks, and asks nothing of disk or kernel)."""


class Later:
    """The handlers of a module that is loaded at the first request for one of them: an engine that starts has no time.

    `build = Later("tare.api.build")`, then `build.cancel` in a row.
    """

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Handler:
        return _Deferred(self._module, name)


class _Deferred:
    """A handler by name."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name
        self._handler: Handler | None = None

    def __call__(self, engine: Engine, request: Request) -> Response | Awaitable[Answer]:
        return self.resolve()(engine, request)

    def resolve(self) -> Handler:
        """The handler itself. Raises AttributeError when there is none of that name."""
        if self._handler is None:
            found: Handler = getattr(import_module(self._module), self._name)
            self._handler = found
        return self._handler

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self.resolve().__doc__


_FOR_EVER = 2**63 - 1  # nanoseconds: the year 2262, and as far as the database counts
T = TypeVar("T", bound=msgspec.Struct)


async def read_json(request: Request, into: type[T], *, required: bool = False) -> T:
    """The JSON body (W13). An absent body is the zero value unless required. Raises InvalidArgument."""
    body = await request.body.read(MAX_JSON_BODY_BYTES)
    kind = request.headers.get("content-type", "")
    if body.strip():
        media = kind.partition(";")[0].strip().lower()
        if media != "application/json":
            raise InvalidArgument(f"unsupported Content-Type header ({kind}): must be 'application/json'")
    elif required:
        raise InvalidArgument("invalid JSON: got EOF while reading request body")
    return decode(body, into)


def seconds_to_nanos(text: str) -> int:
    """`1700000000`, `1700000000.000000001` as nanoseconds; empty is 0. Raises InvalidArgument."""
    if not text:
        return 0
    whole, _, fraction = text.partition(".")
    try:
        seconds = int(whole)
        nanos = int(fraction[:9].ljust(9, "0")) if fraction else 0
    except ValueError:
        raise InvalidArgument(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    return min(seconds * 1_000_000_000 + nanos, _FOR_EVER)


__all__ = ["Handler", "Later", "read_json", "seconds_to_nanos"]
