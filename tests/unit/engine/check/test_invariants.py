"""Each invariant with a world that keeps it and one that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tare.base.digest import Digest, hex_of, sha256
from tare.base.reference import parse_reference
from tare.engine.check import findings as kinds
from tare.engine.check.facts import ContainerFacts, Listing, Rows, World
from tare.engine.check.invariants import broken
from tare.engine.check.kernel import Kernel
from tare.images.records import Image, Inventory, Layer, Loaded
from tare.networks.auditing import Due
from tare.networks.plan import Mode
from tare.oci.image import parse_config
from tare.wire.config import ContainerConfig

RAW = b'{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}'
IMAGE, BLOB = sha256(RAW), sha256(b"blob")
CHAIN, UPPER = sha256(b"base"), sha256(b"upper")
CONTAINER, OTHER = "c" * 64, "d" * 64
TAG = parse_reference("web:1")
BASE = Layer(
    chain_id=CHAIN, parent=None, diff_id=CHAIN, blob=BLOB, blob_size=4, compression="gzip", plain_size=9, size_bytes=5
)
TOP = replace(BASE, chain_id=UPPER, parent=CHAIN, diff_id=UPPER)
LISTING = Listing(
    blobs={BLOB: 4},
    snapshots={hex_of(CHAIN): "", hex_of(UPPER): hex_of(CHAIN), CONTAINER: hex_of(UPPER)},
    container_directories=frozenset({CONTAINER}),
    bundles=frozenset({CONTAINER}),
    exits=frozenset(),
    volumes=frozenset({"data"}),
    leftovers=frozenset(),
)


ONE = frozenset({CONTAINER})
PORT, STRAY = "ip published tcp . 80 : 10.0.0.2 . 80", "ip bridges br-gone"
DUE = Due(rules={"br": frozenset({"ip bridges br"}), CONTAINER: frozenset({PORT})}, modes={CONTAINER: Mode.OWN})
KERNEL = Kernel(
    processes=ONE,
    monitors=ONE,
    mounts=ONE,
    cgroups=ONE,
    ports={"br": 1},
    elsewhere=frozenset({"/mnt"}),
    rules=frozenset({"ip bridges br", PORT}),
    networks={CONTAINER: "net:[2]"},
    home="net:[1]",
)


def world(listing: dict[str, Any] | None = None, inventory: dict[str, Any] | None = None, **changes: Any) -> World:
    """A world in order, but for the changes."""
    image = Image(
        id=IMAGE, raw=RAW, document=parse_config(RAW), config=ContainerConfig(), layers=(BASE, TOP), tagged_at=1
    )
    stored = Loaded({CHAIN: BASE, UPPER: TOP}, [(IMAGE, RAW, None, 0, 0)], {TAG: IMAGE}, {})
    known = Inventory(
        layers={CHAIN: BASE, UPPER: TOP},
        images={IMAGE: image},
        tags={TAG: IMAGE},
        holds={},
        leases={},
        drafts=frozenset(),
        stored=stored,
    )
    seen = replace(LISTING, **(listing or {}))
    made = World(
        before=seen,
        after=seen,
        inventory=replace(known, **(inventory or {})),
        rows=Rows(
            containers=frozenset({CONTAINER}),
            addresses=(("n", "10.0.0.2", CONTAINER),),
            networks=frozenset({"n"}),
            bad_manifests=(),
            complaints=(),
        ),
        containers={
            CONTAINER: ContainerFacts(
                id=CONTAINER,
                name="web",
                image_id=IMAGE,
                is_running=True,
                is_moving=False,
                addresses=(("n", "10.0.0.2"),),
                volumes=frozenset({"data"}),
            )
        },
        volumes=frozenset({"data"}),
        kernel_before=KERNEL,
        kernel_after=KERNEL,
        bridges={"br": 1},
        due=DUE,
        image_mounts={"/mnt": "k1"},
        is_quiet=True,
    )
    return replace(made, **changes)


def kernel(**changes: Any) -> dict[str, Kernel]:
    """The same at both looks."""
    seen = replace(KERNEL, **changes)
    return {"kernel_before": seen, "kernel_after": seen}


def told(made: World) -> list[tuple[str, str]]:
    return [(finding.kind, finding.remedy) for finding in broken(made)]


def test_a_world_in_order_breaks_nothing() -> None:
    assert broken(world()) == []


def test_a_container_whose_removal_failed_half_way_may_have_lost_its_files() -> None:
    going = replace(world().containers[CONTAINER], is_running=False, is_moving=True, is_going=True)
    nothing = {"snapshots": {name: below for name, below in LISTING.snapshots.items() if name != CONTAINER}}
    assert told(world({**nothing, "container_directories": frozenset()}, containers={CONTAINER: going})) == []


def rows(**changes: Any) -> Rows:
    return replace(world().rows, **changes)


BROKEN: list[tuple[World, str, str]] = [
    (world({"blobs": {}}), kinds.BLOB_MISSING, kinds.FETCH),
    (world({"blobs": {BLOB: 3}}), kinds.BLOB_DAMAGED, kinds.FETCH),
    (world({"blobs": {BLOB: 4, sha256(b"x"): 1}}), kinds.BLOB_ORPHAN, kinds.REMOVE),
    (world({"snapshots": {**LISTING.snapshots, OTHER: ""}}), kinds.SNAPSHOT_ORPHAN, kinds.REMOVE),
    (world({"snapshots": {**LISTING.snapshots, hex_of(UPPER): ""}}), kinds.SNAPSHOT_PARENT, kinds.UNPACK),
    (world({"snapshots": {**LISTING.snapshots, hex_of(UPPER): None}}), kinds.SNAPSHOT_PARENT, kinds.UNPACK),
    (world(inventory={"tags": {TAG: IMAGE, parse_reference("gone:1"): BLOB}}), kinds.TAG_DANGLING, kinds.FORGET),
    (world(inventory={"holds": {OTHER: frozenset({CHAIN})}}), kinds.HOLD_ORPHAN, kinds.FORGET),
    (world(inventory={"holds": {CONTAINER: frozenset({CHAIN, BLOB})}}), kinds.HOLD_ORPHAN, ""),
    (world(inventory={"leases": {CHAIN: 1}}), kinds.LEASE_ORPHAN, kinds.FORGET),
    (world(cache={"key": BLOB}), kinds.CACHE_DANGLING, kinds.FORGET),
    (world(inventory={"images": {}}), kinds.TAG_DANGLING, kinds.FORGET),
    (world({"container_directories": frozenset()}), kinds.CONTAINER_FILES, kinds.MAKE),
    (world({"container_directories": frozenset({CONTAINER, OTHER})}), kinds.CONTAINER_ORPHAN, kinds.REMOVE),
    (world({"exits": frozenset({OTHER})}), kinds.CONTAINER_ORPHAN, kinds.REMOVE),
    (world({"volumes": frozenset()}), kinds.VOLUME_MISSING, kinds.MAKE),
    (world({"volumes": frozenset({"data", "more"})}), kinds.VOLUME_ORPHAN, ""),
    (world({"leftovers": frozenset({"ingest/x"})}), kinds.LEFTOVER, kinds.REMOVE),
    (
        world(rows=rows(addresses=(("n", "10.0.0.2", CONTAINER), ("n", "10.0.0.3", OTHER)))),
        kinds.ADDRESS_ORPHAN,
        kinds.FORGET,
    ),
    (world(rows=rows(addresses=())), kinds.ADDRESS_MISSING, ""),
    (world(**kernel(processes=frozenset())), kinds.PROCESS_MISSING, ""),
    (world(**kernel(monitors=frozenset())), kinds.MONITOR_MISSING, ""),
    (world(**kernel(monitors=frozenset({CONTAINER, OTHER}))), kinds.MONITOR_ORPHAN, ""),
    (world(**kernel(mounts=frozenset())), kinds.MOUNT_MISSING, ""),
    (world(**kernel(mounts=frozenset({CONTAINER, OTHER}))), kinds.MOUNT_ORPHAN, ""),
    (world(**kernel(cgroups=frozenset())), kinds.CGROUP_MISSING, ""),
    (world(**kernel(cgroups=frozenset({CONTAINER, OTHER}))), kinds.CGROUP_ORPHAN, ""),
    (world(**kernel(ports={"br": None})), kinds.BRIDGE_MISSING, ""),
    (world(**kernel(ports={"br": 0})), kinds.PORT_MISSING, ""),
    (world(**kernel(ports={"br": 2})), kinds.PORT_ORPHAN, ""),
    (world(**kernel(rules=frozenset({PORT}))), kinds.RULE_MISSING, ""),
    (world(**kernel(rules=KERNEL.rules | {STRAY})), kinds.RULE_ORPHAN, kinds.REMOVE),
    (world(links=frozenset({"br"}), **kernel(links={"br": 1, "br-gone": 0})), kinds.LINK_ORPHAN, kinds.REMOVE),
    (world(**kernel(rules=frozenset({"ip bridges br"}))), kinds.PUBLISHED_MISSING, ""),
    (world(due=replace(DUE, unheld={CONTAINER: frozenset({"tcp 0.0.0.0:80"})})), kinds.PUBLISHED_MISSING, ""),
    (world(**kernel(rules=KERNEL.rules | {PORT.replace("80", "81")})), kinds.PUBLISHED_ORPHAN, kinds.REMOVE),
    (world(due=replace(DUE, held=frozenset({"tcp 0.0.0.0:81"}))), kinds.PUBLISHED_ORPHAN, ""),
    (world(**kernel(networks={CONTAINER: "net:[1]"})), kinds.NAMESPACE_WRONG, ""),
    (world(**kernel(kept=frozenset({"net:[3]"}))), kinds.NAMESPACE_ORPHAN, ""),
    (world(**kernel(elsewhere=frozenset())), kinds.IMAGE_MOUNT_MISSING, ""),
    (world(**kernel(places=frozenset({"run/images/k2"}))), kinds.MOUNT_ORPHAN, ""),
    (world(rows=rows(networks=frozenset())), kinds.ADDRESS_NETWORK, kinds.FORGET),
    (world(rows=rows(bad_manifests=(BLOB,))), kinds.MANIFEST_DAMAGED, kinds.FORGET),
    (world(rows=rows(complaints=("row 3 missing",))), kinds.DATABASE_DAMAGED, ""),
    (world(rows=rows(containers=frozenset())), kinds.RECORDS_DIFFER, ""),
    (world(inventory={"layers": {UPPER: TOP}}), kinds.LAYER_PARENT, ""),
    (world(inventory={"layers": {CHAIN: BASE}}), kinds.IMAGE_LAYERS, ""),
    (world(inventory={"images": {BLOB: world().images[IMAGE]}}), kinds.IMAGE_ID, ""),
]


@pytest.mark.parametrize(
    ("made", "kind", "remedy"), BROKEN, ids=[f"{kind}-{n}" for n, (_, kind, _) in enumerate(BROKEN)]
)
def test_what_is_broken_is_told(made: World, kind: str, remedy: str) -> None:
    assert (kind, remedy) in told(made)


def test_a_container_without_its_layers() -> None:
    lost = world({"snapshots": {hex_of(CHAIN): "", CONTAINER: hex_of(UPPER)}})
    assert told(lost) == [(kinds.CONTAINER_SNAPSHOT, kinds.UNPACK)]
    gone = world({"snapshots": {hex_of(CHAIN): "", hex_of(UPPER): hex_of(CHAIN)}})
    assert told(gone) == [(kinds.CONTAINER_SNAPSHOT, "")]
    believed = replace(lost, believed=frozenset({hex_of(UPPER)}))
    assert (kinds.SNAPSHOT_DAMAGED, kinds.UNPACK) in told(believed)


def test_what_is_in_flight_is_left_alone() -> None:
    """A container being made, a draft of a build, a leased layer: nothing is wrong with those."""
    busy = world({"snapshots": {**LISTING.snapshots, OTHER: "", "e" * 64: ""}}, {"drafts": frozenset({"e" * 64})})
    busy = replace(busy, creating=frozenset({OTHER}), is_quiet=False)
    assert broken(busy) == []
    assert broken(replace(world(inventory={"leases": {CHAIN: 1}}), is_quiet=False)) == []


def test_what_came_or_went_between_the_two_looks_is_no_finding() -> None:
    came = replace(LISTING, blobs={BLOB: 4, sha256(b"new"): 1})
    assert broken(replace(world(), after=came)) == []
    assert broken(replace(world(), before=replace(LISTING, blobs={}))) == []


def test_every_kind_is_documented() -> None:
    page = (Path(__file__).parents[4] / "docs" / "check.md").read_text()
    assert [kind for kind in kinds.KINDS if f"| `{kind}` |" not in page] == []
    assert {kind for _, kind, _ in BROKEN} <= kinds.KINDS
    assert Digest(BLOB) == BLOB


def test_what_was_seen_once_is_not_missing_and_what_moves_is_left_alone() -> None:
    nothing = Kernel(ports={"br": 1}, rules=frozenset())
    assert told(world(kernel_before=nothing)) == []
    assert told(world(kernel_after=nothing)) == []
    moving = replace(world().containers[CONTAINER], is_moving=True)
    assert (
        told(world(containers={CONTAINER: moving}, **kernel(**{name: frozenset() for name in ("processes", "mounts")})))
        == []
    )
    stopped = replace(world().containers[CONTAINER], is_running=False, addresses=())
    seen = told(world(containers={CONTAINER: stopped}))
    assert [kind for kind, _ in seen] == [
        kinds.ADDRESS_ORPHAN,
        kinds.MONITOR_ORPHAN,
        kinds.MOUNT_ORPHAN,
        kinds.CGROUP_ORPHAN,
    ]


def test_what_moves_has_its_rules_and_ports_in_between() -> None:
    moving = {CONTAINER: replace(world().containers[CONTAINER], is_moving=True)}
    due = replace(DUE, unheld={CONTAINER: frozenset({"tcp 0.0.0.0:80"})}, held=frozenset({"tcp 0.0.0.0:81"}))
    assert broken(world(containers=moving, due=due, **kernel(rules=frozenset({"ip bridges br", STRAY})))) == []
    assert broken(world(due=replace(DUE, is_changing=True), **kernel(rules=KERNEL.rules | {STRAY}))) == []
    assert broken(world(kernel_before=replace(KERNEL, rules=KERNEL.rules | {STRAY}))) == []
    assert broken(world(due=replace(DUE, is_changing=True), **kernel(links={"br-gone": 0}))) == []
    assert broken(world(kernel_before=replace(KERNEL, links={"br-gone": 0}))) == []
    assert broken(world(due=Due(), kernel_before=replace(KERNEL, rules=None))) == []  # no packet filter


def test_who_asked_for_the_network_of_the_host_has_it() -> None:
    in_hosts = replace(DUE, modes={CONTAINER: Mode.HOST})
    assert told(world(due=in_hosts)) == [(kinds.NAMESPACE_WRONG, "")]
    assert broken(world(due=in_hosts, **kernel(networks={CONTAINER: "net:[1]"}))) == []


def test_two_containers_do_not_share_a_network_unasked() -> None:
    one = world().containers[CONTAINER]
    both = {CONTAINER: one, OTHER: replace(one, id=OTHER, name="db", addresses=())}
    two = frozenset({CONTAINER, OTHER})
    made = world(
        {"snapshots": {**LISTING.snapshots, OTHER: hex_of(UPPER)}, "container_directories": two},
        containers=both,
        rows=rows(containers=two),
        due=replace(DUE, modes={CONTAINER: Mode.OWN, OTHER: Mode.OWN}),
        **kernel(processes=two, monitors=two, mounts=two, cgroups=two, networks=dict.fromkeys(two, "net:[2]")),
    )
    assert [finding.text for finding in broken(made)] == ["db runs in the network namespace of web"]


@pytest.mark.parametrize(
    "place",
    [
        "run/images/k2", f"run/mounts/{OTHER}/0", f"run/mounts/{CONTAINER}/0", "data/volumes/data/_data",
        "data/builds/b/f", "run/view/x", "run/export-x",
    ],
)  # fmt: skip
def test_a_mount_below_the_roots_has_an_owner(place: str) -> None:
    stopped = replace(world().containers[CONTAINER], is_running=False, addresses=(), volumes=frozenset())
    rest = kernel(processes=frozenset(), monitors=frozenset(), mounts=frozenset(), cgroups=frozenset(), ports={"br": 0})
    idle = {key: replace(seen, places=frozenset({place}), kept=frozenset()) for key, seen in rest.items()}
    made = world(containers={CONTAINER: stopped}, rows=rows(addresses=()), bridges={"br": 0}, **idle)
    assert [(finding.kind, finding.subject) for finding in broken(made)] == [(kinds.MOUNT_ORPHAN, place)]
    running = {"places": frozenset({"run/images/k1", f"run/mounts/{CONTAINER}/0", "data/volumes/data/_data", "run/x"})}
    assert broken(world(**kernel(**running))) == []
    if place.startswith(("data/builds", "run/view", "run/export")):
        assert broken(replace(made, is_quiet=False)) == []
