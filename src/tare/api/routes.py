"""Every route of the API: a new endpoint is a row here. No row without a permission."""

from __future__ import annotations

from tare.api import absent, containers, execs, images, networks, registries, system, usage, volumes
from tare.api.handler import Handler, Later
from tare.web.router import Route

archive, autobuilds, build = Later("tare.api.archive"), Later("tare.api.autobuilds"), Later("tare.api.build")
check, moving, versions = Later("tare.api.check"), Later("tare.api.moving"), Later("tare.api.versions")


def _swarm_rows() -> list[Route[Handler]]:
    rows: list[Route[Handler]] = []
    for kind in ("nodes", "services", "tasks", "secrets", "configs"):
        rows.append(Route("GET", f"/{kind}", absent.swarm, "read"))
        rows.append(Route("GET", f"/{kind}/{{id}}", absent.swarm, "read"))
        rows.append(Route("DELETE", f"/{kind}/{{id}}", absent.swarm, "admin"))
        rows.append(Route("POST", f"/{kind}/create", absent.swarm, "admin"))
        rows.append(Route("POST", f"/{kind}/{{id}}/update", absent.swarm, "admin"))
        rows.append(Route("GET", f"/{kind}/{{id}}/logs", absent.swarm, "read"))
    return rows


ROUTES: list[Route[Handler]] = [
    # the engine
    Route("GET", "/_ping", system.ping, "read"),
    Route("HEAD", "/_ping", system.ping_head, "read"),
    Route("GET", "/version", system.version_, "read"),
    Route("GET", "/info", system.info, "read"),
    Route("GET", "/events", system.events, "read"),
    Route("GET", "/system/df", system.df, "read", since=(1, 25)),
    Route("OPTIONS", "/{path:*}", system.options, "read"),
    # containers
    Route("GET", "/containers/json", containers.list_, "read"),
    Route("POST", "/containers/create", containers.create, "admin"),
    Route("POST", "/containers/prune", containers.prune_, "write", since=(1, 25)),
    Route("GET", "/containers/{id}/json", containers.inspect, "read"),
    Route("GET", "/containers/{id}/logs", containers.logs_, "read"),
    Route("GET", "/containers/{id}/changes", containers.changes, "read"),
    Route("GET", "/containers/{id}/export", containers.export, "read"),
    Route("POST", "/containers/{id}/start", containers.start_, "write"),
    Route("POST", "/containers/{id}/stop", containers.stop_, "write"),
    Route("POST", "/containers/{id}/restart", containers.restart, "write"),
    Route("POST", "/containers/{id}/kill", containers.kill, "write"),
    Route("POST", "/containers/{id}/pause", containers.pause, "write"),
    Route("POST", "/containers/{id}/unpause", containers.unpause, "write"),
    Route("POST", "/containers/{id}/rename", containers.rename_, "write"),
    Route("POST", "/containers/{id}/resize", containers.resize, "write"),
    Route("POST", "/containers/{id}/attach", containers.attach, "admin"),
    Route("GET", "/containers/{id}/attach/ws", containers.attach_websocket, "admin"),
    Route("POST", "/containers/{id}/wait", containers.wait, "read"),
    Route("DELETE", "/containers/{id:*}", containers.delete, "write"),
    Route("GET", "/containers/{id}/checkpoints", absent.checkpoints, "read"),
    Route("POST", "/containers/{id}/checkpoints", absent.checkpoints, "write"),
    Route("GET", "/containers/{id}/top", usage.top, "read"),
    Route("GET", "/containers/{id}/stats", usage.stats_, "read"),
    Route("POST", "/containers/{id}/update", usage.update_, "admin"),
    Route("HEAD", "/containers/{id}/archive", archive.head, "read"),
    Route("GET", "/containers/{id}/archive", archive.get, "admin"),
    Route("PUT", "/containers/{id}/archive", archive.put, "admin"),
    Route("POST", "/containers/{id}/exec", execs.create, "admin"),
    Route("POST", "/exec/{id}/start", execs.start, "admin"),
    Route("POST", "/exec/{id}/resize", execs.resize, "write"),
    Route("GET", "/exec/{id}/json", execs.inspect, "read"),
    # images
    Route("GET", "/images/json", images.list_images, "read"),
    Route("GET", "/images/get", images.save_images, "read"),
    Route("POST", "/build", build.build_image, "admin"),
    Route("POST", "/build/prune", build.prune_cache, "write", since=(1, 31)),
    Route("POST", "/build/cancel", build.cancel, "write"),
    Route("POST", "/images/create", images.create_image, "admin"),
    Route("POST", "/images/load", images.load_images, "admin"),
    Route("POST", "/images/prune", images.prune_images, "write", since=(1, 25)),
    Route("GET", "/images/search", registries.search_images, "read"),
    Route("POST", "/images/{name:*}/push", registries.push_image, "write"),
    Route("GET", "/distribution/{name:*}/json", registries.inspect_distribution, "read", since=(1, 30)),
    Route("POST", "/auth", registries.log_in, "write"),
    Route("GET", "/images/{name:*}/json", images.inspect_image, "read"),
    Route("GET", "/images/{name:*}/history", images.image_history, "read"),
    Route("GET", "/images/{name:*}/get", images.save_image, "read"),
    Route("POST", "/images/{name:*}/tag", images.tag_image, "write"),
    Route("DELETE", "/images/{name:*}", images.remove_image, "write"),
    Route("POST", "/commit", containers.commit, "admin"),
    # networks
    Route("GET", "/networks", networks.list_networks, "read"),
    Route("GET", "/networks/", networks.list_networks, "read"),
    Route("POST", "/networks/create", networks.create_network, "admin"),
    Route("POST", "/networks/prune", networks.prune_networks, "write", since=(1, 25)),
    Route("GET", "/networks/{id}", networks.inspect_network, "read"),
    Route("DELETE", "/networks/{id}", networks.remove_network, "write"),
    Route("POST", "/networks/{id}/connect", networks.connect_network, "write"),
    Route("POST", "/networks/{id}/disconnect", networks.disconnect_network, "write"),
    # volumes
    Route("GET", "/volumes", volumes.list_volumes, "read"),
    Route("POST", "/volumes/create", volumes.create_volume, "admin"),
    Route("POST", "/volumes/prune", volumes.prune_volumes, "write", since=(1, 25)),
    Route("GET", "/volumes/{name:*}", volumes.inspect_volume, "read"),
    Route("PUT", "/volumes/{name:*}", volumes.update_volume, "admin", since=(1, 42)),
    Route("DELETE", "/volumes/{name:*}", volumes.remove_volume, "write"),
    # what Docker has not
    Route("GET", "/metrics", system.metrics, "read"),
    Route("GET", "/tare/v1/events", system.audit, "admin"),
    Route("POST", "/tare/v1/check", check.check, "admin"),
    Route("POST", "/tare/v1/images/clean", images.clean_images, "write"),
    Route("GET", "/tare/v1/artifacts", registries.list_artifacts, "read"),
    Route("GET", "/tare/v1/tags/{name:*}", registries.remote_tags, "read"),
    Route("POST", "/tare/v1/containers/{id}/ports", usage.change_ports, "write"),
    Route("DELETE", "/tare/v1/containers/{id}/logs", containers.clear_logs, "write"),
    Route("GET", "/tare/v1/containers/{id}/pack", moving.pack, "admin"),
    Route("GET", "/tare/v1/containers/{id}/layers", moving.layers, "read"),
    Route("POST", "/tare/v1/containers/unpack", moving.unpack, "admin"),
    Route("POST", "/tare/v1/missing", moving.missing, "read"),
    Route("GET", "/tare/v1/builds/{id}/result", build.result, "read"),
    Route("POST", "/tare/v1/builds/{id}/cache", build.cache, "read"),
    Route("GET", "/tare/v1/builds/{id}/provenance", build.read_provenance, "read"),
    Route("GET", "/tare/v1/autobuilds", autobuilds.list_, "read"),
    Route("POST", "/tare/v1/autobuilds", autobuilds.add, "admin"),
    Route("GET", "/tare/v1/autobuilds/{name}", autobuilds.inspect, "read"),
    Route("DELETE", "/tare/v1/autobuilds/{name}", autobuilds.remove, "write"),
    Route("POST", "/tare/v1/autobuilds/{name}/run", autobuilds.run, "write"),
    Route("POST", "/tare/v1/autobuilds/{name}/stop", autobuilds.stop, "write"),
    Route("POST", "/tare/v1/autobuilds/{name}/hook", autobuilds.hook, "write"),
    Route("POST", "/tare/v1/autobuilds/{name}/pause", autobuilds.pause, "write"),
    Route("POST", "/tare/v1/autobuilds/{name}/resume", autobuilds.resume, "write"),
    Route("GET", "/tare/v1/autobuilds/{name}/runs", autobuilds.runs, "read"),
    Route("GET", "/tare/v1/autobuilds/{name}/logs", autobuilds.logs, "read"),
    Route("GET", "/tare/v1/diff", versions.diff, "read"),
    Route("GET", "/tare/v1/log", versions.log_, "read"),
    Route("GET", "/tare/v1/blame", versions.blame_, "read"),
    Route("GET", "/tare/v1/tree", versions.tree, "read"),
    Route("GET", "/tare/v1/graph", versions.graph_, "read"),
    Route("GET", "/tare/v1/mounts", versions.list_mounts, "read"),
    Route("POST", "/tare/v1/mounts", versions.mount_image, "admin"),
    Route("DELETE", "/tare/v1/mounts", versions.unmount_image, "admin"),
    # what Docker has and this engine answers for in words
    Route("GET", "/plugins", absent.plugins, "read"),
    Route("GET", "/plugins/{name:*}/json", absent.plugin, "read"),
    Route("GET", "/swarm", absent.swarm, "read"),
    Route("GET", "/swarm/", absent.swarm, "read"),
    Route("GET", "/swarm/unlockkey", absent.swarm, "read"),
    Route("POST", "/swarm/unlock", absent.swarm, "admin"),
    Route("POST", "/swarm/update", absent.swarm, "admin"),
    Route("POST", "/swarm/leave", absent.swarm_leave, "admin"),
    Route("POST", "/swarm/init", absent.swarm_join, "admin"),
    Route("POST", "/swarm/join", absent.swarm_join, "admin"),
    *_swarm_rows(),
]
