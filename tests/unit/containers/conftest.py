"""A container record with everything ordinary, for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from tare.base.clock import Nanos
from tare.base.ids import ContainerId
from tare.containers.container import Container
from tare.wire.config import ContainerConfig, EndpointSettings, HostConfig

SECOND = 1_000_000_000
CREATED_AT = 1_700_000_000 * SECOND

ORDINARY = Container(
    id=ContainerId("a" * 64),
    name="web",
    created_at=Nanos(CREATED_AT),
    image_id="sha256:" + "1" * 64,
    image_reference="nginx:1.27",
    config=ContainerConfig(Cmd=["nginx", "-g", "daemon off;"], Labels={"tier": "front"}, Env=["A=b"]),
    host_config=HostConfig(NetworkMode="bridge"),
    runtime="crun",
    endpoints={"bridge": EndpointSettings(IPAddress="172.18.0.2", IPPrefixLen=16, Gateway="172.18.0.1")},
)


@pytest.fixture
def made() -> Callable[..., Container]:
    """`made(name="db", …)`: the ordinary record with changes."""

    def make(**changes: Any) -> Container:
        return replace(ORDINARY, **changes)

    return make
