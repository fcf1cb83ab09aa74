"""Networks as Docker writes them.

Source: moby/moby api/types/network/network.go (NetworkResource, EndpointResource, IPAM).
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from tare.wire.config import Empty, EndpointSettings, Wire


class IPAMConfig(Wire, kw_only=True, frozen=True):
    """One subnet."""

    Subnet: str | UnsetType = UNSET
    IPRange: str | UnsetType = UNSET
    Gateway: str | UnsetType = UNSET
    AuxiliaryAddresses: dict[str, str] | UnsetType = UNSET


class IPAM(Wire, kw_only=True, frozen=True):
    """Where addresses come from."""

    Driver: str = "default"
    Options: dict[str, str] | None = None
    Config: list[IPAMConfig] = msgspec.field(default_factory=list)


class ConfigReference(Wire, kw_only=True, frozen=True):
    """The configuration-only network whose settings are used, or ""."""

    Network: str = ""


class EndpointResource(Wire, kw_only=True, frozen=True):
    """A container as its network shows it; addresses with prefix length."""

    Name: str = ""
    EndpointID: str = ""
    MacAddress: str = ""
    IPv4Address: str = ""
    IPv6Address: str = ""


_IPAM: TypeAlias = IPAM


class NetworkResource(Wire, kw_only=True, frozen=True):
    """The body of inspect, and an element of the list (there `Containers` is empty)."""

    Name: str
    Id: str
    Created: str
    Scope: str = "local"
    Driver: str = ""
    EnableIPv4: bool = True
    EnableIPv6: bool = False
    IPAM: _IPAM = _IPAM()
    Internal: bool = False
    Attachable: bool = False
    Ingress: bool = False
    ConfigFrom: ConfigReference = ConfigReference()
    ConfigOnly: bool = False
    Containers: dict[str, EndpointResource] = msgspec.field(default_factory=dict)
    Options: dict[str, str] = msgspec.field(default_factory=dict)
    Labels: dict[str, str] = msgspec.field(default_factory=dict)
    Peers: list[Empty] | UnsetType = UNSET


class NetworkCreate(Wire, kw_only=True, frozen=True):
    """The body of create. `EnableIPv4` and `EnableIPv6` null: the engine's choice."""

    Name: str = ""
    Driver: str = ""
    Scope: str = ""
    EnableIPv4: bool | None = None
    EnableIPv6: bool | None = None
    IPAM: _IPAM | None = None
    Internal: bool = False
    Attachable: bool = False
    Ingress: bool = False
    ConfigOnly: bool = False
    ConfigFrom: ConfigReference | None = None
    Options: dict[str, str] | None = None
    Labels: dict[str, str] | None = None


class NetworkCreated(Wire, kw_only=True, frozen=True):
    """The answer to create."""

    Id: str
    Warning: str = ""


class NetworkConnect(Wire, kw_only=True, frozen=True):
    """The body of connect."""

    Container: str = ""
    EndpointConfig: EndpointSettings | None = None


class NetworkDisconnect(Wire, kw_only=True, frozen=True):
    """The body of disconnect."""

    Container: str = ""
    Force: bool = False
