"""Everything a start looks up before the pure renderer decides: user, program, mounts, devices, filter, files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tare.base.errors import Conflict, InternalError, InvalidArgument, NotFound
from tare.containers import checks, seccomp_profile, spec
from tare.containers.container import Container, MountPoint
from tare.containers.merge import argv_of, environment
from tare.drivers import devices, rootfs, views
from tare.drivers.runtime.oci import OciRuntime
from tare.engine import links
from tare.engine.engine import Engine, directory_of, rootfs_of
from tare.engine.release import cgroup_path
from tare.engine.volumes import place_of
from tare.networks.service import Attachment, Wish
from tare.wire.config import DeviceMapping, HostConfig

_HAS_MOUNT_SETATTR = (5, 12)
_HOST_FLAGS = {"ro": os.ST_RDONLY, "nosuid": os.ST_NOSUID, "nodev": os.ST_NODEV, "noexec": os.ST_NOEXEC}
_PREFIX = "failed to create task for container: failed to create shim task: OCI runtime create failed: "


def spec_input(
    engine: Engine,
    container: Container,
    *,
    runtime: OciRuntime,
    attachment: Attachment,
    volumes: Mapping[str, str],
    user_namespace: spec.UserNamespace | None = None,
) -> spec.SpecInput:
    """What `spec.render` needs. The root file system is mounted already; files of ours are written.

    volumes: destination to the host path of what is mounted already: volumes, images, some binds.
    Raises InvalidArgument and rootfs.CannotExecute in the words from which clients read the exit code (W9).
    """
    config, host = container.config, container.host_config
    directory = directory_of(engine, container.id)
    argv = argv_of(config)
    cwd = config.WorkingDir or "/"
    env = environment(config, hostname=config.Hostname, links=links.environment(engine, container))
    env = [*env, *engine.containers.find(container.id).hidden_environment]
    mounted = [point.destination for point in container.mounts]
    init = engine.settings.init_path if host.Init is True else None
    if init == "":
        raise InvalidArgument("no init program is installed on the host", hint="apt-get install tini")
    owner = (user_namespace.uids[0][0], user_namespace.gids[0][0]) if user_namespace is not None else (0, 0)
    user = _look_inside(rootfs_of(engine, container.id), config.User, host.GroupAdd or (), argv, env, cwd, mounted)
    return spec.SpecInput(
        id=container.id,
        config=config,
        host=host,
        argv=argv,
        env=env,
        cwd=cwd,
        user=user,
        hostname=config.Hostname,
        rootfs=str(rootfs_of(engine, container.id)),
        facts=engine.host,
        cgroup_path=cgroup_path(container),
        mounts=[
            *(
                _bind(point, engine.host.kernel, owner)
                for point in container.mounts
                if point.type == "bind" and point.destination not in volumes
            ),
            *(
                _volume(point, volumes[point.destination], engine.host.kernel)
                for point in container.mounts
                if point.destination in volumes
            ),
            *spec.tmpfs_mounts(host),
        ],
        files=_files(directory, attachment, mounted),
        namespaces=_namespaces(engine, container, attachment),
        user_namespace=user_namespace,
        runtime="crun" if runtime.is_crun else "runc",
        seccomp=_seccomp(engine, host, wants_bpf=runtime.is_crun),
        no_new_privileges=engine.settings.no_new_privileges,
        init_path=init,
        shm_path=_shm_of(engine, container),
        devices=_devices(host.Devices or (), privileged=host.Privileged),
        block_devices=_block_devices(host),
    )


def _look_inside(
    target: Path,
    user: str,
    groups: Sequence[str],
    argv: Sequence[str],
    env: Sequence[str],
    cwd: str,
    mounted: Sequence[str],
) -> spec.User:
    """Resolve the user, make the working directory, find the program: all by descriptor inside the root."""
    root_fd = rootfs.open_root(target)
    try:
        resolved = rootfs.resolve_user(root_fd, user, groups)
        if not any(cwd == place or cwd.startswith(f"{place}/") for place in mounted):
            rootfs.ensure_directory(root_fd, cwd)
        path = next((entry[5:] for entry in env if entry.startswith("PATH=")), rootfs.DEFAULT_PATH)
        try:
            rootfs.check_executable(root_fd, argv[0], path=path, cwd=cwd, mounts=mounted)
        except rootfs.CannotExecute as error:
            raise rootfs.CannotExecute(
                f"{_PREFIX}unable to start container process: {error.message}", exit_code=error.exit_code
            ) from None
    finally:
        os.close(root_fd)
    return spec.User(uid=resolved.uid, gid=resolved.gid, additional_gids=resolved.additional_gids)


def _bind(point: MountPoint, kernel: tuple[int, int], owner: tuple[int, int]) -> spec.MountPlan:
    """A bind mount; a source that does not exist becomes a directory of `owner`, as `-v` has always done."""
    if point.must_exist and not os.path.exists(point.source):
        raise InvalidArgument(f'invalid mount config for type "bind": bind source path does not exist: {point.source}')
    if not os.path.exists(point.source):
        try:
            os.makedirs(point.source, mode=0o755, exist_ok=True)
            os.chown(point.source, *owner)
        except OSError as error:
            raise InvalidArgument(
                f"error while creating mount source path '{point.source}': {(error.strerror or '').lower()}"
            ) from None
    return spec.MountPlan(
        destination=point.destination,
        source=point.source,
        options=("rbind", *_flags(point, point.source, kernel)),
        propagation=point.propagation,
    )


def _flags(point: MountPoint, source: str, kernel: tuple[int, int]) -> list[str]:
    """`ro` if asked for (`rro`: for what is mounted below it too, where the kernel can), and whatever the host mounted
    the source with: crun 1.8 would clear those flags, runc not."""
    flags = os.statvfs(source).f_flag
    words = [word for word, bit in _HOST_FLAGS.items() if flags & bit]
    if not point.is_writable:
        if "ro" not in words:
            words.append("ro")
        # Nothing is mounted below a file, and crun 1.8 opens the target of `rro` as a directory.
        recurses = point.is_read_only_below and point.is_recursive and os.path.isdir(source)
        if recurses and kernel >= _HAS_MOUNT_SETATTR:
            words.append("rro")
    return words


def _volume(point: MountPoint, source: str, kernel: tuple[int, int]) -> spec.MountPlan:
    return spec.MountPlan(
        destination=point.destination,
        source=source,
        options=("rbind", *_flags(point, source, kernel)),
        propagation=point.propagation,
    )


def _files(directory: Path, attachment: Attachment, mounted: Sequence[str]) -> spec.HostFiles:
    """Write hosts, hostname and resolv.conf, and say which of them are mounted (not over a mount of the user's)."""
    for name, text in (
        ("hosts", attachment.files.hosts),
        ("hostname", attachment.files.hostname),
        ("resolv.conf", attachment.files.resolv_conf),
    ):
        path = directory / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            path.chmod(0o644)

    def unless_mounted(target: str, name: str) -> str | None:
        return None if target in mounted else str(directory / name)

    return spec.HostFiles(
        hosts=unless_mounted("/etc/hosts", "hosts"),
        hostname=unless_mounted("/etc/hostname", "hostname"),
        resolv_conf=unless_mounted("/etc/resolv.conf", "resolv.conf"),
    )


def _namespaces(engine: Engine, container: Container, attachment: Attachment) -> spec.Namespaces:
    host = container.host_config
    return spec.Namespaces(
        network=attachment.path, ipc=_joined(engine, host.IpcMode, "ipc"), pid=_joined(engine, host.PidMode, "pid")
    )


def _joined(engine: Engine, mode: str, kind: str) -> str | None:
    """The namespace of the container named by `container:NAME`."""
    name = checks.joined_container(mode)
    if name is None:
        return None
    failure = f"failed to join {kind.upper()} namespace"
    try:
        other = engine.containers.find(name).container
    except NotFound as error:
        raise InvalidArgument(f"{failure}: {error.message}") from None
    if not other.is_running or other.process is None:
        raise InternalError(f"{failure}: container {other.id} is not running")
    if kind == "ipc" and other.host_config.IpcMode not in ("shareable", "host"):
        raise InvalidArgument(
            f"cannot join IPC namespace of container {other.id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
        )
    return f"/proc/{other.process.pid}/ns/{kind}"


def _shm_of(engine: Engine, container: Container) -> str | None:
    """The donor's /dev/shm, mounted for us, when its IPC namespace is joined."""
    name = checks.joined_container(container.host_config.IpcMode)
    if name is None:
        return None
    other = engine.containers.find(name).container
    if other.process is None:
        raise Conflict(f"cannot join ipc of a non running container: {other.id}")
    place = place_of(engine, container.id, "shm")
    views.borrow(other.process.pid, "/dev/shm", place)
    return str(place)


def _seccomp(engine: Engine, host: HostConfig, *, wants_bpf: bool) -> spec.Seccomp:
    """The container's filter: none, the default profile or the client's own."""
    if not spec.wants_seccomp(host):
        return spec.Seccomp()
    chosen = checks.security_options(host.SecurityOpt).seccomp
    profile = seccomp_profile.DEFAULT if chosen in (None, "builtin") else seccomp_profile.parse(chosen or "")
    section = seccomp_profile.resolve(
        profile,
        capabilities=spec.bounding(host, engine.host),
        host=seccomp_profile.Host(machine=engine.host.machine, kernel=engine.host.kernel),
    )
    if section is None:
        return spec.Seccomp()
    return spec.Seccomp(section=section, bpf=engine.filters.get(section) if wants_bpf else None)


def _devices(asked: Sequence[DeviceMapping], *, privileged: bool) -> list[spec.DevicePlan]:
    """Device nodes to make: all of the host's for a privileged container, else those asked for."""
    if privileged:
        return [_plan(node.path, node, "rwm") for node in devices.everything()]
    return [
        _plan(path, node, mapping.CgroupPermissions or "rwm")
        for mapping in asked
        for path, node in devices.expand(mapping.PathOnHost, mapping.PathInContainer)
    ]


def _plan(path: str, node: devices.HostDevice, access: str) -> spec.DevicePlan:
    return spec.DevicePlan(
        path=path,
        kind=node.kind,
        major=node.major,
        minor=node.minor,
        mode=node.mode,
        uid=node.uid,
        gid=node.gid,
        access=access,
    )


def _block_devices(host: HostConfig) -> dict[str, tuple[int, int]]:
    """Numbers of every block device that a weight or a rate names."""
    named = [
        *(host.BlkioWeightDevice or ()),
        *(host.BlkioDeviceReadBps or ()),
        *(host.BlkioDeviceWriteBps or ()),
        *(host.BlkioDeviceReadIOps or ()),
        *(host.BlkioDeviceWriteIOps or ()),
    ]
    return {entry.Path: devices.block_number(entry.Path) for entry in named}


def wish_of(engine: Engine, container: Container, *, bare_namespace: int | None = None) -> Wish:
    """What the container asks of the networks. bare_namespace: one for it that is there already."""
    joined = checks.joined_container(container.host_config.NetworkMode)
    return Wish(
        container_id=container.id,
        name=container.name,
        config=container.config,
        host=container.host_config,
        endpoints=container.asked_endpoints,
        joined=engine.containers.find(joined).container.id if joined is not None else None,
        links=links.host_lines(engine, container),
        bare_namespace=bare_namespace,
    )
