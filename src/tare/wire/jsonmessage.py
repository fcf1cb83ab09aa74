"""Progress messages: the stream that pull, push, load, import and build answer with.

One JSON object and CRLF per message. `docker` draws a bar for those with `id` and `progressDetail` (`about` here is that `id`); an error ends the
stream with `errorDetail` and, for docker-py and older clients, `error`.
Source: moby/moby daemon/internal/streamformatter; ENGINE-API W53, W54.
"""

from __future__ import annotations

from typing import Any

import msgspec

_encode = msgspec.json.encode


def message(
    status: str = "",
    *,
    about: str = "",
    stream: str = "",
    current: int | None = None,
    total: int | None = None,
    progress: bool = False,
    aux: object = None,
    step: object = None,
) -> bytes:
    """One message. Sizes in bytes. `progress`: say progressDetail even when it is empty, as dockerd's pulls do.

    step: beyond Docker, for clients that asked: of a build, the number of the step that says `stream`, or what became of one.
    """
    out: dict[str, Any] = {}
    if stream:
        out["stream"] = stream
    if status:
        out["status"] = status
    if current is not None:
        detail = {"current": current}
        if total:
            detail["total"] = total
        out["progressDetail"] = detail
        out["progress"] = bar(current, total or 0)
    elif progress:
        out["progressDetail"] = {}
    if about:
        out["id"] = about
    if aux is not None:
        out["aux"] = aux
    if step:
        out["step"] = step
    return _encode(out) + b"\r\n"


def failure(text: str, *, code: int = 0) -> bytes:
    """The last message of a stream that failed."""
    detail: dict[str, Any] = {"message": text}
    if code:
        detail = {"code": code, "message": text}
    return _encode({"errorDetail": detail, "error": text}) + b"\r\n"


def bar(current: int, total: int) -> str:
    """The pre-rendered bar old clients print: `[=====>     ]  1.5MB/3MB`."""
    if total <= 0:
        return human_size(current)
    done = min(50, 50 * current // total)
    head = "=" * done + (">" if done < 50 else "")
    return f"[{head.ljust(50)}]  {human_size(current)}/{human_size(total)}"


def human_size(size: int) -> str:
    """`1.234MB`: four significant digits, decimal units, as Docker's tables show sizes."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB", "PB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.4g}{units[0]}"
