"""Reading the facts of the machine the tests run on."""

from tare.containers import capabilities
from tare.drivers import host


def test_facts_are_plausible():
    facts = host.read(capabilities.ALL)
    assert facts.kernel >= (4, 8)
    assert facts.cpu_count >= 1
    assert facts.memory_bytes > 1 << 20
    assert facts.rlimits["nofile"][1] >= facts.rlimits["nofile"][0] > 0
    assert facts.capabilities <= frozenset(capabilities.ALL)
    assert facts.can_raise_rlimits == ("CAP_SYS_RESOURCE" in facts.capabilities)


def test_the_machine_has_one_name_that_does_not_show_its_id() -> None:
    assert host.machine() == host.machine()
    assert len(host.machine()) == 64
