"""TCP listeners: what has to be said before the engine, which is root on this machine, listens on a network.

A listener needs TLS and verified client certificates (`--tlsverify` with its three files). Anything weaker needs
`--insecure-tcp` beside what says how weak it is (`--tls` alone, or `--tls=false`), and `info` shows it.
Source: docs.docker.com/engine/security/protect-access, moby cmd/dockerd/daemon.go for the names of options.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from tare.base.errors import InvalidArgument, Unavailable
from tare.web.guard import Guard
from tare.web.tls import server_context

_HINT = "give --tlsverify with --tlscacert, --tlscert and --tlskey; or say --insecure-tcp as well"


class Tls(Struct, frozen=True, kw_only=True):
    """The files of a listener. authority "": clients are not verified. None of this: plain HTTP."""

    certificate: str
    key: str
    authority: str = ""


class Exposure(Struct, frozen=True, kw_only=True):
    """How TCP listeners are served. tls None: in the clear."""

    tls: Tls | None = None
    names: tuple[str, ...] = ()

    @property
    def warning(self) -> str:
        """What `info` says of it, "" for verified clients."""
        if self.tls is None:
            return "WARNING: the API is open to the network in the clear and to everybody: that is root on this machine"
        if not self.tls.authority:
            return "WARNING: the API is open to every client that reaches it: that is root on this machine"
        return ""


def resolve(values: Mapping[str, Any], hosts: Sequence[str], *, environ: Mapping[str, str]) -> Exposure:
    """Decide how the TCP listeners among the hosts are served. Raises InvalidArgument with what to write instead."""
    names = tuple(str(name).lower() for name in values.get("allowed-host") or ())
    given = {name: values[name] for name in ("tls", "tlsverify", "insecure-tcp") if name in values}
    flags = {name: str(value).lower() in ("1", "t", "true") for name, value in given.items()}
    verifies = flags.get("tlsverify", False)
    tcp = [host for host in hosts if host.startswith("tcp://")]
    if not tcp:
        return Exposure(names=names)
    for host in tcp:
        _check(host)
    directory = environ.get("DOCKER_CERT_PATH") or os.path.join(environ.get("HOME", "/root"), ".docker")
    files = {
        option: str(values.get(option) or os.path.join(directory, name))
        for option, name in (("tlscacert", "ca.pem"), ("tlscert", "cert.pem"), ("tlskey", "key.pem"))
    }
    if verifies or flags.get("tls", False):
        wanted = files if verifies else {name: files[name] for name in ("tlscert", "tlskey")}
        for option, file in wanted.items():
            if not Path(file).is_file():
                raise InvalidArgument(f"--{option}: there is no file {file}", hint=_HINT)
        tls = Tls(certificate=files["tlscert"], key=files["tlskey"], authority=files["tlscacert"] if verifies else "")
        if not verifies and not flags.get("insecure-tcp", False):
            raise InvalidArgument(f"--host {tcp[0]}: --tls alone lets in every client", hint=_HINT)
        return Exposure(tls=tls, names=names)
    if not (flags.get("insecure-tcp", False) and "tls" in flags):
        raise InvalidArgument(
            f"--host {tcp[0]}: everybody who reaches this port would be root on this machine",
            hint=f"{_HINT} (with --tls=false)",
        )
    return Exposure(names=names)


def _check(host: str) -> None:
    place = urlsplit(host)
    try:
        port = place.port
    except ValueError:
        port = -1
    if place.path.strip("/") or place.query or place.username or port == -1:
        raise InvalidArgument(f"invalid bind address ({host})", hint="use tcp://ADDRESS:PORT")


def address_of(host: str, *, is_secured: bool) -> tuple[str, int]:
    """Name or address, and port (Docker's 2376 and 2375 where none is given) of a `tcp://` listener."""
    place = urlsplit(host)
    return place.hostname or "127.0.0.1", place.port if place.port is not None else (2376 if is_secured else 2375)


def bind(host: str, exposure: Exposure) -> socket.socket:
    """A bound socket of one listener. Raises Unavailable."""
    name, port = address_of(host, is_secured=exposure.tls is not None)
    try:
        family, kind, number, _, place = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, number)
    except OSError as error:
        raise Unavailable(f"cannot listen on {host}: {error.strerror or error}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(place)
    except OSError as error:
        bound.close()
        raise Unavailable(f"cannot listen on {host}: {error.strerror or error}") from None
    return bound


def context_of(exposure: Exposure) -> ssl.SSLContext | None:
    """The TLS of the listeners. Raises InvalidArgument for files that do not fit."""
    tls = exposure.tls
    if tls is None:
        return None
    try:
        return server_context(certificate=tls.certificate, key=tls.key, authority=tls.authority)
    except OSError as error:
        text = f"cannot use the certificates {tls.certificate}, {tls.key}, {tls.authority}: {error}"
        raise InvalidArgument(text) from None


def guard_of(host: str, exposure: Exposure) -> Guard:
    """Which names a listener answers to: its own, this machine's, those in its certificate, those that were allowed."""
    names = {"localhost", socket.gethostname().lower(), urlsplit(host).hostname or "", *exposure.names}
    if exposure.tls is not None:
        names |= certificate_names(exposure.tls)
    return Guard(frozenset(names - {""}), "http" if exposure.tls is None else "https")


def certificate_names(tls: Tls) -> set[str]:
    """The DNS names in our certificate, in lower case; none when it is not valid now.

    The library tells them of a peer it has verified only: a client that trusts just this certificate meets a server
    that shows it, both in memory.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trusting.load_verify_locations(tls.certificate)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    shown = server_context(certificate=tls.certificate, key=tls.key, authority="").wrap_bio(
        there, back, server_side=True
    )
    client = trusting.wrap_bio(back, there, server_side=False)
    for side in (client, shown, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLError:
            return set()
    entries: Any = (client.getpeercert() or {}).get("subjectAltName", ())
    return {str(name).lower() for kind, name in entries if kind == "DNS"}


def listeners(hosts: Sequence[str], exposure: Exposure) -> list[tuple[str, int]]:
    """Address ("" for every one) and port of each TCP listener, which containers must not reach."""
    found = []
    for host in hosts:
        if host.startswith("tcp://"):
            name, port = address_of(host, is_secured=exposure.tls is not None)
            try:
                address = ipaddress.ip_address(name)
                found.append(("" if address.is_unspecified else name, port))
            except ValueError:
                found.append(("", port))  # a name may stand for any address
    return found
