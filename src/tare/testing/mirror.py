"""The Debian mirror that this machine itself uses, so that tests and measurements work behind a mirror of one's own."""

from __future__ import annotations

import ipaddress
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

_APT = Path("/etc/apt")


class NoMirror(Exception):
    """None is reachable; the text says why."""


def configured(apt: Path = _APT) -> Iterator[str]:
    """The addresses in apt's lists, in both formats, in the order they stand there."""
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    for file in files:
        if file.suffix not in (".list", ".sources") or not file.is_file():
            continue
        for line in file.read_text(errors="replace").splitlines():
            words = line.split()
            if words and words[0] in ("deb", "URIs:"):
                yield from (word for word in words if word.startswith("http"))


def debian_mirror(release: str) -> str:
    """The first of them that has this release of Debian and that containers can reach, too. Raises NoMirror."""
    reason = "none in /etc/apt"
    for mirror in configured():
        try:
            with urllib.request.urlopen(f"{mirror.rstrip('/')}/dists/{release}/Release", timeout=10) as answer:
                is_debian = b"Origin: Debian\n" in answer.read(1000)
            address = socket.gethostbyname(urlsplit(mirror).hostname or "")
        except OSError as error:
            reason = str(error)
            continue
        if is_debian and not ipaddress.ip_address(address).is_loopback:
            return mirror
        reason = "one that has no Debian, or that containers cannot reach"
    raise NoMirror(reason)
