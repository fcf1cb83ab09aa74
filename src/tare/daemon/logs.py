"""The daemon's own log: lines for people, or JSON for collectors; each with the number of the request it belongs to."""

from __future__ import annotations

import json
import logging
import sys
import time

from tare.base.news import request_id

FORMATS = ("text", "json")


class TextFormatter(logging.Formatter):
    """`2026-11-24 04:12:36,347 INFO tare.engine: words (request 1f)`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        number = request_id.get()
        if not number:
            return text
        first, newline, rest = text.partition("\n")
        return f"{first} (request {number}){newline}{rest}"


class JsonFormatter(logging.Formatter):
    """One object a line: time (RFC 3339, UTC), level, logger, msg, and request and error where there are any."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if number := request_id.get():
            entry["request"] = number
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def set_up(level: int, form: str) -> None:
    """Log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler])
