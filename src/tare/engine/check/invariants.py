"""What must hold, one function for each: facts in, findings out. Pure; the contents of files are `contents`' matter.

Tests call `broken(world)` after whatever they did: an empty list means that the engine keeps its promises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tare.base.digest import Digest, hex_of, sha256
from tare.engine.check import findings as kinds
from tare.engine.check.facts import World
from tare.engine.check.findings import FETCH, FORGET, MAKE, REMOVE, UNPACK, Finding
from tare.networks.plan import Mode

Invariant = Callable[[World], Iterator[Finding]]


def layers_have_blobs(world: World) -> Iterator[Finding]:
    """The blob of every layer is there, and as long as its record says."""
    told: set[str] = set()
    for layer in world.layers.values():
        if layer.blob in told:
            continue
        told.add(layer.blob)
        size = world.after.blobs.get(layer.blob, world.before.blobs.get(layer.blob))
        if size is None:
            yield Finding(
                kind=kinds.BLOB_MISSING,
                subject=layer.blob,
                text=f"{_users(world, layer.blob)}: not there",
                remedy=FETCH,
            )
        elif size != layer.blob_size:
            text = f"{_users(world, layer.blob)}: {size} bytes instead of {layer.blob_size}"
            yield Finding(kind=kinds.BLOB_DAMAGED, subject=layer.blob, text=text, remedy=FETCH)


def _users(world: World, blob: str) -> str:
    """Whose layer the blob is, for people."""
    names = [
        reference.familiar()
        for reference, image_id in world.inventory.tags.items()
        if reference.digest is None
        and (image := world.images.get(image_id)) is not None
        and any(layer.blob == blob for layer in image.layers)
    ]
    return f"a layer of {', '.join(sorted(names)[:3])}" if names else "a layer"


def blobs_have_layers(world: World) -> Iterator[Finding]:
    """No blob is kept for nothing."""
    known = {layer.blob for layer in world.layers.values()}
    for blob in sorted(world.before.blobs.keys() & world.after.blobs.keys() - known):
        yield Finding(
            kind=kinds.BLOB_ORPHAN,
            subject=blob,
            text=f"no layer has it ({world.after.blobs[blob]} bytes)",
            remedy=REMOVE,
        )


def snapshots_have_owners(world: World) -> Iterator[Finding]:
    """Every snapshot is a layer's, a container's, or a draft of a build."""
    known = {hex_of(chain) for chain in world.layers} | set(world.containers) | world.creating | world.inventory.drafts
    for name in sorted(world.before.snapshots.keys() & world.after.snapshots.keys() - known):
        yield Finding(
            kind=kinds.SNAPSHOT_ORPHAN, subject=name, text="neither layer nor container has it", remedy=REMOVE
        )


def snapshots_know_their_parents(world: World) -> Iterator[Finding]:
    """A layer's snapshot says what it stands on, and says the truth."""
    for chain, layer in world.layers.items():
        name = hex_of(chain)
        if name not in world.before.snapshots and name not in world.after.snapshots and name in world.believed:
            yield Finding(kind=kinds.SNAPSHOT_DAMAGED, subject=name, text="its directory is not there", remedy=UNPACK)
        if name not in world.before.snapshots or name not in world.after.snapshots:
            continue  # not unpacked yet, or being unpacked
        wanted = hex_of(layer.parent) if layer.parent else ""
        found = world.after.snapshots[name]
        if found != wanted:
            said = "nothing that can be read" if found is None else f"that it stands on {found[:12] or 'nothing'}"
            yield Finding(
                kind=kinds.SNAPSHOT_PARENT,
                subject=name,
                text=f"its note says {said}, its record {wanted[:12] or 'nothing'}",
                remedy=UNPACK,
            )


def layers_have_parents(world: World) -> Iterator[Finding]:
    """Whatever a layer stands on is known too."""
    for chain, layer in world.layers.items():
        if layer.parent is not None and layer.parent not in world.layers:
            yield Finding(kind=kinds.LAYER_PARENT, subject=chain, text=f"it stands on {layer.parent}, which is unknown")


