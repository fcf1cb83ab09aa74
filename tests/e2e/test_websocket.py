"""Attach by websocket on a real engine: both directions, never framed, several at once, and the client's close."""

from __future__ import annotations

import socket

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, RejectConnection, Request, TextMessage

from tare.testing.daemon import Daemon

pytestmark = pytest.mark.root


class Client:
    """A websocket on the engine's unix socket."""

    def __init__(self, daemon: Daemon, target: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(daemon.socket))
        self.protocol = WSConnection(ConnectionType.CLIENT)
        self.socket.sendall(self.protocol.send(Request(host="tare", target=target)))
        self.data = b""
        self.kinds: set[str] = set()
        self.has_ended = self.is_refused = self.is_open = False
        while not (self.is_open or self.is_refused):
            self._take()

    def send(self, data: bytes) -> None:
        self.socket.sendall(self.protocol.send(BytesMessage(data=data)))

    def close(self) -> None:
        if not self.has_ended:
            self.socket.sendall(self.protocol.send(CloseConnection(code=1000)))
            while not self.has_ended:
                self._take()
        self.socket.close()

    def until(self, text: bytes) -> None:
        while text not in self.data and not self.has_ended:
            self._take()
        assert text in self.data

    def rest(self) -> bytes:
        while not self.has_ended:
            self._take()
        return self.data

    def _take(self) -> None:
        self.protocol.receive_data(self.socket.recv(65536) or None)
        for event in self.protocol.events():
            if isinstance(event, AcceptConnection):
                self.is_open = True
            elif isinstance(event, RejectConnection):
                self.is_refused = True
            elif isinstance(event, BytesMessage):
                self.data += event.data
                self.kinds.add("binary")
            elif isinstance(event, TextMessage):
                self.data += event.data.encode()
                self.kinds.add("text")
            elif isinstance(event, CloseConnection):
                self.has_ended = True


def start(daemon: Daemon, *cmd: str, **config: object) -> str:
    body = {"Image": "busybox", "Cmd": list(cmd), **config}
    container = str(daemon.json("POST", "/containers/create", body, expect=201)["Id"])
    daemon.json("POST", f"/containers/{container}/start", expect=204)
    return container


@pytest.mark.parametrize("tty", [False, True])
def test_both_directions_and_the_end(daemon: Daemon, engine_host: str, tty: bool) -> None:
    container = start(
        daemon, "sh", "-c", "while read x; do echo got $x; [ $x = end ] && exit 3; done", OpenStdin=True, Tty=tty
    )
    query = "?stream=1&stdin=1&stdout=1&stderr=1"
    first = Client(daemon, f"/containers/{container}/attach/ws{query}")
    second = Client(daemon, f"/v1.24/containers/{container}/attach/ws{query}")
    first.send(b"one\n")
    first.until(b"got one")
    second.until(b"got one")
    second.close()
    first.send(b"end\n")
    assert b"got end" in first.rest()
    assert (first.kinds, second.kinds) == ({"binary"}, {"text"})
    first.close()
    assert daemon.json("POST", f"/containers/{container}/wait")["StatusCode"] == 3


def test_the_log_first_and_no_frames(daemon: Daemon, engine_host: str) -> None:
    container = start(daemon, "sh", "-c", "echo out; echo err >&2; exec sleep 1000")
    while b"err" not in daemon.request("GET", f"/containers/{container}/logs?stdout=1&stderr=1")[1]:
        pass
    later = Client(daemon, f"/containers/{container}/attach/ws?logs=1&stream=1&stdout=1&stderr=1")
    later.until(b"out\n")
    later.until(b"err\n")
    assert sorted(later.data.splitlines()) == [b"err", b"out"]
    later.close()  # answered although nobody reads what it sends
    assert daemon.request("GET", f"/containers/{container}/attach/ws?stream=1&stdout=1")[0] == 400
