"""What `info` says: the host, the choices made at start, the counts."""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import Any

from tare.base import clock, version
from tare.base.clock import rfc3339nano
from tare.base.reference import DEFAULT_DOMAIN
from tare.containers import logoptions
from tare.containers.container import State
from tare.drivers.cgroups import CgroupMode
from tare.engine import cdi
from tare.engine.engine import Engine
from tare.registry.hosts import RegistryOptions, is_insecure

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def architecture() -> str:
    """The machine as Go names it."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


@lru_cache(maxsize=1)
def _operating_system() -> tuple[str, str]:
    values: dict[str, str] = {}
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            text = Path(path).read_text()
        except OSError:
            continue
        for line in text.splitlines():
            key, equals, value = line.partition("=")
            if equals:
                values[key] = value.strip().strip('"')
        break
    return values.get("PRETTY_NAME", "Linux"), values.get("VERSION_ID", "")


def describe(engine: Engine) -> dict[str, Any]:
    """The body of `GET /info`."""
    states = [slot.container.state for slot in engine.containers]
    running = sum(state is State.RUNNING for state in states)
    paused = sum(state is State.PAUSED for state in states)
    settings, host = engine.settings, engine.host
    name, release = _operating_system()
    is_v2 = host.cgroup_mode is CgroupMode.V2
    return {
        "ID": settings.engine_id,
        "Containers": len(states),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(states) - running - paused,
        "Images": len(engine.images.list_images({}, include_all=True)),
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", _file_system(settings.data_root)], ["Supports d_type", "true"]],
        "Plugins": {
            "Volume": engine.volumes.driver_names,
            "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
            "Authorization": None,
            "Log": sorted({*logoptions.DRIVERS} - {"none"}),
        },
        "MemoryLimit": "memory" in host.controllers,
        "SwapLimit": host.has_swap_limit,
        "CpuCfsPeriod": host.has_cpu_quota,
        "CpuCfsQuota": host.has_cpu_quota,
        "CPUShares": "cpu" in host.controllers,
        "CPUSet": "cpuset" in host.controllers,
        "PidsLimit": "pids" in host.controllers,
        "IPv4Forwarding": host.has_ip_forward,
        "Debug": settings.debug,
        "NFd": len(os.listdir("/proc/self/fd")),
        "OomKillDisable": not is_v2,
        "NGoroutines": len(os.listdir("/proc/self/task")),
        "SystemTime": rfc3339nano(clock.now()),
        "LoggingDriver": settings.log_driver,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if is_v2 else "1",
        "NEventsListener": engine.events.listeners,
        "KernelVersion": platform.release(),
        "OperatingSystem": name,
        "OSVersion": release,
        "OSType": "linux",
        "Architecture": host.machine,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": _registries(engine.transport.options),
        "NCPU": host.cpu_count,
        "MemTotal": host.memory_bytes,
        "GenericResources": None,
        "DockerRootDir": str(settings.data_root),
        "HttpProxy": _proxy(engine.transport.options, "http_proxy"),
        "HttpsProxy": _proxy(engine.transport.options, "https_proxy"),
        "NoProxy": _proxy(engine.transport.options, "no_proxy"),
        "Name": os.uname().nodename,
        "Labels": list(settings.labels),
        "ExperimentalBuild": False,
        "ServerVersion": version.ENGINE_VERSION,
        "Runtimes": {name: {"path": runtime.path} for name, runtime in engine.runtimes.items()},
        "DefaultRuntime": settings.default_runtime,
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": settings.live_restore,
        "Isolation": "",
        "InitBinary": settings.init_path,
        "ContainerdCommit": {"ID": "", "Expected": ""},
        "RuncCommit": {"ID": "", "Expected": ""},
        "InitCommit": {"ID": "", "Expected": ""},
        "SecurityOptions": [
            "name=seccomp,profile=builtin",
            *(["name=userns"] if settings.id_mapping is not None else []),
            *(["name=no-new-privileges"] if settings.no_new_privileges else []),
        ],
        "ProductLicense": "Apache-2.0",
        "DefaultAddressPools": engine.networks.pools(),
        **({"FirewallBackend": {"Driver": firewall}} if (firewall := engine.networks.firewall) else {}),
        "Warnings": list(settings.notes) or None,
        "CDISpecDirs": list(settings.cdi_directories),
        "DiscoveredDevices": [{"Source": "cdi", "ID": name} for name in cdi.known(engine).names()] or None,
    }


def _registries(options: RegistryOptions) -> dict[str, Any]:
    """What clients show as registries: mirrors of Docker Hub as dockerd says them, those of others beside it."""
    listed = sorted({DEFAULT_DOMAIN, *options.mirrors, *(entry for entry in options.insecure if "/" not in entry)})
    return {
        "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128", *(entry for entry in options.insecure if "/" in entry)],
        "IndexConfigs": {
            domain: {
                "Name": domain,
                "Mirrors": list(options.mirrors.get(domain, ())),
                "Secure": not is_insecure(domain, options),
                "Official": domain == DEFAULT_DOMAIN,
            }
            for domain in listed
        },
        "Mirrors": list(options.mirrors.get(DEFAULT_DOMAIN, ())),
    }


def _proxy(options: RegistryOptions, key: str) -> str:
    """The proxy setting without its password."""
    value = options.environment.get(key.upper(), "") or options.environment.get(key, "")
    scheme, separator, rest = value.rpartition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{separator}xxxxx:xxxxx@{host}" if at and user else value


def _file_system(path: Path) -> str:
    """The type of the file system that holds `path`, from the mount table (the longest mount point wins)."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        fields = line.split()
        point = fields[1]
        if (str(path) + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best):
            best, kind = point, fields[2]
    return "extfs" if kind == "ext4" else kind
