"""Certificates for tests: an authority, and who it has signed. Made by the openssl program (ca-certificates brings it)."""

from __future__ import annotations

import subprocess
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """Files in a directory: `<name>.pem` and `<name>.key` of the authority and of everybody it signs."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self.directory = directory
        self.name = name
        directory.mkdir(parents=True, exist_ok=True)
        _openssl(
            "req",
            "-x509",
            *_KEY,
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
            "-keyout",
            self.key(name),
            "-out",
            self.pem(name),
        )

    def pem(self, name: str) -> Path:
        """The certificate of somebody."""
        return self.directory / f"{name}.pem"

    def key(self, name: str) -> Path:
        """The key of somebody."""
        return self.directory / f"{name}.key"

    def sign(self, name: str, *, hosts: str = "IP:127.0.0.1,DNS:localhost") -> None:
        """Make a key and a certificate; hosts as openssl writes subjectAltName."""
        request, extensions = self.directory / f"{name}.csr", self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={hosts}\n")
        _openssl("req", *_KEY, "-subj", f"/CN={name}", "-keyout", self.key(name), "-out", request)
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.pem(self.name), "-CAkey", self.key(self.name), "-CAcreateserial",
            "-days", "2", "-extfile", extensions, "-out", self.pem(name),
        )  # fmt: skip

    def client_directory(self, name: str) -> Path:
        """What DOCKER_CERT_PATH wants: ca.pem, cert.pem, key.pem."""
        place = self.directory / f"{name}.d"
        place.mkdir()
        for source, target in (
            (self.pem(self.name), "ca.pem"),
            (self.pem(name), "cert.pem"),
            (self.key(name), "key.pem"),
        ):
            (place / target).write_bytes(source.read_bytes())
        return place


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, check=True)
