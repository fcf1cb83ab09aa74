"""A registry in the test's own process that keeps to the protocol until it is told not to.

`Registry` listens on a port of 127.0.0.1 and keeps everything in memory. Faults are laid down beforehand and used up one
by one by the requests they fit; everything that came in is in `log`, what went out is counted in `sent`.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import zstandard

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CHUNK = 64 * 1024
_PATIENCE_S = 20


def digest_of(data: bytes) -> str:
    """sha256:…"""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(kw_only=True)
class Fault:
    """What goes wrong with the next `times` requests whose method and path fit.

    status, headers: answer with that and no content. cut_at: close the connection after so many bytes of the body.
    flip_at: change that byte. extra: append bytes and say so in the length. gate: wait for it before the body, or at
    `gate_at` bytes of it. silent: wait for it before any answer. ignores_range: answer 200 with everything.
    """

    path: str = ""
    method: str = "GET"
    times: int = 1
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    flip_at: int | None = None
    extra: bytes = b""
    gate: threading.Event | None = None
    gate_at: int = 0
    silent: threading.Event | None = None
    ignores_range: bool = False

    def fits(self, method: str, path: str) -> bool:
        """Whether it is meant for this request."""
        return self.times > 0 and method == self.method and re.search(self.path, path) is not None


@dataclass(frozen=True)
class Seen:
    """One request as it came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    at: float = field(default_factory=time.monotonic)


class Registry:
    """See the module. user, password: what it wants, "" for nothing. auth: "token" or "basic"."""

    def __init__(
        self,
        *,
        user: str = "",
        password: str = "",
        auth: str = "token",
        token_uses: int = 1_000_000,
        serves_referrers: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.homes: dict[str, set[str]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.faults: list[Fault] = []
        self.log: list[Seen] = []
        self.sent: Counter[str] = Counter()
        self.received = 0
        self.results: list[dict[str, object]] = []
        self.realm = ""
        self.user, self.password, self.auth, self.token_uses = user, password, auth, token_uses
        self.serves_referrers = serves_referrers
        self.tokens: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.reached = threading.Event()  # a gate was come to

        registry = self

        class Handler(_Handler):
            """Bound to this registry."""

            owner = registry

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:  # the handshake is the connection's own thread's, at its first read
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        """127.0.0.1:PORT."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop listening and let waiting requests go."""
        for fault in self.faults:
            for event in (fault.gate, fault.silent):
                if event is not None:
                    event.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_PATIENCE_S)

    # -- what is in it

    def put_blob(self, repository: str, data: bytes) -> str:
        """Keep a blob."""
        digest = digest_of(data)
        self.blobs[digest] = data
        self.homes.setdefault(digest, set()).add(repository)
        return digest

    def put_manifest(self, repository: str, tag: str, document: object, media_type: str = OCI_MANIFEST) -> str:
        """Keep a manifest under its digest and `tag`."""
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        digest = digest_of(raw)
        for name in {digest, tag} - {""}:
            self.manifests[repository, name] = (media_type, raw)
        return digest

    def put_image(
        self,
        repository: str,
        tag: str,
        tars: Sequence[bytes],
        *,
        compression: str = "gzip",
        config: Mapping[str, object] | None = None,
        architecture: str = "amd64",
        system: str = "linux",
        urls: Mapping[int, Sequence[str]] | None = None,
    ) -> str:
        """Keep an image of these layers. Returns the digest of its manifest."""
        blobs = [_packed(tar, compression) for tar in tars]
        suffix = "" if compression == "plain" else f"+{compression}"
        document = {
            "architecture": architecture,
            "os": system,
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
        }
        raw = json.dumps(document).encode()
        layers: list[dict[str, object]] = []
        for number, blob in enumerate(blobs):
            entry: dict[str, object] = {"mediaType": OCI_LAYER + suffix, "digest": digest_of(blob), "size": len(blob)}
            if urls and number in urls:
                entry["mediaType"] = OCI_LAYER.replace("layer.", "layer.nondistributable.") + suffix
                entry["urls"] = list(urls[number])
            self.put_blob(repository, blob)
            layers.append(entry)
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": self.put_blob(repository, raw), "size": len(raw)},
            "layers": layers,
        }
        return self.put_manifest(repository, tag, manifest)

    def descriptor(self, repository: str, data: bytes, media_type: str) -> dict[str, object]:
        """Keep a blob and describe it."""
        return {"mediaType": media_type, "digest": self.put_blob(repository, data), "size": len(data)}

    def put_artifact(
        self,
        repository: str,
        tag: str,
        layers: Mapping[str, bytes],
        *,
        config_type: str = OCI_EMPTY,
        config: bytes = b"{}",
        artifact_type: str = "",
        subject: str = "",
    ) -> str:
        """Keep an artifact: media type → bytes of its layers. subject: digest of the manifest it is about."""
        document: dict[str, object] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST}
        document |= {"artifactType": artifact_type} if artifact_type else {}
        document["config"] = self.descriptor(repository, config, config_type)
        document["layers"] = [self.descriptor(repository, data, kind) for kind, data in layers.items()]
        if subject:
            media_type, raw = self.manifests[repository, subject]
            document["subject"] = {"mediaType": media_type, "digest": subject, "size": len(raw)}
        return self.put_manifest(repository, tag, document)

    def put_index(
        self,
        repository: str,
        tag: str,
        entries: Sequence[tuple[str, Mapping[str, str]]],
        *,
        attested: Mapping[str, str] | None = None,
        artifact_type: str = "",
        subject: str = "",
    ) -> str:
        """Keep an index of (manifest digest, platform). attested: attestation → the manifest it is about.

        artifact_type, subject: what it says of itself. An empty platform is left out.
        """
        listed = [
            {
                "mediaType": self.manifests[repository, digest][0],
                "digest": digest,
                "size": len(self.manifests[repository, digest][1]),
            }
            | ({"platform": dict(platform)} if platform else {})
            for digest, platform in entries
        ]
        listed += [
            {
                "mediaType": OCI_MANIFEST,
                "digest": digest,
                "size": len(self.manifests[repository, digest][1]),
                "platform": {"os": "unknown", "architecture": "unknown"},
                "annotations": {
                    "vnd.docker.reference.type": "attestation-manifest",
                    "vnd.docker.reference.digest": about,
                },
            }
            for digest, about in (attested or {}).items()
        ]
        document: dict[str, object] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
        document |= {"artifactType": artifact_type} if artifact_type else {}
        if subject:
            media_type, raw = self.manifests[repository, subject]
            document["subject"] = {"mediaType": media_type, "digest": subject, "size": len(raw)}
        return self.put_manifest(repository, tag, document, OCI_INDEX)

    def blob_bytes(self) -> int:
        """Bytes of blobs that went out."""
        return sum(count for path, count in self.sent.items() if "/blobs/" in path)

    def requests(self, method: str, pattern: str) -> list[Seen]:
        """What came in that fits."""
        return [seen for seen in self.log if seen.method == method and re.search(pattern, seen.path)]

    def new_token(self) -> str:
        """A token good for `token_uses` requests."""
        token = f"t{len(self.tokens)}-{id(self)}"
        self.tokens[token] = self.token_uses
        return token


