"""Paths to handlers. Image names hold slashes, so `{name:*}` is greedy and matched from the right.

An unknown path and a wrong method are the same answer, 404 `page not found`, as Docker's clients expect (never 405).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Generic, TypeVar
from urllib.parse import unquote

from msgspec import Struct

from tare.base.errors import InvalidArgument, NotFound

H = TypeVar("H")

_VERSION = re.compile(r"/v([0-9]{1,4})\.([0-9]{1,4})(?=/|\Z)")
_VARIABLE = re.compile(r"\{([a-z_]+)(:\*)?\}")


class Route(Struct, Generic[H], frozen=True):
    """One row of the table. `permission` is read, write or admin; `since` the API version that brought it."""

    method: str
    pattern: str
    handler: H
    permission: str
    since: tuple[int, int] = (1, 0)

    def __post_init__(self) -> None:
        if self.permission not in ("read", "write", "admin"):
            raise ValueError(f"{self.method} {self.pattern}: a route must declare its permission")


def tidy(path: str) -> str:
    """Without doubled slashes, `.` and `..`: where Docker sends clients whose address ended in a slash.

    Source: gorilla/mux cleanPath.
    """
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts) + ("/" if parts and path.endswith("/") else "")


def split_version(path: str, *, newest: tuple[int, int], oldest: tuple[int, int]) -> tuple[tuple[int, int], str]:
    """Take `/v1.41` off a path. Without one the newest version is meant. Raises InvalidArgument outside the range.

    Source: moby daemon/server/middleware/version.go (texts are searched by clients).
    """
    match = _VERSION.match(path)
    if match is None:
        return newest, path
    version = (int(match[1]), int(match[2]))
    asked = f"{version[0]}.{version[1]}"
    if version > newest:
        raise InvalidArgument(
            f"client version {asked} is too new. Maximum supported API version is {newest[0]}.{newest[1]}"
        )
    if version < oldest:
        raise InvalidArgument(
            f"client version {asked} is too old. Minimum supported API version is {oldest[0]}.{oldest[1]}, "
            "please upgrade your client to a newer version"
        )
    return version, path[match.end() :] or "/"


class Router(Generic[H]):
    """All routes, ordered so that the more literal pattern wins."""

    def __init__(self, routes: Iterable[Route[H]]) -> None:
        self._static: dict[tuple[str, str], Route[H]] = {}
        self._dynamic: dict[str, list[tuple[re.Pattern[str], Route[H]]]] = {}
        for route in routes:
            if "{" not in route.pattern:
                self._static[route.method, route.pattern] = route
                continue
            regex = re.escape(route.pattern).replace(r"\{", "{").replace(r"\}", "}").replace(r":\*", ":*")
            regex = _VARIABLE.sub(lambda m: f"(?P<{m[1]}>{'.+' if m[2] else '[^/]+'})", regex)
            self._dynamic.setdefault(route.method, []).append((re.compile(regex + r"\Z"), route))

    def find(self, method: str, path: str) -> tuple[Route[H], dict[str, str]]:
        """The route for an unversioned path and its decoded variables. Raises NotFound."""
        static = self._static.get((method, path))
        if static is not None:
            return static, {}
        for regex, route in self._dynamic.get(method, ()):
            match = regex.match(path)
            if match is not None:
                return route, {name: unquote(value) for name, value in match.groupdict().items()}
        raise NotFound("page not found")
