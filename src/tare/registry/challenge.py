"""What a registry says about who may do what: `WWW-Authenticate`, token answers, error documents. No input or output.

Source: RFC 9110 section 11.6; distribution's token specification; OCI distribution-spec, "Error Codes".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from tare.base.errors import TareError

_DEFAULT_LIFE_S = 60
_SHOWN = 300
_PIECE = re.compile(
    r"""\s*,?\s*(?:
        (?P<key>[!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s,"]+))
        | (?P<scheme>[!#$%&'*+.^_`|~0-9A-Za-z-]+)(?=\s|,|\Z)
    )""",
    re.VERBOSE,
)


class Challenge(Struct, frozen=True):
    """One way to authenticate: `bearer` or `basic` (lower case) with its parameters."""

    scheme: str
    params: dict[str, str] = field(default_factory=dict)


def parse_challenges(headers: Sequence[str]) -> list[Challenge]:
    """The challenges of all WWW-Authenticate headers, in order; what cannot be read ends its header."""
    found: list[Challenge] = []
    for header in headers:
        at, text = 0, header[:8192]
        current: Challenge | None = None
        while at < len(text) and (match := _PIECE.match(text, at)) and match.end() > at:
            at = match.end()
            if match["scheme"]:
                current = Challenge(match["scheme"].lower())
                found.append(current)
            elif current is not None:
                quoted = match["quoted"]
                value = match["bare"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                current.params[match["key"].lower()] = value
    return found


def merge_scopes(*scopes: str) -> str:
    """Space-joined `type:name:actions`, each resource once with the union of its actions, in order of appearance."""
    actions: dict[str, list[str]] = {}
    for scope in " ".join(scopes).split():
        resource, _, wanted = scope.rpartition(":")
        known = actions.setdefault(resource, [])
        known += [action for action in wanted.split(",") if action not in known]
    return " ".join(f"{resource}:{','.join(sorted(wanted))}" for resource, wanted in actions.items())


class Token(Struct, frozen=True):
    """A bearer token, how long it is good, and the refresh token that came with it ("" for none)."""

    text: str
    life_s: int
    refresh: str = ""


def parse_token(body: bytes) -> Token | None:
    """A token server's answer; None when it holds no token."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    text = found.get("token") or found.get("access_token")
    life = found.get("expires_in")
    refresh = found.get("refresh_token")
    if not isinstance(text, str) or not text.isascii() or not text.isprintable():
        return None
    return Token(
        text,
        max(life, _DEFAULT_LIFE_S) if isinstance(life, int) else _DEFAULT_LIFE_S,
        refresh if isinstance(refresh, str) else "",
    )


class Refusal(TareError):
    """A registry answered with an error. `code` is the protocol's (`MANIFEST_UNKNOWN`), "" when it gave none."""

    def __init__(self, message: str, *, status: int, code: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s

    @property
    def is_denied(self) -> bool:
        """Whether other credentials might have helped."""
        return self.status in (401, 403) or self.code in ("DENIED", "UNAUTHORIZED")


def refusal(status: int, body: bytes, *, what: str) -> Refusal:
    """The error in an answer. what: the request, for answers that say nothing themselves (`GET https://…`)."""
    for code, text in _errors(body):
        name = code.replace("_", " ").lower()
        return Refusal(f"{name}: {text}" if name and text else name or text, status=status, code=code)
    if status == 429:
        return Refusal("toomanyrequests: the registry refuses more requests for now", status=status)
    if status == 401:
        return Refusal("unauthorized: authentication required", status=status)
    return Refusal(f"{what}: unexpected answer {status}", status=status)


def _errors(body: bytes) -> Iterable[tuple[str, str]]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return
    if not isinstance(found, dict):
        return
    listed = found.get("errors")
    for item in listed if isinstance(listed, list) else ():
        if isinstance(item, dict):
            yield _clean(item.get("code")), _clean(item.get("message"))
    # Token servers of several makers say {"details": …}, {"message": …} or {"error": …}.
    for key in ("details", "message", "error_description", "error"):
        if isinstance(found.get(key), str):
            yield "", _clean(found[key])


def _clean(text: object) -> str:
    """One printable line of bounded length from somebody else's server."""
    line = text if isinstance(text, str) else ""
    return "".join(character if character.isprintable() else " " for character in line[:_SHOWN]).strip()


__all__ = ["Challenge", "Refusal", "Token", "merge_scopes", "parse_challenges", "parse_token", "refusal"]