@contextmanager
def registry(**options: object) -> Iterator[Registry]:
    """One for the length of a block."""
    server = Registry(**options)  # type: ignore[arg-type]
    try:
        yield server
    finally:
        server.close()


def _packed(tar: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.compress(tar, 1, mtime=0)
    if compression == "zstd":
        return zstandard.ZstdCompressor().compress(tar)
    return tar


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Registry

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def handle(self) -> None:
        """A client that was killed is no error here."""
        with suppress(ConnectionError, ssl.SSLError):
            super().handle()

    # -- one request

    def do_GET(self) -> None:
        """Everything is routed by `_serve`."""
        self._serve()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _serve(self) -> None:
        owner = self.owner
        try:
            with owner.lock:
                owner.log.append(Seen(self.command, self.path, dict(self.headers.items())))
                fault = next((f for f in owner.faults if f.fits(self.command, self.path)), None)
                if fault is not None:
                    fault.times -= 1
            if fault is not None and fault.silent is not None:
                self.owner.reached.set()
                fault.silent.wait(_PATIENCE_S)
            if fault is not None and fault.status:
                self._body_in()
                return self._answer(fault.status, headers=fault.headers, fault=None)
            path = urlsplit(self.path).path
            if path == "/token":
                return self._token()
            if owner.user and not self._is_known():
                self._body_in()
                return self._challenge()
            return self._route(path, fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _route(self, path: str, fault: Fault | None) -> None:
        if path == "/v2/":
            return self._answer(200, b"{}")
        if path == "/v1/search":
            return self._answer(200, json.dumps({"results": self.owner.results}).encode())
        if path == "/v2/_catalog":
            names = sorted({name for name, _ in self.owner.manifests})
            return self._answer(200, json.dumps({"repositories": names}).encode())
        match = re.fullmatch(r"/v2/(.+?)/referrers/(.*)", path)
        if match is not None and self.owner.serves_referrers:
            return self._referrers(match[1], unquote(match[2]))
        match = re.fullmatch(r"/v2/(.+?)/(manifests|blobs|tags)/(.*)", path)
        if match is None:
            return self._error(404, "UNSUPPORTED", "no such thing")
        name, kind, rest = match[1], match[2], unquote(match[3])
        if kind == "tags":
            return self._tags(name)
        if kind == "manifests":
            return self._manifest(name, rest, fault)
        if rest.startswith("uploads"):
            return self._upload(name, rest.removeprefix("uploads").strip("/"), fault)
        return self._blob(name, rest, fault)

    # -- who asks

    def _is_known(self) -> bool:
        kind, _, secret = self.headers.get("Authorization", "").partition(" ")
        owner = self.owner
        if owner.auth == "basic":
            return kind == "Basic" and secret == self._secret()
        with owner.lock:
            if kind != "Bearer" or owner.tokens[secret] < 1:
                return False
            owner.tokens[secret] -= 1
            return True

    def _secret(self) -> str:
        return base64.b64encode(f"{self.owner.user}:{self.owner.password}".encode()).decode()

    def _challenge(self) -> None:
        realm = self.owner.realm or f"http://{self.owner.host}/token"
        found = re.match(r"/v2/(.+?)/(manifests|blobs|tags)/", self.path)
        right = "pull" if self.command in ("GET", "HEAD") else "pull,push"
        scope = f',scope="repository:{found[1]}:{right}"' if found else ""
        challenge = (
            'Basic realm="test"' if self.owner.auth == "basic" else f'Bearer realm="{realm}",service="test"{scope}'
        )
        self._error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})

    def _token(self) -> None:
        body = self._body_in()
        form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
        is_refreshed = self.command == "POST" and form.get("refresh_token") == "refresh-me"
        if not is_refreshed and self.headers.get("Authorization", "") != f"Basic {self._secret()}":
            return self._error(401, "UNAUTHORIZED", "incorrect username or password")
        answer = {"token": self.owner.new_token(), "expires_in": 300}
        if "offline_token" in self.path:
            answer["refresh_token"] = "refresh-me"  # noqa: S105 - of nobody
        return self._answer(200, json.dumps(answer).encode())

    # -- what there is

    def _tags(self, name: str) -> None:
        tags = sorted(tag for repository, tag in self.owner.manifests if repository == name and ":" not in tag)
        if not tags:
            return self._error(404, "NAME_UNKNOWN", "repository name not known to registry")
        query = parse_qs(urlsplit(self.path).query)
        last, count = query.get("last", [""])[0], int(query.get("n", ["1000"])[0])
        page = [tag for tag in tags if tag > last][: min(count, 2)]  # short pages: a client must follow the link
        headers = {}
        if page and page[-1] != tags[-1]:
            headers["Link"] = f'</v2/{name}/tags/list?n={count}&last={page[-1]}>; rel="next"'
        return self._answer(200, json.dumps({"name": name, "tags": page}).encode(), headers=headers)

    def _referrers(self, name: str, subject: str) -> None:
        found = [
            {"mediaType": media_type, "digest": digest, "size": len(raw)}
            for (repository, digest), (media_type, raw) in self.owner.manifests.items()
            if repository == name and ":" in digest and (json.loads(raw).get("subject") or {}).get("digest") == subject
        ]
        last = parse_qs(urlsplit(self.path).query).get("last", [""])[0]
        rest = [entry for entry in sorted(found, key=lambda one: str(one["digest"])) if str(entry["digest"]) > last]
        headers = {"Content-Type": OCI_INDEX}
        if len(rest) > 1:  # one a page: a client must follow the link
            headers["Link"] = f'</v2/{name}/referrers/{subject}?last={rest[0]["digest"]}>; rel="next"'
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rest[:1]}
        return self._answer(200, json.dumps(document).encode(), headers=headers)

    def _manifest(self, name: str, wanted: str, fault: Fault | None) -> None:
        if self.command == "PUT":
            raw = self._body_in()
            for known in {digest_of(raw), wanted}:
                self.owner.manifests[name, known] = (self.headers.get("Content-Type", ""), raw)
            headers = {"Docker-Content-Digest": digest_of(raw)}
            subject = json.loads(raw).get("subject")
            if self.owner.serves_referrers and subject:
                headers["OCI-Subject"] = subject["digest"]
            return self._answer(201, headers=headers)
        found = self.owner.manifests.get((name, wanted))
        if found is None:
            return self._error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        headers = {"Docker-Content-Digest": digest_of(found[1]), "Content-Type": found[0]}
        return self._answer(200, found[1], headers=headers, fault=fault)

    def _blob(self, name: str, digest: str, fault: Fault | None) -> None:
        data = self.owner.blobs.get(digest)
        if data is None or name not in self.owner.homes.get(digest, ()):
            return self._error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if span is None or (fault is not None and fault.ignores_range):
            return self._answer(200, data, fault=fault)
        start = int(span[1])
        if start >= len(data):
            return self._error(416, "RANGE_INVALID", "range")
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        return self._answer(206, data[start:], headers=headers, fault=fault)

    def _upload(self, name: str, session: str, fault: Fault | None) -> None:
        owner, query = self.owner, parse_qs(urlsplit(self.path).query)
        if self.command == "POST":
            self._body_in()
            mount, source = query.get("mount", [""])[0], query.get("from", [""])[0]
            if mount and source in owner.homes.get(mount, ()):
                owner.homes[mount].add(name)
                return self._answer(201, headers={"Location": f"/v2/{name}/blobs/{mount}"})
            session = f"u{len(owner.uploads)}"
            owner.uploads[session] = bytearray()
            return self._answer(202, headers=self._place(name, session))
        kept = owner.uploads.get(session)
        if kept is None:
            self._body_in()
            return self._error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        if self.command == "GET":
            return self._answer(204, headers=self._place(name, session))
        if (start := self.headers.get("Content-Range", "0-").partition("-")[0]) and int(start) not in (0, len(kept)):
            self._body_in()
            return self._error(416, "RANGE_INVALID", "out of order")
        if not self._body_into(kept, fault):
            return None
        if self.command == "PATCH":
            return self._answer(202, headers=self._place(name, session))
        digest = query.get("digest", [""])[0]
        if digest_of(bytes(kept)) != digest:
            return self._error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        owner.put_blob(name, bytes(kept))
        del owner.uploads[session]
        return self._answer(201, headers={"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})

    def _place(self, name: str, session: str) -> dict[str, str]:
        have = len(self.owner.uploads[session])
        return {"Location": f"/v2/{name}/blobs/uploads/{session}?_state=x", "Range": f"0-{max(0, have - 1)}"}

    # -- bytes

    def _body_in(self) -> bytes:
        kept = bytearray()
        self._body_into(kept, None)
        return bytes(kept)

    def _body_into(self, kept: bytearray, fault: Fault | None) -> bool:
        """Read the request's body; False when the connection is to be cut in the middle of it."""
        left = int(self.headers.get("Content-Length") or 0)
        came = 0
        while left:
            stop = left if fault is None or fault.cut_at is None else min(left, fault.cut_at - came)
            chunk = self.rfile.read(min(_CHUNK, stop))
            kept += chunk
            came += len(chunk)
            left -= len(chunk)
            self.owner.received += len(chunk)
            if not chunk:
                self.close_connection = True
                return False
        return True

    def _answer(
        self, status: int, body: bytes = b"", *, headers: Mapping[str, str] | None = None, fault: Fault | None = None
    ) -> None:
        if fault is not None and fault.flip_at is not None:
            body = body[: fault.flip_at] + bytes([body[fault.flip_at] ^ 1]) + body[fault.flip_at + 1 :]
        if fault is not None:
            body += fault.extra
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        stop = len(body) if fault is None or fault.cut_at is None else fault.cut_at
        path = urlsplit(self.path).path
        for at in range(0, stop, _CHUNK):
            if fault is not None and fault.gate is not None and at >= fault.gate_at:
                self.owner.reached.set()
                fault.gate.wait(_PATIENCE_S)
            piece = body[at : min(at + _CHUNK, stop)]
            self.wfile.write(piece)
            with self.owner.lock:
                self.owner.sent[path] += len(piece)
        if stop < len(body):
            self.close_connection = True

    def _error(self, status: int, code: str, text: str, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps({"errors": [{"code": code, "message": text}]}).encode()
        self._answer(status, body, headers={"Content-Type": "application/json", **(headers or {})})


__all__ = ["Fault", "Registry", "digest_of", "registry"]
