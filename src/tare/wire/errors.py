"""Error classes to HTTP statuses: the only table of its kind."""

from __future__ import annotations

import errno

from tare.base import errors

STATUS: dict[type[errors.TareError], int] = {
    errors.NotModified: 304,
    errors.InvalidArgument: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.ClientGone: 499,
    errors.InternalError: 500,
    errors.DataCorrupt: 500,
    errors.NotImplementedYet: 501,
    errors.Unavailable: 503,
}


SHORTAGES: dict[int, str] = {
    errno.ENOSPC: "no space left on device: remove images or containers, then repeat",
    errno.EDQUOT: "disk quota exceeded: remove images or containers, then repeat",
    errno.EMFILE: "too many open files: repeat later, or start the daemon with a higher limit (LimitNOFILE)",
    errno.ENFILE: "too many open files in system: repeat later",
    errno.ENOMEM: "cannot allocate memory: repeat later",
}
"""What the host has no more of, wherever that was met: the caller can do no more about it than wait or make room."""


def status_of(error: BaseException) -> int:
    """The HTTP status of an error; 500 for anything unexpected."""
    if isinstance(error, OSError) and error.errno in SHORTAGES:
        return STATUS[errors.Unavailable]
    for cls in type(error).__mro__:
        if cls in STATUS:
            return STATUS[cls]
    return 500


def text_of(error: BaseException) -> str:
    """The one line a client prints: message, then the advice if there is any."""
    if isinstance(error, errors.TareError):
        return f"{error.message}: {error.hint}" if error.hint else error.message
    if isinstance(error, OSError) and error.errno in SHORTAGES:
        return SHORTAGES[error.errno]
    return f"{type(error).__name__}: {error}"
