"""Exit codes of the command line: the only place that chooses one."""

from __future__ import annotations

OK = 0
FAILED = 1
BAD_TEMPLATE = 64
"""`version --format` with a template that cannot be read."""
USAGE = 125
"""A flag that cannot be parsed; and, for run, every failure before the program itself."""
CANNOT_RUN = 126
NOT_FOUND = 127
INTERRUPTED = 130
SIGPIPE = 141

_CANNOT_RUN = ("permission denied", "is a directory", "not a directory", "text file busy")
_NOT_FOUND = (
    "executable file not found",
    "no such file or directory",
    "system cannot find the file specified",
    "failed to run runc create/exec call",
)


def of_start_error(message: str) -> int:
    """The code of `run` when the engine could not start the program.

    Source: docker run manual, "Exit status": 127 not found, 126 found and not executable, 125 everything else.
    """
    lower = message.lower()
    if any(text in lower for text in _NOT_FOUND):
        return NOT_FOUND
    if any(text in lower for text in _CANNOT_RUN):
        return CANNOT_RUN
    return USAGE


class Exit(Exception):
    """Leave with `code`; `message`, if any, was not printed yet and goes to stderr as it is."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
