"""What a command works with: the engine, the standard streams, the environment."""

from __future__ import annotations

import sys

from tare.cli import exit as exits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from tare.client.http import Client


class Context:
    """Handed to every command. The client connects when it is first used."""

    def __init__(
        self,
        *,
        hosts: list[str],
        environ: Mapping[str, str],
        path: str,
        config_dir: str = "",
        tls: Mapping[str, str] | None = None,
    ) -> None:
        self._tls = tls
        self._hosts = hosts
        self.environ = environ
        self.path = path
        self._config_dir = config_dir
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The engine. Raises BadHost when its address cannot be used."""
        if self._client is None:
            from tare.client.host import choose, choose_tls
            from tare.client.http import Client

            version = self.environ.get("DOCKER_API_VERSION", "")
            files = choose_tls(self._tls, self.environ, self.config_dir) if self._tls is not None else None
            self._client = Client(choose(self._hosts, self.environ, files), version=version, user_agent="tare-cli")
        return self._client

    def engine_at(self, text: str) -> Client:
        """Another engine: an address, for which the same TLS files hold, or a context's name. Raises BadHost."""
        from tare.client.contexts import host_of
        from tare.client.host import choose_tls, parse
        from tare.client.http import Client

        if "://" not in text and not text.startswith("/"):
            text = host_of(text, self.config_dir)
        files = choose_tls(self._tls, self.environ, self.config_dir) if self._tls is not None else None
        return Client(parse(text, files), user_agent="tare-cli")

    @property
    def config_dir(self) -> str:
        """Where credentials and detach keys are kept: --config, DOCKER_CONFIG, ~/.docker."""
        home = self.environ.get("HOME", "/root")
        return self._config_dir or self.environ.get("DOCKER_CONFIG", "") or f"{home}/.docker"

    def out(self, text: str) -> None:
        """Write to stdout as it is."""
        sys.stdout.write(text)

    def line(self, text: str) -> None:
        """Write a line to stdout."""
        sys.stdout.write(f"{text}\n")

    def error(self, text: str) -> None:
        """Write a line to stderr, after what stdout still holds."""
        sys.stdout.flush()
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    @property
    def is_terminal(self) -> bool:
        """Whether stdout is a terminal."""
        return sys.stdout.isatty()


def each(context: Context, operands: list[str], act: Action) -> int:
    """Do `act` for every operand, print its answer (None prints nothing), go on after errors.

    Returns 1 if any failed, as Docker does.
    """
    from tare.client.errors import ApiError

    code = exits.OK
    for operand in operands:
        try:
            text = act(operand)
        except ApiError as error:
            context.error(str(error))
            code = exits.FAILED
            continue
        if text is not None:
            context.line(text)
    return code


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Action: TypeAlias = "Callable[[str], str | None]"
