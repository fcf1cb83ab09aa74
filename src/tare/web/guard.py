"""Who may speak to a TCP listener through a browser: nobody's page but ours.

A browser sends requests for any page that asks. Two headers tell: `Host` is the name the page's author wrote (an
attacker's own name, pointed at us, shows there), `Origin` is the page that asks.
Source: RFC 9110 section 7.2, RFC 6454 section 7; SECURITY notes of the project.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from msgspec import Struct

_LOOKS = frozenset({"GET", "HEAD"})
_PORTS = {"http": "80", "https": "443"}


class Guard(Struct, frozen=True):
    """names: hosts we answer to, in lower case; addresses in figures are always ours. scheme: http or https."""

    names: frozenset[str]
    scheme: str

    def refusal(self, method: str, headers: Mapping[str, str]) -> str:
        """Why this request is not answered, "" when it is."""
        host = headers.get("host", "")
        name, _ = split_host(host)
        if not self._is_ours(name):
            return f"this engine does not answer to the host {host!r}: start it with --allowed-host NAME if it should"
        origin = headers.get("origin", "")
        if origin and (method not in _LOOKS or "upgrade" in headers) and not self._is_same(origin, host):
            return f"requests from pages of {origin!r} are refused"
        return ""

    def _is_ours(self, name: str) -> bool:
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _is_same(self, origin: str, host: str) -> bool:
        scheme, found, place = origin.lower().partition("://")
        if not found or scheme != self.scheme:
            return False
        default = _PORTS[self.scheme]
        (name, port), (own, own_port) = split_host(place), split_host(host)
        return (name, port or default) == (own, own_port or default)


def split_host(text: str) -> tuple[str, str]:
    """`name:port`, `[v6]:port`, `name` as (name, port), lower case; ("", "") for what is neither."""
    text = text.strip().lower()
    if text.startswith("["):
        name, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            return "", ""
        port = rest[1:]
    else:
        name, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit()):
        return "", ""
    return name.rstrip("."), port
