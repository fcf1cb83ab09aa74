"""Where the engine is: Docker's spellings of an address, and the order in which they are looked up."""

from __future__ import annotations

from tare.client.errors import BadHost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT = "unix:///run/tare/tare.sock"
_TCP_PORT = 2375
_TLS_PORT = 2376


class TlsFiles:
    """Names of PEM files. `authority` "": the engine's certificate is not verified; `certificate` "": we show none."""

    __slots__ = ("authority", "certificate", "key")

    def __init__(self, *, authority: str, certificate: str, key: str) -> None:
        self.authority = authority
        self.certificate = certificate
        self.key = key


class Host:
    """A parsed address. `path` for a unix socket, else `name` and `port`; `text` as people write it.

    is_ssh: `name`, `port` (0: as ssh says) and `user` are of the machine to log in to, `path` its socket ("": its own choice).
    """

    __slots__ = ("is_ssh", "name", "path", "port", "text", "tls", "user")

    def __init__(
        self,
        text: str,
        *,
        path: str = "",
        name: str = "",
        port: int = 0,
        user: str = "",
        is_ssh: bool = False,
        tls: TlsFiles | None = None,
    ) -> None:
        self.tls = tls
        self.text = text
        self.path = path
        self.name = name
        self.port = port
        self.user = user
        self.is_ssh = is_ssh

    def __repr__(self) -> str:
        return f"Host({self.text!r})"


def parse(text: str, tls: TlsFiles | None = None) -> Host:
    """`unix:///path`, `tcp://name[:port]`, `name:port`, `/path`, `ssh://[user@]name[:port][/path]`; tls: for TCP.

    Raises BadHost with the reason.
    """
    text = text.strip()
    if text.startswith("/"):
        text = f"unix://{text}"
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "tcp", text
    if scheme == "unix":
        if not rest:
            raise BadHost(f"unable to parse docker host `{text}`")
        return Host(f"unix://{rest}", path=rest)
    if scheme in ("tcp", "http"):
        return _parse_tcp(rest, tls)
    if scheme == "ssh":
        return _parse_ssh(text, rest)
    raise BadHost(f"unable to parse docker host `{text}`: the protocol must be unix, tcp or ssh")


def _parse_ssh(text: str, rest: str) -> Host:
    """`[user@]name[:port][/socket]`. What ssh would take for an option of its own is refused."""
    place, slash, path = rest.partition("/")
    user, _, name = place.rpartition("@")
    port = ""
    if name.startswith("["):
        name, _, tail = name[1:].partition("]")
        port = tail.removeprefix(":")
    elif ":" in name:
        name, _, port = name.rpartition(":")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise BadHost(f"invalid port {port!r} in the host {text}")
    if ":" in user:
        raise BadHost(f"{text}: a password cannot be given here: use a key")
    for word in (user, name):
        if word.startswith("-") or any(letter.isspace() or ord(letter) < 32 for letter in word):
            raise BadHost(f"unable to parse docker host `{text}`")
    if not name:
        raise BadHost(f"unable to parse docker host `{text}`: the name of the machine is missing")
    return Host(text, path=slash + path if path else "", name=name, port=int(port or 0), user=user, is_ssh=True)


def _parse_tcp(rest: str, tls: TlsFiles | None) -> Host:
    rest = rest.rstrip("/")
    if rest.startswith("["):
        name, _, tail = rest[1:].partition("]")
        port = tail.removeprefix(":")
    elif ":" in rest:
        name, _, port = rest.rpartition(":")
    else:
        name, port = rest, ""
    if port and not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise BadHost(f"invalid port {port!r} in the host tcp://{rest}")
    name = name or "127.0.0.1"
    number = int(port) if port else _TCP_PORT if tls is None else _TLS_PORT
    shown = f"[{name}]" if ":" in name else name
    return Host(f"tcp://{shown}:{number}", name=name, port=number, tls=tls)


def choose(flags: list[str], environ: Mapping[str, str], tls: TlsFiles | None = None) -> Host:
    """-H first, then TARE_HOST, DOCKER_HOST, the default. Raises BadHost."""
    if len(flags) > 1:
        raise BadHost("specify only one -H")
    for candidate in (flags[0] if flags else "", environ.get("TARE_HOST", ""), environ.get("DOCKER_HOST", "")):
        if candidate:
            return parse(candidate, tls)
    return parse(DEFAULT)


def choose_tls(options: Mapping[str, str], environ: Mapping[str, str], config_dir: str) -> TlsFiles | None:
    """Docker's way to the files. options: tls, tlsverify ("1" when asked for), tlscacert, tlscert, tlskey, "" for unset.

    None without TLS. Files that were not named and are not there are left out.
    """
    from posixpath import exists

    verifies = bool(options["tlsverify"] or environ.get("DOCKER_TLS_VERIFY", ""))
    if not (verifies or options["tls"] or environ.get("DOCKER_TLS", "")):
        return None
    directory = environ.get("DOCKER_CERT_PATH", "") or config_dir

    def file(option: str, name: str) -> str:
        usual = f"{directory}/{name}"
        return options[option] or (usual if exists(usual) else "")

    authority = file("tlscacert", "ca.pem") if verifies else ""
    if verifies and not authority:
        raise BadHost(f"could not read CA certificate {directory}/ca.pem: name it with --tlscacert")
    return TlsFiles(authority=authority, certificate=file("tlscert", "cert.pem"), key=file("tlskey", "key.pem"))
