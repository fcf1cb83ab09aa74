"""What an update changes in the record and asks of the kernel."""

from __future__ import annotations

import pytest

from tare.base.errors import Conflict, InvalidArgument
from tare.base.ids import ContainerId
from tare.containers.container import Container
from tare.drivers.cgroups import Limits
from tare.engine.update import limits_of, merge
from tare.wire.config import ContainerConfig, HostConfig, RestartRule


def container(**host: object) -> Container:
    return Container(
        id=ContainerId("c" * 64), name="web", created_at=1, image_id="sha256:1", image_reference="busybox",
        config=ContainerConfig(), host_config=HostConfig(**host), runtime="crun",
    )  # fmt: skip


def test_zero_and_empty_leave_a_value() -> None:
    old = container(Memory=64 << 20, MemorySwap=128 << 20, CpuShares=5, CpusetCpus="0", PidsLimit=7)
    assert merge(old, HostConfig()) == old.host_config
    new = merge(old, HostConfig(CpuShares=9, PidsLimit=0, RestartPolicy=RestartRule(Name="always")))
    assert (new.Memory, new.CpuShares, new.PidsLimit, new.RestartPolicy.Name) == (64 << 20, 9, 0, "always")


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ({"CpuQuota": 5000}, {"NanoCpus": 1}, "Nano CPUs cannot be updated as CPU Quota has already been set"),
        ({"CpuPeriod": 5000}, {"NanoCpus": 1}, "Nano CPUs cannot be updated as CPU Period has already been set"),
        ({"NanoCpus": 1}, {"CpuQuota": 5000}, "CPU Quota cannot be updated as NanoCPUs has already been set"),
        ({"NanoCpus": 1}, {"CpuPeriod": 5000}, "CPU Period cannot be updated as NanoCPUs has already been set"),
        ({"Memory": 10, "MemorySwap": 20}, {"Memory": 30}, "Memory limit should be smaller than already set memoryswap limit"),
    ],
)  # fmt: skip
def test_conflicts(old: dict[str, int], new: dict[str, int], text: str) -> None:
    with pytest.raises(Conflict) as caught:
        merge(container(**old), HostConfig(**new))
    assert caught.value.message.startswith(f"Cannot update container {'c' * 64}: ")
    assert text in caught.value.message


def test_restart_policies_that_cannot_be() -> None:
    with pytest.raises(InvalidArgument, match="invalid restart policy 'nope'"):
        merge(container(), HostConfig(RestartPolicy=RestartRule(Name="nope")))
    with pytest.raises(Conflict, match="AutoRemove is enabled"):
        merge(container(AutoRemove=True), HostConfig(RestartPolicy=RestartRule(Name="always")))
    assert merge(container(AutoRemove=True), HostConfig(RestartPolicy=RestartRule(Name="no"))).AutoRemove


@pytest.mark.parametrize(
    ("old", "new", "limits"),
    [
        ({}, {"NanoCpus": 500_000_000}, Limits(cpu_quota_us=50_000, cpu_period_us=100_000)),
        ({"CpuQuota": 5000, "CpuPeriod": 10000}, {"CpuQuota": 7000}, Limits(cpu_quota_us=7000, cpu_period_us=10000)),
        ({"CpuQuota": 5000}, {"CpuPeriod": 20000}, Limits(cpu_quota_us=5000, cpu_period_us=20000)),
        ({"MemorySwap": 80}, {"Memory": 40}, Limits(memory_bytes=40, swap_bytes=80)),
        ({"Memory": 40}, {"MemorySwap": -1}, Limits(swap_bytes=-1)),
        ({}, {"PidsLimit": 0}, Limits(pids=-1)),
        ({}, {"PidsLimit": 9, "CpusetCpus": "0-1"}, Limits(pids=9, cpuset_cpus="0-1")),
        ({"Memory": 40}, {}, Limits()),
    ],
)
def test_limits(old: dict[str, int], new: dict[str, object], limits: Limits) -> None:
    wanted = HostConfig(**new)
    assert limits_of(wanted, merge(container(**old), wanted)) == limits