def images_have_layers(world: World) -> Iterator[Finding]:
    """The layers an image names are known, and its ID is the digest of its document."""
    for image_id, image in world.images.items():
        lost = [layer.chain_id for layer in image.layers if layer.chain_id not in world.layers]
        if lost:
            yield Finding(kind=kinds.IMAGE_LAYERS, subject=image_id, text=f"layer {lost[0]} is unknown")
        if sha256(image.raw) != image_id:
            yield Finding(kind=kinds.IMAGE_ID, subject=image_id, text="its document has another digest")


def tags_lead_somewhere(world: World) -> Iterator[Finding]:
    """Every name leads to an image."""
    for reference, image_id in world.inventory.tags.items():
        if image_id not in world.images:
            text = f"it leads to {image_id}, which is unknown"
            yield Finding(kind=kinds.TAG_DANGLING, subject=reference.familiar(), text=text, remedy=FORGET)


def manifests_are_whole(world: World) -> Iterator[Finding]:
    """The documents that came from registries have the digests they are known by."""
    for digest in world.rows.bad_manifests:
        yield Finding(kind=kinds.MANIFEST_DAMAGED, subject=digest, text="its bytes have another digest", remedy=FORGET)


def records_agree(world: World) -> Iterator[Finding]:
    """Memory and database say the same about images, and in quiet about containers."""
    stored, inventory = world.inventory.stored, world.inventory
    pairs: list[tuple[str, set[str], set[str]]] = [
        ("image", {str(key) for key in inventory.images}, {str(row[0]) for row in stored.images}),
        (
            "tag",
            {f"{key.canonical()} → {value}" for key, value in inventory.tags.items()},
            {f"{key.canonical()} → {value}" for key, value in stored.tags.items()},
        ),
    ]
    named = {str(layer.chain_id) for image in inventory.images.values() for layer in image.layers}
    pairs.append(("layer", named, named & {str(chain) for chain in stored.layers}))
    if world.is_quiet:
        pairs.append(("container", set(world.containers), set(world.rows.containers)))
    for what, memory, disk in pairs:
        for key in sorted(memory ^ disk):
            where = "the database" if key in disk else "memory"
            yield Finding(kind=kinds.RECORDS_DIFFER, subject=key, text=f"{what}: only {where} knows it")


def holds_have_containers(world: World) -> Iterator[Finding]:
    """Layers are held for containers that exist, and what is held is there."""
    for container, chains in world.inventory.holds.items():
        if container not in world.containers:
            text = f"layer {', '.join(sorted(chains))} is held for no container"
            yield Finding(kind=kinds.HOLD_ORPHAN, subject=container, text=text, remedy=FORGET)
            continue
        for chain in sorted(chains):
            if chain not in world.layers:
                text = f"the layer held for it, {chain}, is unknown"
                yield Finding(kind=kinds.HOLD_ORPHAN, subject=container, text=text)


def leases_have_holders(world: World) -> Iterator[Finding]:
    """Leases are counted by operations in flight: never below one, none when nothing is in flight."""
    for chain, count in world.inventory.leases.items():
        if count < 1 or world.is_quiet:
            yield Finding(kind=kinds.LEASE_ORPHAN, subject=chain, text=f"leased {count} times by nobody", remedy=FORGET)


def cache_leads_somewhere(world: World) -> Iterator[Finding]:
    """What a step of the build cache made is known."""
    for key, chain in world.cache.items():
        if chain not in world.layers:
            yield Finding(kind=kinds.CACHE_DANGLING, subject=key, text=f"layer {chain} is unknown", remedy=FORGET)


def containers_have_files(world: World) -> Iterator[Finding]:
    """Every container has its writable layer, all that lies below it, and its directory."""
    snapshots = {**world.before.snapshots, **world.after.snapshots}
    directories = world.before.container_directories | world.after.container_directories
    drafts = world.inventory.drafts
    for facts in world.containers.values():
        if facts.is_going:
            continue
        if facts.id not in snapshots:
            yield Finding(
                kind=kinds.CONTAINER_SNAPSHOT, subject=facts.id, text=f"{facts.name}: its writable layer is not there"
            )
        else:
            seen = {facts.id}
            above = snapshots[facts.id]
            while above and above in snapshots and above not in seen:
                seen.add(above)
                above = snapshots[above]
            if above and above not in drafts and above not in seen:
                known = Digest(f"sha256:{above}") in world.layers
                yield Finding(
                    kind=kinds.CONTAINER_SNAPSHOT,
                    subject=facts.id,
                    text=f"{facts.name}: layer {above[:12]} below it is not there",
                    remedy=UNPACK if known else "",
                )
        if facts.id not in directories:
            yield Finding(kind=kinds.CONTAINER_FILES, subject=facts.id, text=f"{facts.name}: no directory", remedy=MAKE)


