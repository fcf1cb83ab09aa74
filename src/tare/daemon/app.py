"""The daemon: the only place that builds services. Everything else is handed what it uses."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import gc
import grp
import ipaddress
import itertools
import logging
import os
import resource
import secrets
import shutil
import signal
import socket
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvloop

from tare import __version__
from tare.aio import tasks
from tare.aio.orphans import Orphans
from tare.aio.threads import in_thread
from tare.api.app import server_options
from tare.base import clock
from tare.base.errors import InvalidArgument, TareError, Unavailable
from tare.build.autobuilds import SCHEMA as AUTOBUILD_SCHEMA
from tare.build.autobuilds import Autobuilds
from tare.build.cache import SCHEMA as BUILD_SCHEMA
from tare.build.cache import BuildCache
from tare.containers import capabilities, records
from tare.containers.execs import Execs
from tare.containers.service import Containers
from tare.containers.view import InspectCache, SummaryCache
from tare.daemon import activation, logs
from tare.daemon.exposure import bind, context_of, guard_of, listeners
from tare.daemon.options import Options, load
from tare.drivers import cgroups, host, trees, userns
from tare.drivers.archive.client import Archiver
from tare.drivers.inotify import Alarms
from tare.drivers.migration import Migration
from tare.drivers.network.nft import Listener
from tare.drivers.runtime.monitor import Monitor
from tare.drivers.runtime.oci import OciRuntime, probe
from tare.drivers.runtime.sessions import Sessions
from tare.drivers.seccomp import FilterCache
from tare.drivers.snapshots import Ids
from tare.drivers.snapshots import overlay as snapshots_overlay
from tare.drivers.snapshots.overlay import OverlaySnapshotter
from tare.drivers.volumes.local import LocalVolumes
from tare.engine.autobuilds.restore import restore as restore_autobuilds
from tare.engine.autobuilds.watch import watch as watch_autobuilds
from tare.engine.builds.sweep import sweep as sweep_builds
from tare.engine.cleanup import watch as watch_images
from tare.engine.engine import Engine, Settings
from tare.engine.events import SCHEMA as EVENTS_SCHEMA
from tare.engine.events import Events
from tare.engine.restore import restore
from tare.engine.stop import stop_all
from tare.images import artifacts, manifests
from tare.images import records as image_records
from tare.images.artifacts import Artifacts
from tare.images.manifests import Manifests
from tare.images.pull import Pulls
from tare.images.push import Pushes
from tare.images.service import ImageOptions, Images
from tare.networks import records as network_records
from tare.networks.service import NetworkOptions, Networks
from tare.registry.downloads import KEPT_S, Downloads
from tare.registry.hosts import RegistryOptions
from tare.registry.transport import Transport
from tare.registry.uploads import Uploads
from tare.store.blobs import Blobs
from tare.store.db import Database
from tare.store.reserve import Reserve
from tare.volumes import records as volume_records
from tare.volumes.service import Volumes
from tare.web.server import Server, unix_socket
from tare.wire.errors import text_of

log = logging.getLogger("tare")

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
_PR_SET_CHILD_SUBREAPER = 36
_INIT_PROGRAMS = ("docker-init", "tini-static", "catatonit")  # static ones: they run on any image
_OOM_SCORE = -500
_M_ARENA_MAX = -8  # mallopt(3)
_DESCRIPTORS = 65536
_TRIM_EVERY_S = 30


def main(argv: Sequence[str]) -> int:
    """`tare daemon`: run until told to stop. Returns the exit code."""
    try:
        options = load(argv)
    except InvalidArgument as error:
        print(f"tare daemon: {text_of(error)}", file=sys.stderr)
        return 1
    logs.set_up(_LEVELS[options.log_level], options.log_format)
    if os.geteuid() != 0:
        print("tare daemon: needs root: containers are made of mounts, namespaces and control groups", file=sys.stderr)
        return 1
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(options))
    except TareError as error:
        print(f"tare daemon: {text_of(error)}", file=sys.stderr)
        return 1
    return 0


async def serve(options: Options) -> None:
    """Build everything, listen, and return when SIGTERM or SIGINT came."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, log.info, "options are read at start only: restart to change them")
    _prepare_process()
    sockets = _passed(options.hosts)
    lock = _claim(options)
    server: Server | None = None
    engine: Engine | None = None
    try:
        engine = await build(options)
        server = Server(server_options(engine))
        for address in options.hosts:
            if address.startswith("tcp://"):
                guard, tls = guard_of(address, options.exposure), context_of(options.exposure)
                await server.listen(bind(address, options.exposure), guard=guard, tls=tls)
            elif address.startswith(activation.SCHEME):
                for passed in sockets[address]:
                    await server.listen(passed)
            else:
                await server.listen(_bind(address, options.group))
        tasks.spawn(watch_autobuilds(engine), name="autobuilds")
        tasks.spawn(keep_house(engine.reserve), name="keep house")
        if options.image_gc:
            tasks.spawn(watch_images(engine, options.image_gc), name="clean up images")
        gc.collect()
        gc.freeze()
        ctypes.CDLL(None).malloc_trim(0)  # what only the start needed: libnftables reads every rule of the host
        log.info("tare %s is ready: %s", __version__, ", ".join(options.hosts))
        activation.tell("READY=1", os.environ)
        await stopping.wait()
        activation.tell("STOPPING=1", os.environ)
        if options.live_restore:
            log.info("stopping; containers go on")
        else:
            server.stop_listening()
            log.info("stopping every container (live-restore is off)")
            await stop_all(engine, timeout_s=options.shutdown_timeout)
    finally:
        if server is not None:
            server.close()
        if engine is not None:
            await _close(engine)
        for address in options.hosts:
            if server is not None and address.startswith("unix://"):
                Path(address.removeprefix("unix://")).unlink(missing_ok=True)
        if options.pidfile is not None:
            options.pidfile.unlink(missing_ok=True)
        os.close(lock)


