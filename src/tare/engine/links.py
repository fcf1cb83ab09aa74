"""`--link`: on the default network lines in /etc/hosts and variables, on users' networks a name of one's own.

Source: the variables' names in Docker's documentation of legacy container links.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tare.base.errors import Conflict, InvalidArgument, NotFound
from tare.containers.container import Container
from tare.containers.view import ports_map
from tare.engine.engine import Engine
from tare.wire.config import EndpointSettings, HostConfig

_DEFAULT = "bridge"


def parse(link: str) -> tuple[str, str]:
    """`web:frontend` as container and alias; `web` is its own alias. Raises InvalidArgument."""
    parts = link.split(":")
    if len(parts) > 2 or not all(parts):
        raise InvalidArgument(f"bad format for links: {link}")
    container = parts[0].removeprefix("/")
    return container, parts[-1].rpartition("/")[2]


def check(engine: Engine, host_config: HostConfig) -> None:
    """Refuse links to what is not there. Raises InvalidArgument (not NotFound: that would mean the image, W10)."""
    for link in host_config.Links or ():
        name, _ = parse(link)
        try:
            engine.containers.find(name)
        except NotFound:
            raise InvalidArgument(f"could not get container for {name}: No such container: {name}") from None


def on_networks(
    engine: Engine, endpoints: dict[str, EndpointSettings], host_config: HostConfig
) -> dict[str, EndpointSettings]:
    """The endpoints with the container's links on the network of its mode, where that is one with names."""
    links = [":".join(parse(link)) for link in host_config.Links or ()]
    if not links:
        return endpoints
    changed = dict(endpoints)
    for name, settings in endpoints.items():
        if name in (host_config.NetworkMode, _name_of(engine, host_config.NetworkMode)) and name != _DEFAULT:
            merged = list(dict.fromkeys([*(settings.Links or ()), *links]))
            changed[name] = msgspec.structs.replace(settings, Links=merged)
    return changed


def shown(engine: Engine, container: Container) -> list[str] | None:
    """`HostConfig.Links` of inspect: on the default network `/other:/container/alias`, elsewhere as they were asked for."""
    asked = container.host_config.Links
    if not asked or container.host_config.NetworkMode != _DEFAULT:
        return asked
    found: list[str] = []
    for link in asked:
        name, alias = parse(link)
        try:
            name = engine.containers.find(name).container.name
        except (NotFound, InvalidArgument):
            continue  # it is gone, and the link with it
        found.append(f"/{name}:/{container.name}/{alias}")
    return found


def names(engine: Engine) -> dict[str, list[str]]:
    """By container id: the names that linked containers of the default network have for it, as `/frontend/db`."""
    found: dict[str, list[str]] = {}
    for slot in engine.containers:
        container = slot.container
        if not container.host_config.Links or container.host_config.NetworkMode != _DEFAULT:
            continue
        for link in container.host_config.Links:
            name, alias = parse(link)
            try:
                other = engine.containers.find(name).container
            except (NotFound, InvalidArgument):
                continue
            found.setdefault(other.id, []).append(f"/{container.name}/{alias}")
    return found


def _name_of(engine: Engine, network: str) -> str:
    try:
        return engine.networks.inspect(network).name
    except (NotFound, InvalidArgument):
        return network


def _linked(engine: Engine, container: Container) -> Iterator[tuple[str, Container, str]]:
    """Alias, container and address of each link on the default network."""
    if container.host_config.NetworkMode not in ("", "default", _DEFAULT):
        return
    for link in container.host_config.Links or ():
        name, alias = parse(link)
        child = engine.containers.find(name).container
        if child.is_running and _DEFAULT not in child.endpoints:
            raise Conflict(f"Cannot link to /{child.name}, as it does not belong to the default network")
        address = child.endpoints[_DEFAULT].IPAddress if child.is_running else ""
        if not address:
            raise Conflict(f"Cannot link to a non running container: /{child.name} AS /{container.name}/{alias}")
        yield alias, child, address


def host_lines(engine: Engine, container: Container) -> tuple[str, ...]:
    """Lines of /etc/hosts for the linked containers. Raises Conflict when one does not run."""
    return tuple(
        f"{address}\t" + " ".join(dict.fromkeys((alias, child.config.Hostname, child.name)))
        for alias, child, address in _linked(engine, container)
    )


def environment(engine: Engine, container: Container) -> list[str]:
    """`DB_NAME=/web/db`, `DB_PORT_5432_TCP_ADDR=172.17.0.2` and the rest of what a linked container is told."""
    found: list[str] = []
    for alias, child, address in _linked(engine, container):
        prefix = alias.replace("-", "_").upper()
        ports = sorted((_number(name), name.partition("/")[2]) for name in ports_map(child))
        for position, (port, protocol) in enumerate(ports):
            url = f"{protocol}://{address}:{port}"
            if position == 0:
                found.append(f"{prefix}_PORT={url}")
            stem = f"{prefix}_PORT_{port}_{protocol.upper()}"
            found += [f"{stem}={url}", f"{stem}_ADDR={address}", f"{stem}_PORT={port}", f"{stem}_PROTO={protocol}"]
        found.append(f"{prefix}_NAME=/{container.name}/{alias}")
        for entry in child.config.Env or ():
            if not entry.startswith(("HOME=", "PATH=")):
                found.append(f"{prefix}_ENV_{entry}")
    return found


async def remove(engine: Engine, name: str) -> None:
    """Forget a link `/web/db`: the variables and lines that a running container was given stay, as with Docker.

    Raises Conflict for a container's own name, NotFound.
    """
    parent, _, alias = name.strip("/").rpartition("/")
    if not parent:
        raise Conflict("Conflict, cannot remove the default link name of the container")
    slot = engine.containers.find(parent)
    async with slot.lock:
        host = slot.container.host_config
        kept = [link for link in host.Links or () if parse(link)[1] != alias]
        if len(kept) == len(host.Links or ()):
            raise NotFound(f"No such container: {name}")
        gone = {":".join(parse(link)) for link in host.Links or () if link not in kept}
        asked = {
            network: msgspec.structs.replace(
                settings, Links=[link for link in settings.Links if link not in gone] or None
            )
            if settings.Links
            else settings
            for network, settings in slot.container.asked_endpoints.items()
        }
        changed = msgspec.structs.replace(host, Links=kept or None)
        await engine.containers.save(slot, durable=True, host_config=changed, asked_endpoints=asked)


def _number(port: str) -> int:
    number = port.partition("/")[0]
    return int(number) if number.isdigit() else 0