def files_have_containers(world: World) -> Iterator[Finding]:
    """No directory, bundle or exit status is left of a container that is gone."""
    known = set(world.containers) | world.creating
    for area, before, after in (
        ("containers", world.before.container_directories, world.after.container_directories),
        ("run/containers", world.before.bundles, world.after.bundles),
        ("run/exits", world.before.exits, world.after.exits),
    ):
        for name in sorted((before & after) - known):
            yield Finding(
                kind=kinds.CONTAINER_ORPHAN, subject=f"{area}/{name}", text="no container has it", remedy=REMOVE
            )


def volumes_have_directories(world: World) -> Iterator[Finding]:
    """Every volume has its directory, and every directory its volume."""
    there = world.before.volumes | world.after.volumes
    for name in sorted(world.volumes - there):
        yield Finding(kind=kinds.VOLUME_MISSING, subject=name, text="its directory is not there", remedy=MAKE)
    for name in sorted((world.before.volumes & world.after.volumes) - world.volumes):
        if not name.startswith("."):
            text = "a directory without a volume: the engine takes it in again at its next start if it has content"
            yield Finding(kind=kinds.VOLUME_ORPHAN, subject=name, text=text)


def addresses_have_containers(world: World) -> Iterator[Finding]:
    """An address is leased to a container that runs, on a network that exists."""
    for network, address, container in world.rows.addresses:
        if network not in world.rows.networks:
            text = f"{address} is leased on a network that is unknown"
            yield Finding(kind=kinds.ADDRESS_NETWORK, subject=container, text=text, remedy=FORGET)
            continue
        facts = world.containers.get(container)
        if facts is None or not (facts.is_running or facts.is_moving):
            who = facts.name if facts else f"container {container[:12]}, which is unknown"
            yield Finding(
                kind=kinds.ADDRESS_ORPHAN, subject=container, text=f"{address} is leased to {who}", remedy=FORGET
            )


def what_runs_is_in_the_kernel(world: World) -> Iterator[Finding]:
    """A container that runs has its first process, its monitor, its mount and its control group; another has none."""
    before, after = world.kernel_before, world.kernel_after
    things = (
        ("its first process", before.processes | after.processes, None, kinds.PROCESS_MISSING, ""),
        ("a monitor", before.monitors | after.monitors, before.monitors & after.monitors, kinds.MONITOR_MISSING, kinds.MONITOR_ORPHAN),
        ("its root mounted", before.mounts | after.mounts, before.mounts & after.mounts, kinds.MOUNT_MISSING, kinds.MOUNT_ORPHAN),
        ("a control group", before.cgroups | after.cgroups, before.cgroups & after.cgroups, kinds.CGROUP_MISSING, kinds.CGROUP_ORPHAN),
    )  # fmt: skip
    for what, ever, always, missing, orphan in things:
        for facts in world.containers.values():
            if facts.is_running and not facts.is_moving and facts.id not in ever:
                yield Finding(kind=missing, subject=facts.id, text=f"{facts.name} runs and has not {what}")
        for name in sorted(always or ()):
            known = world.containers.get(name)
            if known is None and name not in world.creating:
                yield Finding(kind=orphan, subject=name, text=f"a container that is unknown has {what}")
            elif known is not None and not (known.is_running or known.is_moving):
                yield Finding(kind=orphan, subject=name, text=f"{known.name} does not run and has {what}")