def _passed(hosts: Sequence[str]) -> dict[str, list[socket.socket]]:
    """By address, the sockets that a service manager has made. Raises InvalidArgument."""
    return {
        host: [activation.adopt(number) for number in activation.numbers(host, os.environ, pid=os.getpid())]
        for host in hosts
        if host.startswith(activation.SCHEME)
    }


def _prepare_process() -> None:
    """Orphans of ours (monitors) come back to us; the kernel spares us when memory is short; files are private.

    One heap for all threads: libnftables reads every rule of the host at each change, and a heap of each thread of the pool
    would keep room for that (130 MiB more after a few hundred starts beside 1,400 rules). Shells give 1,024 descriptors, which is meant for programs with select(2); containers get what they are given (`checks.py`).
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.umask(0o022)
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _DESCRIPTORS)), hard))
    try:
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    except PermissionError:
        log.warning("cannot lower the OOM score: CAP_SYS_RESOURCE is missing")


def _claim(options: Options) -> int:
    """Make the directories and take the data root for ourselves. Raises Unavailable when another daemon has it."""
    for directory in (options.data_root, options.exec_root):
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    os.chmod(options.data_root, 0o711)
    os.chmod(options.exec_root, 0o711)
    lock = os.open(options.data_root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise Unavailable(
            f"data root {options.data_root} is in use by another daemon (pid {holder})",
            hint="stop it, or give this one its own --data-root, --exec-root, --host and --bridge",
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    for name in ("containers", "exits", "runtime"):
        (options.exec_root / name).mkdir(mode=0o700, exist_ok=True)
    for name in ("builds", "containers"):
        (options.data_root / name).mkdir(mode=0o700, exist_ok=True)
    if options.pidfile is not None:
        options.pidfile.parent.mkdir(parents=True, exist_ok=True)
        options.pidfile.write_text(f"{os.getpid()}\n")
    return lock


def exposed_note(options: Options) -> str:
    """What `info` says of listeners that do not verify their clients."""
    return options.exposure.warning if any(host.startswith("tcp://") for host in options.hosts) else ""


def _bind(address: str, group: str) -> socket.socket:
    path = address.removeprefix("unix://")
    Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        owner = grp.getgrnam(group).gr_gid if group else None
    except KeyError:
        owner = None
        log.info("group %s does not exist: only root may use %s", group, path)
    try:
        return unix_socket(path, group=owner)
    except OSError as error:
        raise Unavailable(f"cannot listen on {address}: {error.strerror or error}") from None


async def build(options: Options) -> Engine:
    """Every service, in the order in which they need each other."""
    reserve = Reserve(options.data_root)
    reserve.make_room()
    db = Database(
        options.data_root / "state.db",
        (
            records.SCHEMA,
            image_records.SCHEMA,
            manifests.SCHEMA,
            artifacts.SCHEMA,
            network_records.SCHEMA,
            volume_records.SCHEMA,
            EVENTS_SCHEMA,
            BUILD_SCHEMA,
            AUTOBUILD_SCHEMA,
            _SCHEMA,
        ),
        make_room=reserve.make_room,
    )
    events = Events(db)
    await events.load()
    facts = host.read(capabilities.ALL)
    layout = cgroups.read_layout()
    notes: list[str] = []
    archiver = Archiver()
    archiving = tasks.spawn(
        archiver.start(), name="archive worker", is_awaited=True
    )  # it loads beside all that follows
    runtimes = await _runtimes(options, layout, notes)
    default = options.default_runtime or ("crun" if "crun" in runtimes else "runc")
    if default not in runtimes:
        raise InvalidArgument(f"default runtime {default} is not installed", hint=f"known: {', '.join(runtimes)}")
    snapshots = OverlaySnapshotter(options.data_root)
    containers = Containers(db)
    await containers.load()
    blobs = Blobs(options.data_root)
    for name in ("builds", "containers", "ingest", "snapshots"):  # where trees come and go as a whole
        trees.spread(options.data_root / name)
    images = Images(
        database=db,
        blobs=blobs,
        snapshots=snapshots,
        archiver=archiver,
        publish=events.publish,
        options=ImageOptions(allow_private_sources=options.allow_private_sources),
    )
    build_cache = BuildCache(db)
    await build_cache.load()
    images.also_kept = build_cache.chains
    autobuilds = Autobuilds(db)
    interrupted = await autobuilds.load()
    await images.restore({slot.container.id for slot in containers})
    transport = Transport(_registry_options(options))
    downloads, uploads = Downloads(options.data_root, slots=transport.options.downloads), Uploads(options.data_root)
    downloads.sweep(now_s=clock.now() / 1e9)
    uploads.sweep(older_than_s=clock.now() / 1e9 - KEPT_S)
    known = Manifests(db, Artifacts(db, options.data_root, publish=events.publish, others=blobs))
    await known.sweep()
    await known.artifacts.restore()
    images.refuse_other, images.when_removed = known.artifacts.refuse, known.artifacts.sweep
    mapping = await _id_mapping(options)
    monitor = shutil.which("conmon")
    if monitor is None:
        raise Unavailable("conmon is not installed", hint="apt-get install conmon")
    await archiving
    # whatever may refuse the start has done so: from here on the machine is changed
    networks = Networks(database=db, publish=events.publish, options=_network_options(options, await _engine_id(db)))
    await networks.start()
    local = LocalVolumes(options.data_root)
    volumes = Volumes(database=db, drivers={local.name: local}, publish=events.publish)
    sessions = Sessions(exec_root=options.exec_root)
    sessions.clear()
    engine = Engine(
        settings=Settings(
            data_root=options.data_root,
            exec_root=options.exec_root,
            default_runtime=default,
            labels=options.labels,
            uses_init=options.init,
            init_path=next((path for name in _INIT_PROGRAMS if (path := shutil.which(name))), ""),
            no_new_privileges=options.no_new_privileges,
            image_policy=options.image_gc,
            default_ulimits=options.default_ulimits,
            id_mapping=mapping,
            cdi_directories=options.cdi_directories,
            log_driver=options.log_driver,
            log_options=options.log_options,
            journal_socket=options.journal_socket,
            debug=options.debug,
            live_restore=options.live_restore,
            builder_cache_bytes=options.builder_cache_size,
            concurrent_autobuilds=options.max_concurrent_autobuilds,
            engine_id=await _engine_id(db),
            started_at=clock.now(),
            notes=(*notes, *networks.warnings(), *filter(None, [exposed_note(options)])),
        ),
        host=facts,
        cgroups=layout,
        migration=Migration(layout),
        db=db,
        reserve=reserve,
        archiver=archiver,
        images=images,
        snapshots=snapshots,
        containers=containers,
        networks=networks,
        volumes=volumes,
        events=events,
        monitor=Monitor(path=monitor, exec_root=options.exec_root),
        execs=Execs(),
        sessions=sessions,
        runtimes=runtimes,
        filters=FilterCache(options.data_root / "seccomp"),
        summaries=SummaryCache(),
        inspections=InspectCache(),
        alarms=Alarms(),
        transport=transport,
        build_cache=build_cache,
        autobuilds=autobuilds,
        manifests=known,
        pulls=Pulls(images, known, transport=transport, downloads=downloads),
        pushes=Pushes(images, known, transport=transport, uploads=uploads),
    )
    await restore(engine)
    sweep_builds(engine)
    restore_autobuilds(engine, interrupted)
    return engine


def _registry_options(options: Options) -> RegistryOptions:
    certificates = (options.certificates,) if options.certificates else RegistryOptions().certificates
    mirrors: dict[str, tuple[str, ...]] = {}
    for domain, url in options.registry_mirrors:
        mirrors[domain] = (*mirrors.get(domain, ()), url)
    return RegistryOptions(
        mirrors=mirrors,
        insecure=options.insecure_registries,
        realms=options.trusted_realms,
        certificates=certificates,
        environment=_proxies(options, os.environ),
        connect_timeout_s=min(RegistryOptions().connect_timeout_s, options.registry_timeout),
        idle_timeout_s=options.registry_timeout,
        downloads=options.max_concurrent_downloads,
        uploads=options.max_concurrent_uploads,
        attempts=options.max_download_attempts,
    )


def _proxies(options: Options, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, with what the administrator said about proxies in its place."""
    named = {"HTTP_PROXY": options.http_proxy, "HTTPS_PROXY": options.https_proxy, "NO_PROXY": options.no_proxy}
    return {**environment, **{key: value for key, value in named.items() if value}}


