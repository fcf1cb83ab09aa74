"""Creating a container: everything checked, its file system prepared, its record durable. Nothing runs yet."""

from __future__ import annotations

import asyncio
import os

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from tare.aio import failpoints
from tare.aio.threads import in_thread
from tare.aio.undo import undo_on_error
from tare.base import clock
from tare.base.digest import hex_of
from tare.base.errors import InvalidArgument, NotFound
from tare.base.ids import ContainerId, random_id
from tare.base.sizes import parse_bytes
from tare.containers import checks, logoptions, wishes
from tare.containers.container import Container, MountPoint
from tare.containers.merge import merge
from tare.containers.mounts import plan_mounts
from tare.drivers import trees
from tare.engine import cdi, links, userns, volumes
from tare.engine.engine import Engine, directory_of
from tare.engine.news import tell
from tare.images.documents import parse_platform
from tare.images.records import Image
from tare.networks import ports
from tare.networks.plan import NAMESPACE_MODE
from tare.oci import platform as platforms
from tare.oci.image import Platform
from tare.store.blobs import fsync
from tare.wire.config import ContainerConfig, CreateBody, EndpointSettings, HostConfig, config_of

_READ_ONLY_BELOW = (1, 44)  # W72: since then what is mounted below a read-only mount is read-only too


async def create(
    engine: Engine, body: CreateBody, *, name: str = "", version: tuple[int, int] = (1, 51), platform: str = ""
) -> tuple[Container, list[str]]:
    """Make a container of `body`. Returns it with dockerd's warnings. platform: `os/arch[/variant]`, "" for any.

    An image for another platform is a missing one: clients pull then. Raises NotFound only for a missing image (W10), Conflict for the name, InvalidArgument for the rest.
    """
    reference = config_of(body).Image
    image = engine.images.resolve(reference) if reference else None
    if image is None:
        raise InvalidArgument("no image specified", hint="name an image, as in `tare run IMAGE`")
    _check_platform(image, reference, _platform(platform, reference))
    snapshot = hex_of(image.chain_id) if image.chain_id else None
    base = Base(image_id=image.id, config=image.config, snapshot=snapshot)
    async with engine.images.standing(image):
        return await create_on(engine, body, base, name=name, version=version)


def _platform(text: str, reference: str) -> tuple[str, str, str] | None:
    """What is asked for. Another operating system is a missing image (NotFound), no bad request."""
    system, slash, _ = text.partition("/")
    if slash and system.isalnum() and system.lower() != "linux":
        raise NotFound(
            f"image with reference {reference} was found but does not match the specified platform: wanted {text}"
        )
    return parse_platform(text)


def _check_platform(image: Image, reference: str, wanted: tuple[str, str, str] | None) -> None:
    if wanted is None:
        return
    asked = Platform(wanted[1], wanted[0], wanted[2])
    there = Platform(image.document.architecture, image.document.os, image.document.variant)
    if not platforms.runs_on(there, asked):
        raise NotFound(
            f"image with reference {reference} was found but does not match the specified platform: "
            f"wanted {platforms.text_of(asked)}, actual: {platforms.text_of(there)}"
        )


class Base(Struct, frozen=True, kw_only=True):
    """What a container stands on: a snapshot (None for nothing) that stays meanwhile, and an image's configuration."""

    image_id: str
    config: ContainerConfig
    snapshot: str | None


async def create_on(
    engine: Engine,
    body: CreateBody,
    base: Base,
    *,
    name: str = "",
    version: tuple[int, int] = (1, 51),
    build_id: str = "",
) -> tuple[Container, list[str]]:
    """As `create`, on files that need not be an image's. build_id: the build it is a step of."""
    engine.migration.expect()
    own = config_of(body)
    container_id = ContainerId(random_id())
    chosen = engine.containers.choose_name(name, container_id)
    config = merge(own, base.config)
    host_config = checks.adapt(
        _defaults(engine, body),
        facts=engine.host,
        default_runtime=engine.settings.default_runtime,
        version=version,
    )
    warnings = check(engine, config, host_config)
    limit = size_limit(engine, host_config)
    config = _with_hostname(engine, config, host_config, container_id)
    _refuse_by_version(body, host_config, version)
    mounts = plan_mounts(config, host_config, inherited=volumes.inherited(engine, host_config))
    _refuse_missing_sources(mounts)
    if version < _READ_ONLY_BELOW:
        mounts = [replace(point, is_read_only_below=False) for point in mounts]
    links.check(engine, host_config)
    _check_joined(engine, host_config)
    endpoints = links.on_networks(engine, _endpoints(engine, body, host_config), host_config)
    container = Container(
        id=container_id,
        name=chosen,
        created_at=clock.now(),
        image_id=base.image_id,
        image_reference=own.Image,
        config=config,
        host_config=host_config,
        runtime=host_config.Runtime,
        mounts=tuple(mounts),
        asked_endpoints=endpoints,
        endpoints=endpoints,
        build_id=build_id,
    )
    async with undo_on_error("create") as undo:
        container = replace(container, mounts=await volumes.provide(engine, container_id, mounts, undo))
        engine.creating.add(container_id)
        undo.push(engine.creating.discard, container_id)
        engine.snapshots.prepare(container_id, base.snapshot, limit=limit)
        undo.push(engine.snapshots.remove, container_id)
        directory = directory_of(engine, container_id)
        directory.mkdir(mode=0o700)
        undo.push(trees.discard, directory)
        failpoints.hit("create.files")
        await volumes.fill(engine, container)
        if not build_id:  # what a step of a build made is swept after a power cut, however much of it there is
            await _persist(engine, container_id)
        await engine.containers.add(container)
        engine.creating.discard(container_id)
        failpoints.passed("create.recorded")
    tell(engine, container, "create")
    return container, warnings


