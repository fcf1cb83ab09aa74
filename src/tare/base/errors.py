"""The error vocabulary: each class says what the *caller* can do about it.

`wire/errors.py` maps these to HTTP statuses and `cli/exit.py` to exit codes; nowhere else is a number chosen.
The text is part of the API (clients search it); advice for a person goes into `hint`.
"""

from __future__ import annotations


class TareError(Exception):
    """Root of all expected errors. `str()` is the message a client sees; `hint` is one line of advice, or None."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidArgument(TareError):
    """The request can never succeed as written: change it."""


class Unauthorized(TareError):
    """Credentials are missing or wrong."""


class Forbidden(TareError):
    """The caller is known and may not do this, whatever the arguments."""


class NotFound(TareError):
    """The thing named does not exist."""


class Conflict(TareError):
    """The state of the thing named forbids this now: change the state, then repeat."""


class NotModified(TareError):
    """The thing is already as the caller wants it."""


class NotImplementedYet(TareError):
    """A part of the API this engine does not serve."""


class Unavailable(TareError):
    """Something the engine needs is missing or busy: repeat later or repair the host."""


class InternalError(TareError):
    """The engine or a tool it drives failed in a way the caller cannot influence."""


class DataCorrupt(TareError):
    """Stored or received bytes are not what their digest or format promises."""


class ClientGone(TareError):
    """The client closed the connection before the answer was complete."""
