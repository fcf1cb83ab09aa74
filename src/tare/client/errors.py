"""What can go wrong between a client and the engine."""

from __future__ import annotations

from tare.base.errors import TareError


class ApiError(TareError):
    """The engine answered with an error. `status` is the HTTP status, `message` the engine's own text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    def __str__(self) -> str:
        return f"Error response from daemon: {self.message}"


class ConnectionFailed(TareError):
    """No engine could be reached, or it went away in the middle. The text is complete and for people."""


class BadHost(TareError):
    """The address of the engine cannot be used as written."""