async def _persist(engine: Engine, container_id: ContainerId) -> None:
    """Let the files survive a power cut before the record does: a container is absent or complete.

    All at once: they wait for the same commit of the file system's journal. One after the other each asks the disk to
    empty its cache, four times as long.
    """
    places = [*engine.snapshots.syncs(container_id), directory_of(engine, container_id).parent]
    await asyncio.gather(*(in_thread(fsync, place) for place in places))


def check(engine: Engine, config: ContainerConfig, host_config: HostConfig) -> list[str]:
    """Refuse what cannot be on this host; the warnings. Raises InvalidArgument."""
    warnings = checks.validate(config, host_config, facts=engine.host, runtimes=frozenset(engine.runtimes))
    warnings = [*warnings, *logoptions.check(host_config.LogConfig)]
    userns.check(engine, host_config)
    cdi.check(engine, host_config)
    wishes.check(config.Labels or {})
    ports.wishes(config, host_config)  # a port that cannot be is refused now, not at start
    return warnings


def _defaults(engine: Engine, body: CreateBody) -> HostConfig:
    """What the daemon's options put where the client said nothing."""
    host_config = body.HostConfig
    changes: dict[str, object] = {}
    log = host_config.LogConfig
    changes["LogConfig"] = logoptions.with_defaults(
        log, driver=engine.settings.log_driver, options=engine.settings.log_options
    )
    if host_config.Init is UNSET and engine.settings.uses_init:
        changes["Init"] = True
    if not host_config.Runtime and body.Runtime:
        changes["Runtime"] = body.Runtime
    if engine.settings.default_ulimits:
        named = {limit.Name for limit in host_config.Ulimits or ()}
        added = [limit for limit in engine.settings.default_ulimits if limit.Name not in named]
        changes["Ulimits"] = [*(host_config.Ulimits or ()), *added]
    if host_config.PortBindings is None:
        changes["PortBindings"] = {}
    return msgspec.structs.replace(host_config, **changes)


def _with_hostname(
    engine: Engine, config: ContainerConfig, host_config: HostConfig, container_id: ContainerId
) -> ContainerConfig:
    if config.Hostname:
        return config
    if host_config.UTSMode == "host" or host_config.NetworkMode == "host":
        return msgspec.structs.replace(config, Hostname=os.uname().nodename)
    joined = checks.joined_container(host_config.NetworkMode)
    if joined is not None:
        try:
            return msgspec.structs.replace(config, Hostname=engine.containers.find(joined).container.config.Hostname)
        except NotFound:
            pass
    return msgspec.structs.replace(config, Hostname=container_id[:12])


def size_limit(engine: Engine, host_config: HostConfig) -> int:
    """Bytes that the container may write into its own layer (`--storage-opt size=10G`), 0 without a limit."""
    options = host_config.StorageOpt or {}
    for name in options:
        if name != "size":
            raise InvalidArgument(f"Unknown option {name}", hint="the one option is size=BYTES, as in size=10G")
    if "size" not in options:
        return 0
    try:
        size = parse_bytes(options["size"])
    except ValueError as error:
        raise InvalidArgument(f"storage option size: {error}") from None
    if size and not engine.snapshots.serves_limits():
        raise InvalidArgument(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
            hint="or over ext4 mounted with prjquota; the data root is on neither",
        )
    return size


def _refuse_by_version(body: CreateBody, host_config: HostConfig, version: tuple[int, int]) -> None:
    """W72: what a client of an older API cannot mean."""
    networks = body.NetworkingConfig.EndpointsConfig or {}
    if version < (1, 44) and len(networks) > 1:
        names = ", ".join(sorted(networks))
        raise InvalidArgument(f"Container cannot be created with multiple network endpoints: {names}")
    for mount in host_config.Mounts or ():
        if version < (1, 45) and mount.VolumeOptions and mount.VolumeOptions.Subpath:
            raise InvalidArgument("VolumeOptions.Subpath needs API v1.45 or newer")
        if version < (1, 48) and mount.Type == "image":
            raise InvalidArgument('Mount type "Image" needs API v1.48 or newer')


def _check_joined(engine: Engine, host_config: HostConfig) -> None:
    """The container whose processes are to be seen must be there; whether it runs is asked at start."""
    name = checks.joined_container(host_config.PidMode)
    if name is not None:
        try:
            engine.containers.find(name)
        except NotFound as error:
            raise InvalidArgument(error.message) from None


def _refuse_missing_sources(mounts: list[MountPoint]) -> None:
    """`--mount type=bind` wants an existing source; `-v` makes a directory at start."""
    for point in mounts:
        if point.type == "bind" and point.must_exist and not os.path.exists(point.source):
            raise InvalidArgument(
                f'invalid mount config for type "bind": bind source path does not exist: {point.source}'
            )


def _endpoints(engine: Engine, body: CreateBody, host_config: HostConfig) -> dict[str, EndpointSettings]:
    """The endpoints asked for, under their networks' names. Whether the networks exist is asked at start (W10)."""
    mode = host_config.NetworkMode
    if checks.joined_container(mode) is not None or mode.startswith(NAMESPACE_MODE):
        return {}
    asked = {
        name: settings or EndpointSettings() for name, settings in (body.NetworkingConfig.EndpointsConfig or {}).items()
    }
    if mode not in asked:
        asked = {mode: asked.pop("default", EndpointSettings()), **asked}
    return {_network_name(engine, name): settings for name, settings in asked.items()}


def _network_name(engine: Engine, text: str) -> str:
    """A network may be named by its id; one that is not there yet stays as it was written."""
    try:
        return engine.networks.inspect(text).name
    except (NotFound, InvalidArgument):
        return text


__all__ = ["create"]
