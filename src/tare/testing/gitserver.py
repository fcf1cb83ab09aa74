"""A git server on loopback with repositories that tests commit to."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "t",
    "GIT_AUTHOR_EMAIL": "t@t",
    "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@t",
}


class GitServer:
    """Serves `directory`/NAME.git as `git://127.0.0.1:PORT/NAME.git`."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.base = f"git://127.0.0.1:{port}"

    def url(self, name: str) -> str:
        """The URL of a repository."""
        return f"{self.base}/{name}.git"

    def git(self, name: str, *words: str) -> str:
        """Run git in a repository; what it said."""
        environment = {**os.environ, **_ENVIRONMENT}
        place = self.directory / f"{name}.git"
        done = subprocess.run(["git", *words], cwd=place, check=True, env=environment, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, name: str, files: Mapping[str, str], *, branch: str = "main") -> str:
        """Write files, commit them on a branch; the commit. The repository is made by the first."""
        place = self.directory / f"{name}.git"
        if not place.exists():
            place.mkdir()
            self.git(name, "init", "-q", "-b", branch)
        for path, text in files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text)
        self.git(name, "add", "-A")
        self.git(name, "commit", "-q", "--allow-empty", "-m", "more")
        return self.git(name, "rev-parse", "HEAD")

    def add_submodule(self, name: str, path: str, *, url: str, commit: str) -> str:
        """Commit a submodule as git would, without fetching it; the commit. url: as it stands in .gitmodules."""
        place = self.directory / f"{name}.git"
        with (place / ".gitmodules").open("a") as file:
            file.write(f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n')
        self.git(name, "add", ".gitmodules")
        self.git(name, "update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
        self.git(name, "commit", "-q", "-m", "a submodule")
        return self.git(name, "rev-parse", "HEAD")


@contextmanager
def git_server(directory: Path) -> Iterator[GitServer]:
    """One for the length of a block."""
    served = directory / "served"
    served.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["git", "daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}", "--verbose",
         "--log-destination=stderr", f"--base-path={served}", "--informative-errors"],
        stderr=subprocess.PIPE, env={**os.environ, **_ENVIRONMENT}, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        assert b"Ready to rumble" in process.stderr.readline()
        yield GitServer(served, port)
    finally:
        os.killpg(process.pid, 15)
        process.wait()
        process.stderr.close()


class _Smart(BaseHTTPRequestHandler):
    """git's own program for HTTP, asked as a web server asks it. What is not called NAME.git is led there, as forges do."""

    protocol_version = "HTTP/1.1"
    root: Path
    asked: list[str]

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        self.asked.append(path)
        name, slash, rest = path.lstrip("/").partition("/")
        if not name.endswith(".git"):
            self._answer(301, {"Location": f"/{name}.git{slash}{rest}?{query}"}, b"")
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        environment = {
            **os.environ, **_ENVIRONMENT, "GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
            "QUERY_STRING": query, "REQUEST_METHOD": self.command, "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": self.headers.get("Content-Type", ""), "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""), "CONTENT_LENGTH": str(len(body)),
        }  # fmt: skip
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=True)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self._answer(int(headers.pop("Status", "200").split()[0]), headers, answer)

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        """As the client reads."""
        self._serve()

    def do_POST(self) -> None:
        """As the client asks for objects."""
        self._serve()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def over_http(server: GitServer) -> Iterator[tuple[int, list[str]]]:
    """The same repositories by HTTP: its port on loopback, and the paths that were asked for."""
    asked: list[str] = []
    handler = type("Handler", (_Smart,), {"root": server.directory, "asked": asked})
    web = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=web.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield web.server_address[1], asked
    finally:
        web.shutdown()
        web.server_close()
        thread.join()
