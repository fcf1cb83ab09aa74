"""Credentials for registries, in Docker's own config.json so that both programs know them."""

from __future__ import annotations

import base64
import binascii
import os

from tare.client import gojson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HUB = "https://index.docker.io/v1/"


def registry_of(reference: str) -> str:
    """The key under which credentials for the reference's registry are kept."""
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return HUB if first in ("docker.io", "index.docker.io") else first
    return HUB


def read_config(directory: str) -> dict[str, Any]:
    """config.json; {} when there is none. Raises ValueError when it is damaged."""
    path = f"{directory}/config.json"
    try:
        with open(path, "rb") as file:
            document = gojson.loads(file.read())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return document if isinstance(document, dict) else {}


def write_config(directory: str, config: dict[str, Any]) -> None:
    """Replace config.json in one step, readable by its owner only."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    temporary = f"{directory}/config.json.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(gojson.dumps(config, indent="\t", html=False))
        os.replace(temporary, f"{directory}/config.json")
    except BaseException:
        os.unlink(temporary)
        raise


def helper_of(config: dict[str, Any], registry: str) -> str:
    """The credential helper that config.json names for the registry, "" for none."""
    named = config.get("credHelpers")
    chosen = named.get(registry) if isinstance(named, dict) else None
    return str(chosen or config.get("credsStore") or "")


def ask_helper(helper: str, action: str, text: str) -> dict[str, Any]:
    """Run `docker-credential-HELPER get|store|erase|list` with `text` on its input; {} when it knows nothing.

    Raises ValueError with the program's words. Source: docker/docker-credential-helpers, "Development".
    """
    import subprocess

    program = f"docker-credential-{helper}"
    if "/" in helper or helper.startswith("-"):
        raise ValueError(f"invalid credential helper: {helper!r}")
    try:
        done = subprocess.run([program, action], input=text.encode(), capture_output=True, check=False)
    except OSError as error:
        raise ValueError(f"error getting credentials: {program}: {(error.strerror or '').lower()}") from None
    said = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode:
        if action != "store" and "credentials not found" in said:
            return {}
        raise ValueError(f"error getting credentials: {program}: {said or done.returncode}")
    document = gojson.loads(done.stdout) if action in ("get", "list") else {}
    return document if isinstance(document, dict) else {}


def store(directory: str, registry: str, user: str, *, password: str, token: str) -> str:
    """Keep what a login came to, with the helper that is configured or in config.json. Returns the helper, "" for none."""
    config = read_config(directory)
    helper = helper_of(config, registry)
    if helper:
        secret = {"ServerURL": registry, "Username": "<token>" if token else user, "Secret": token or password}
        ask_helper(helper, "store", gojson.dumps(secret))
        config.setdefault("auths", {})[registry] = {}
    else:
        entry = {"auth": base64.b64encode(f"{user}:{'' if token else password}".encode()).decode()}
        if token:
            entry["identitytoken"] = token
        config.setdefault("auths", {})[registry] = entry
    write_config(directory, config)
    return helper


def erase(directory: str, registry: str) -> None:
    """Forget the credentials, wherever they are kept."""
    config = read_config(directory)
    if helper := helper_of(config, registry):
        ask_helper(helper, "erase", registry)
    if registry in (config.get("auths") or {}):
        del config["auths"][registry]
        write_config(directory, config)


def credentials(directory: str, registry: str) -> dict[str, str]:
    """What to send to the engine for `registry`; {} when nothing is stored."""
    config = read_config(directory)
    found = {"serveraddress": registry}
    if helper := helper_of(config, registry):
        known = ask_helper(helper, "get", registry)
        secret, user = str(known.get("Secret") or ""), str(known.get("Username") or "")
        if not secret:
            return {}
        return found | ({"identitytoken": secret} if user == "<token>" else {"username": user, "password": secret})
    entry = (config.get("auths") or {}).get(registry) or {}
    if entry.get("identitytoken"):
        found["identitytoken"] = str(entry["identitytoken"])
    if entry.get("auth"):
        try:
            user, _, password = base64.b64decode(str(entry["auth"])).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError(f"the stored credentials for {registry} are damaged: log in again") from None
        found |= {"username": user, "password": password.rstrip("\0")}
    return found if len(found) > 1 else {}


def header(directory: str, reference: str) -> dict[str, str]:
    """The X-Registry-Auth header for an operation on `reference`."""
    document = gojson.dumps(credentials(directory, registry_of(reference)))
    return {"X-Registry-Auth": base64.urlsafe_b64encode(document.encode()).decode()}


def registries(directory: str) -> list[str]:
    """Every registry that credentials are kept for, in config.json or by its helpers. Raises ValueError."""
    config = read_config(directory)
    found = {*(config.get("auths") or {}), *(config.get("credHelpers") or {})}
    if helper := str(config.get("credsStore") or ""):
        found.update(ask_helper(helper, "list", ""))
    return sorted(found)


def config_header(directory: str) -> tuple[dict[str, str], list[str]]:
    """The X-Registry-Config header of a build, which may need any registry; and what could not be looked up, in words.

    One helper that fails need not concern the build, so the rest is sent. Source: ENGINE-API W49.
    """
    found: dict[str, dict[str, str]] = {}
    wrong: list[str] = []
    try:
        names = registries(directory)
    except ValueError as error:
        names, wrong = sorted(read_config(directory).get("auths") or {}), [str(error)]
    for name in names:
        try:
            if known := credentials(directory, name):
                found[name] = known
        except ValueError as error:
            wrong.append(str(error))
    document = gojson.dumps(found)
    return {"X-Registry-Config": base64.urlsafe_b64encode(document.encode()).decode()}, wrong