def bridges_have_their_ports(world: World) -> Iterator[Finding]:
    """Every network's bridge is there with an interface for each container that is plugged in.

    The kernel removes those of ended containers by itself, later: only in quiet are there no more than that.
    """
    if any(facts.is_moving for facts in world.containers.values()):
        return
    for bridge, members in world.bridges.items():
        found = (world.kernel_before.ports.get(bridge), world.kernel_after.ports.get(bridge))
        counts = [count for count in found if count is not None]
        if not counts:
            yield Finding(kind=kinds.BRIDGE_MISSING, subject=bridge, text="the bridge of a network is not there")
        elif max(counts) < members:
            text = f"{max(counts)} interfaces for {members} containers"
            yield Finding(kind=kinds.PORT_MISSING, subject=bridge, text=text)
        elif min(counts) > members and world.is_quiet:
            text = f"{min(counts)} interfaces for {members} containers"
            yield Finding(kind=kinds.PORT_ORPHAN, subject=bridge, text=text)


def links_belong_to_networks(world: World) -> Iterator[Finding]:
    """Each link that this engine has made is the bridge, or the parent, of a network."""
    if world.due.is_changing:
        return
    before, after = world.kernel_before.links, world.kernel_after.links
    for name in sorted(before.keys() & after.keys() - world.links):
        text = f"made for a network that is gone ({after[name]} interfaces use it)"
        yield Finding(kind=kinds.LINK_ORPHAN, subject=name, text=text, remedy=REMOVE)


def rules_are_those_of_networks_and_ports(world: World) -> Iterator[Finding]:
    """The packet filter says of each bridge and each published port what it must, and nothing of anything else."""
    before, after = world.kernel_before.rules, world.kernel_after.rules
    if before is None or after is None:
        return
    known: set[str] = set()
    for owner, wanted in world.due.rules.items():
        known |= wanted
        facts = world.containers.get(owner)
        if facts is not None and facts.is_moving:
            continue
        for rule in sorted(wanted - before - after):
            if facts is None:
                text = f"the packet filter lacks `{rule}`"
                yield Finding(kind=kinds.RULE_MISSING, subject=owner, text=text)
            else:
                text = f"{facts.name}: the packet filter lacks `{rule}`"
                yield Finding(kind=kinds.PUBLISHED_MISSING, subject=facts.id, text=text)
    if world.due.is_changing or _something_moves(world):
        return
    for rule in sorted((before & after) - known):
        name = rule.split()[1]
        is_of_port = name.startswith("published") or name == "opened"
        kind = kinds.PUBLISHED_ORPHAN if is_of_port else kinds.RULE_ORPHAN
        yield Finding(kind=kind, subject=rule, text="the packet filter has it for nobody", remedy=REMOVE)


def ports_of_the_host_are_held(world: World) -> Iterator[Finding]:
    """A published port is held on the host, so that nobody else takes it; no other is."""
    for owner, places in world.due.unheld.items():
        facts = world.containers.get(owner)
        if facts is not None and not facts.is_moving:
            for place in sorted(places):
                text = f"{facts.name}: {place} is published and not held"
                yield Finding(kind=kinds.PUBLISHED_MISSING, subject=owner, text=text)
    if not _something_moves(world):
        for place in sorted(world.due.held):
            yield Finding(kind=kinds.PUBLISHED_ORPHAN, subject=place, text="held, and no container publishes it")


def _something_moves(world: World) -> bool:
    return bool(world.creating) or any(facts.is_moving for facts in world.containers.values())


def what_runs_is_in_its_network_namespace(world: World) -> Iterator[Finding]:
    """A container has the host's namespace if it asked for that, else one of its own; the engine keeps none for nobody."""
    before, after = world.kernel_before, world.kernel_after
    taken: dict[str, str] = {}
    for facts in world.containers.values():
        found, mode = before.networks.get(facts.id), world.due.modes.get(facts.id)
        if found is None or found != after.networks.get(facts.id) or not facts.is_running or facts.is_moving:
            continue
        text = ""
        if mode is Mode.HOST and found != after.home:
            text = "runs in a network namespace that is not the host's"
        elif mode is Mode.OWN and found == after.home:
            text = "runs in the network namespace of the host"
        elif mode is Mode.OWN and (other := taken.setdefault(found, facts.name)) != facts.name:
            text = f"runs in the network namespace of {other}"
        if text:
            yield Finding(kind=kinds.NAMESPACE_WRONG, subject=facts.id, text=f"{facts.name} {text}")
    if world.is_quiet and not _something_moves(world):
        for name in sorted(before.kept & after.kept):
            yield Finding(kind=kinds.NAMESPACE_ORPHAN, subject=name, text="kept by the engine for no container")