async def _id_mapping(options: Options) -> userns.Mapping | None:
    """The mapping asked for, once it is known that this kernel makes such namespaces. Raises Unavailable."""
    if not options.userns_remap:
        return None
    mapping = userns.resolve(options.userns_remap)
    for place in (options.data_root, options.exec_root):
        if (blocked := userns.blocked_at(place, mapping)) is not None:
            raise Unavailable(
                f"--userns-remap: {place} cannot be reached by uid {mapping.root[0]}: it may not pass through {blocked}",
                hint=f"chmod o+x {blocked}, or choose other directories",
            )
    space = await userns.make(mapping)
    try:
        snapshots_overlay.probe_ids(options.data_root, Ids(space.user_fd, *mapping.root))
    finally:
        space.close()
    log.info("ids of containers are mapped to those of %s, from %d on", mapping.name, mapping.root[0])
    return mapping


def _network_options(options: Options, seed: str) -> NetworkOptions:
    """seed: a name of this engine that stays."""
    return NetworkOptions(
        bridge=options.bridge,
        bip=options.bip,
        iptables=options.iptables,
        icc=options.icc,
        ip_masq=options.ip_masq,
        mtu=options.mtu,
        ipv6=options.ipv6,
        fixed_cidr_v6=options.fixed_cidr_v6,
        ip_forward=options.ip_forward,
        forward_accept=options.forward_accept,
        host_gateway=options.host_gateway_ip,
        pools=options.address_pools,
        is_relayed=options.publish_by == "relay",
        allow_direct_routing=options.allow_direct_routing,
        default_options=options.default_network_options,
        listeners=tuple(
            Listener(port=port, address=ipaddress.ip_address(address) if address else None)
            for address, port in listeners(options.hosts, options.exposure)
        ),
        seed=seed,
        dns=options.dns,
        dns_search=options.dns_search,
        dns_options=options.dns_options,
    )


