"""The JSON of a check, which Docker has not: one object a line, each with exactly one member."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from tare.wire.config import Wire


class CheckProgress(Wire, kw_only=True, frozen=True):
    """How far it is, in bytes of blobs; Blob is read next."""

    Current: int
    Total: int
    Blob: str


class CheckFinding(Wire, kw_only=True, frozen=True):
    """One thing that is wrong. Kind is one of docs/check.md; Remedy is empty where only a person can mend it."""

    Kind: str
    Subject: str
    Text: str
    Remedy: str
    Mended: bool
    Note: str | UnsetType = UNSET


class CheckSummary(Wire, kw_only=True, frozen=True):
    """The end. Left: findings that were not mended."""

    Blobs: int
    Layers: int
    Containers: int
    BytesRead: int
    Findings: int
    Left: int
    Seconds: float


class CheckLine(Wire, kw_only=True, frozen=True):
    """One line of the stream."""

    Progress: CheckProgress | UnsetType = UNSET
    Finding: CheckFinding | UnsetType = UNSET
    Summary: CheckSummary | UnsetType = UNSET
    Error: str | UnsetType = UNSET
