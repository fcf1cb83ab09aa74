"""A connection through the program `ssh` to `tare system dial-stdio` at the other end.

Whoever logs in there needs `tare` on the path and the right to use the socket. Keys, agents, jump hosts and what hosts are
called are the business of ssh and its configuration. What it says goes to our standard error.
"""

from __future__ import annotations

import _socket

from tare.client.errors import ConnectionFailed
from tare.client.http import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess

    from tare.client.host import Host

_PATIENCE_S = 5.0


def argv(host: Host) -> list[str]:
    """How ssh is called. The remote side passes its words through a shell: the path is quoted for it."""
    import shlex

    words = ["ssh", "-T", "-o", "ConnectTimeout=30"]
    if host.user:
        words += ["-l", host.user]
    if host.port:
        words += ["-p", str(host.port)]
    there = ["-H", shlex.quote(f"unix://{host.path}")] if host.path else []
    return [*words, "--", host.name, "tare", *there, "system", "dial-stdio"]


class SshConnection(Connection):
    """A connection whose other end is a child; `close` waits for it."""

    def __init__(self, sock: _socket.socket, host: Host, child: subprocess.Popen[bytes]) -> None:
        super().__init__(sock, host)
        self._child = child

    def close(self) -> None:
        """Give the descriptor back and let ssh end."""
        import subprocess

        super().close()
        try:
            self._child.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._child.terminate()
            self._child.wait()


def connect(host: Host) -> Connection:
    """Start ssh. Raises ConnectionFailed when there is none; an unreachable host shows with the first answer."""
    import subprocess

    ours, theirs = _socket.socketpair()
    try:
        child = subprocess.Popen(argv(host), stdin=theirs.fileno(), stdout=theirs.fileno())
    except OSError as error:
        ours.close()
        raise ConnectionFailed(f"{host.text}: cannot start ssh: {(error.strerror or '').lower()}") from None
    finally:
        theirs.close()
    return SshConnection(ours, host, child)


__all__ = ["SshConnection", "argv", "connect"]