async def _runtimes(options: Options, layout: cgroups.Layout, notes: list[str]) -> dict[str, OciRuntime]:
    """Every runtime that can work here; what was decided and why goes to the notes."""
    root = options.exec_root / "runtime"
    wanted: dict[str, tuple[str, tuple[str, ...]]] = {}
    for name in ("crun", "runc"):
        if shutil.which(name) is None:
            continue
        if name == "crun":
            try:
                for tree in cgroups.ensure_crun_usable(layout):
                    log.info("mounted the left-over cgroup controller %s as a v1 hierarchy: crun needs that", tree.name)
            except TareError as error:
                notes.append(f"crun is not used: {error.message}")
                continue
        wanted[name] = (name, ())
    wanted |= {name: (argv[0], tuple(argv[1:])) for name, argv in options.runtimes.items()}
    probes = (probe(name, path, root / name, arguments) for name, (path, arguments) in wanted.items())
    found = dict(zip(wanted, await asyncio.gather(*probes), strict=True))
    if not found:
        raise Unavailable("no OCI runtime is installed", hint="apt-get install crun")
    if "crun" not in found:
        notes.append("crun is not installed: runc is used, starts take longer")
    return found


_SCHEMA = "CREATE TABLE IF NOT EXISTS engine (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"


async def _engine_id(db: Database) -> str:
    """A name for this engine that stays."""
    new = "-".join((secrets.token_hex(4), *(secrets.token_hex(2) for _ in range(3)), secrets.token_hex(6)))

    def read(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT OR IGNORE INTO engine VALUES ('id', ?)", (new,))
        row: tuple[str] = connection.execute("SELECT value FROM engine WHERE key = 'id'").fetchone()
        return row[0]

    return await db.write(read)


async def keep_house(reserve: Reserve) -> None:
    """What was given up of the reserve is made again as soon as there is room; memory of a busy minute goes back to the kernel.

    Orphans that nobody waits for are collected.
    """
    libc, orphans = ctypes.CDLL(None), Orphans()
    for second in itertools.count(1):
        orphans.collect()
        if not reserve.is_whole:
            await in_thread(reserve.refill)
        if second % _TRIM_EVERY_S == 0:
            await in_thread(libc.malloc_trim, 0)
        await asyncio.sleep(1)


async def _close(engine: Engine) -> None:
    await tasks.cancel_all()
    await engine.transport.close()
    await engine.networks.close()
    engine.archiver.close()
    engine.alarms.close()
    engine.db.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
