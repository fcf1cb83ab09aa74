"""`tare login` and `tare logout`."""

from __future__ import annotations

import sys

from tare.cli import exit as exits
from tare.cli import flags, registryauth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.context import Context


def _registry(operands: list[str]) -> str:
    if not operands:
        return registryauth.HUB
    name = operands[0].removeprefix("https://").removeprefix("http://").partition("/")[0]
    return registryauth.HUB if name in ("docker.io", "index.docker.io") else name


def _login(context: Context, options: flags.Options, operands: list[str]) -> int:
    registry = _registry(operands)
    user, password = options.text("username"), options.text("password")
    if options.on("password-stdin"):
        if password:
            raise exits.Exit(exits.FAILED, "conflicting options: cannot specify both --password and --password-stdin")
        if not user:
            raise exits.Exit(exits.FAILED, "the --password-stdin option requires --username to be set")
        password = sys.stdin.read().rstrip("\r\n")
    elif password:
        context.error("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    if not user or not password:
        user, password = _ask(user)
    body = {"username": user, "password": password, "serveraddress": registry}
    answer = context.client.post("/auth", body=body)
    token = str(answer.get("IdentityToken") or "") if isinstance(answer, dict) else ""
    helper = registryauth.store(context.config_dir, registry, user, password=password, token=token)
    if not helper:
        where = f"{context.config_dir}/config.json"
        context.error(f"WARNING! Your credentials are stored unencrypted in '{where}'.")
        context.error("A credential helper (credsStore or credHelpers there) keeps them better.")
    status = answer.get("Status") if isinstance(answer, dict) else None
    context.line(str(status or "Login Succeeded"))
    return exits.OK


def _ask(user: str) -> tuple[str, str]:
    if not sys.stdin.isatty():
        raise exits.Exit(exits.FAILED, "Error: Cannot perform an interactive login from a non TTY device")
    import getpass

    if not user:
        sys.stdout.write("Username: ")
        sys.stdout.flush()
        user = sys.stdin.readline().strip()
    if not user:
        raise exits.Exit(exits.FAILED, "Error: Non-null Username Required")
    password = getpass.getpass("Password: ")
    if not password:
        raise exits.Exit(exits.FAILED, "Error: Password Required")
    return user, password


def _logout(context: Context, _: flags.Options, operands: list[str]) -> int:
    registry = _registry(operands)
    context.line(f"Removing login credentials for {registry}")
    registryauth.erase(context.config_dir, registry)
    return exits.OK


LOGIN = flags.Command(
    _login,
    "Store credentials for a registry",
    operands="[SERVER]",
    most=1,
    flags=(
        flags.Flag("password", "p", flags.STRING, "Password or token; others can see it in the list of processes"),
        flags.Flag("password-stdin", "", flags.BOOL, "Read the password from stdin"),
        flags.Flag("username", "u", flags.STRING, "User name"),
    ),
)
LOGOUT = flags.Command(_logout, "Forget the credentials for a registry", operands="[SERVER]", most=1)