def images_are_where_they_are_mounted(world: World) -> Iterator[Finding]:
    """An image that is mounted on the host is."""
    for target in sorted(world.image_mounts.keys() - world.kernel_before.elsewhere - world.kernel_after.elsewhere):
        yield Finding(kind=kinds.IMAGE_MOUNT_MISSING, subject=target, text="the image is not mounted there any more")


def mounts_have_owners(world: World) -> Iterator[Finding]:
    """What is mounted below the roots is an image's, or something of a container that runs.

    The roots of containers are looked at elsewhere. What builds, exports and looks into containers mount belongs to
    operations: in quiet there is none.
    """
    keys = set(world.image_mounts.values())
    volumes = {name for facts in world.containers.values() for name in facts.volumes}
    for place in sorted(world.kernel_before.places & world.kernel_after.places):
        text = ""
        match place.split("/"):
            case ["run", "images", key] if key not in keys:
                text = "an image is mounted that is on no list"
            case ["run", "mounts", owner, *_]:
                facts = world.containers.get(owner)
                if facts is None and owner not in world.creating:
                    text = "mounted for a container that is unknown"
                elif facts is not None and not (facts.is_running or facts.is_moving):
                    text = f"mounted for {facts.name}, which does not run"
            case ["data", "volumes", name, "_data"] if name not in volumes and world.is_quiet:
                text = "" if _something_moves(world) else "the volume is mounted, and no container uses it"
            case ["data", "builds", *_] | ["run", "builds" | "view", *_] if world.is_quiet:
                text = "mounted by an operation that is over"
            case ["run", name, *_] if name.startswith("export-") and world.is_quiet:
                text = "mounted by an export that is over"
        if text:
            yield Finding(kind=kinds.MOUNT_ORPHAN, subject=place, text=text)


def what_runs_has_its_addresses(world: World) -> Iterator[Finding]:
    """The addresses of a container that runs are leased to it, so that nobody else gets them."""
    leased = {(network, address, container) for network, address, container in world.rows.addresses}
    for facts in world.containers.values():
        if facts.is_moving:
            continue
        for network, address in facts.addresses:
            if (network, address, facts.id) not in leased:
                text = f"{facts.name} has {address}, which is not leased to it"
                yield Finding(kind=kinds.ADDRESS_MISSING, subject=facts.id, text=text)


def nothing_is_left_over(world: World) -> Iterator[Finding]:
    """Half-done downloads, uploads, unpackings and removals belong to somebody, or are young."""
    for path in sorted(world.before.leftovers & world.after.leftovers):
        yield Finding(kind=kinds.LEFTOVER, subject=path, text="left by an operation that is over", remedy=REMOVE)


def database_is_whole(world: World) -> Iterator[Finding]:
    """SQLite finds nothing wrong with its file."""
    for text in world.rows.complaints:
        yield Finding(kind=kinds.DATABASE_DAMAGED, subject="state.db", text=text)


INVARIANTS: tuple[Invariant, ...] = (
    database_is_whole,
    records_agree,
    images_have_layers,
    layers_have_parents,
    tags_lead_somewhere,
    manifests_are_whole,
    layers_have_blobs,
    snapshots_know_their_parents,
    blobs_have_layers,
    snapshots_have_owners,
    holds_have_containers,
    leases_have_holders,
    cache_leads_somewhere,
    containers_have_files,
    files_have_containers,
    volumes_have_directories,
    addresses_have_containers,
    what_runs_has_its_addresses,
    what_runs_is_in_the_kernel,
    bridges_have_their_ports,
    links_belong_to_networks,
    rules_are_those_of_networks_and_ports,
    ports_of_the_host_are_held,
    what_runs_is_in_its_network_namespace,
    images_are_where_they_are_mounted,
    mounts_have_owners,
    nothing_is_left_over,
)


def broken(world: World) -> list[Finding]:
    """Every invariant that does not hold, in the order of `INVARIANTS`."""
    return [finding for invariant in INVARIANTS for finding in invariant(world)]
