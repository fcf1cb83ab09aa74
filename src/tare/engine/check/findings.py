"""What a check can find, and what can be done about each. Pure."""

from __future__ import annotations

from msgspec import Struct

FETCH, UNPACK, REMOVE, FORGET, MAKE, NOTHING = "fetch", "unpack", "remove", "forget", "make", ""
"""Remedies: bring a blob back, unpack a snapshot again, remove a file, forget a record, make a directory; by hand only."""

BLOB_MISSING, BLOB_DAMAGED, BLOB_ORPHAN = "blob-missing", "blob-damaged", "blob-orphan"
SNAPSHOT_DAMAGED, SNAPSHOT_PARENT, SNAPSHOT_ORPHAN = "snapshot-damaged", "snapshot-parent", "snapshot-orphan"
LAYER_PARENT, IMAGE_LAYERS, IMAGE_ID = "layer-parent", "image-layers", "image-id"
TAG_DANGLING, MANIFEST_DAMAGED, HOLD_ORPHAN = "tag-dangling", "manifest-damaged", "hold-orphan"
LEASE_ORPHAN, CACHE_DANGLING, LEFTOVER = "lease-orphan", "cache-dangling", "leftover"
CONTAINER_SNAPSHOT, CONTAINER_FILES, CONTAINER_ORPHAN = "container-snapshot", "container-files", "container-orphan"
VOLUME_MISSING, VOLUME_ORPHAN = "volume-missing", "volume-orphan"
ADDRESS_ORPHAN, ADDRESS_NETWORK = "address-orphan", "address-network"
RECORDS_DIFFER, DATABASE_DAMAGED = "records-differ", "database-damaged"
ARTIFACT_DAMAGED = "artifact-damaged"
PROCESS_MISSING, MONITOR_MISSING, MONITOR_ORPHAN = "process-missing", "monitor-missing", "monitor-orphan"
MOUNT_MISSING, MOUNT_ORPHAN, CGROUP_MISSING, CGROUP_ORPHAN = (
    "mount-missing", "mount-orphan", "cgroup-missing", "cgroup-orphan",
)  # fmt: skip
BRIDGE_MISSING, PORT_MISSING, PORT_ORPHAN = "bridge-missing", "port-missing", "port-orphan"
ADDRESS_MISSING = "address-missing"
LINK_ORPHAN = "link-orphan"
RULE_MISSING, RULE_ORPHAN = "rule-missing", "rule-orphan"
PUBLISHED_MISSING, PUBLISHED_ORPHAN = "published-missing", "published-orphan"
NAMESPACE_WRONG, NAMESPACE_ORPHAN = "namespace-wrong", "namespace-orphan"
IMAGE_MOUNT_MISSING = "image-mount-missing"

KINDS = frozenset(
    {
        BLOB_MISSING, BLOB_DAMAGED, BLOB_ORPHAN, SNAPSHOT_DAMAGED, SNAPSHOT_PARENT, SNAPSHOT_ORPHAN, LAYER_PARENT,
        IMAGE_LAYERS, IMAGE_ID, TAG_DANGLING, MANIFEST_DAMAGED, HOLD_ORPHAN, LEASE_ORPHAN, CACHE_DANGLING, LEFTOVER,
        CONTAINER_SNAPSHOT, CONTAINER_FILES, CONTAINER_ORPHAN, VOLUME_MISSING, VOLUME_ORPHAN, ADDRESS_ORPHAN,
        ADDRESS_NETWORK, RECORDS_DIFFER, DATABASE_DAMAGED, PROCESS_MISSING, MONITOR_MISSING, MONITOR_ORPHAN,
        MOUNT_MISSING, MOUNT_ORPHAN, CGROUP_MISSING, CGROUP_ORPHAN, BRIDGE_MISSING, PORT_MISSING, PORT_ORPHAN,
        ADDRESS_MISSING, ARTIFACT_DAMAGED, RULE_MISSING, RULE_ORPHAN, PUBLISHED_MISSING, PUBLISHED_ORPHAN, NAMESPACE_WRONG,
        NAMESPACE_ORPHAN, IMAGE_MOUNT_MISSING, LINK_ORPHAN,
    }
)  # fmt: skip
"""Every kind; docs/check.md has a line for each."""


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that is not as it must be.

    subject: what is wrong: a digest, a container's id, a path below the roots. text: how, in one line. remedy: what
    mends it, "" when only a person can.
    """

    kind: str
    subject: str
    text: str
    remedy: str = NOTHING
