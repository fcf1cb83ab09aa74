"""Contexts of the stock client: names of engines, kept in `<config>/contexts/meta/<sha256 of the name>/meta.json`.

Source: docker/cli context store layout (`meta.json`: Name, Endpoints.docker.Host).
"""

from __future__ import annotations

from tare.client.errors import BadHost
from tare.client.gojson import loads


def host_of(name: str, config_dir: str) -> str:
    """The address that a context stands for. Raises BadHost, with the names there are."""
    known = _read(config_dir)
    if name not in known:
        names = ", ".join(sorted(known)) or "none is defined"
        raise BadHost(f"{name}: neither an address (unix://, tcp://, ssh://) nor a context in {config_dir}: {names}")
    return known[name]


def _read(config_dir: str) -> dict[str, str]:
    import os

    top = os.path.join(config_dir, "contexts", "meta")
    found: dict[str, str] = {}
    try:
        members = sorted(os.listdir(top))
    except FileNotFoundError:
        return {}
    for member in members:
        try:
            with open(os.path.join(top, member, "meta.json"), encoding="utf-8") as file:
                document = loads(file.read().encode())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except ValueError as error:
            raise BadHost(f"{os.path.join(top, member, 'meta.json')}: {error}") from None
        if not isinstance(document, dict) or not isinstance(document.get("Name"), str):
            continue
        endpoints = document.get("Endpoints")
        engine = endpoints.get("docker") if isinstance(endpoints, dict) else None
        host = engine.get("Host") if isinstance(engine, dict) else None
        if isinstance(host, str) and host:
            found[str(document["Name"])] = host
    return found


__all__ = ["host_of"]
