"""What must be by the records, and what the packet filter and the host's ports have."""

import asyncio
from ipaddress import ip_address

import pytest

from tare.networks.attachment import Attachment, NetworkOptions, Wish
from tare.networks.auditing import Auditor
from tare.networks.exposing import Exposer
from tare.networks.holding import Held
from tare.networks.plan import Mode
from tare.networks.publishing import Publisher
from tare.networks.records import NetworkRecord, Pool
from tare.networks.wiring import Wiring
from tare.wire.config import ContainerConfig, EndpointSettings, HostConfig, PortBinding

NETWORK = NetworkRecord(
    id="1" * 64, name="n", driver="bridge", created_at=0, bridge="br-n", pools=(Pool(subnet="10.9.0.0/24"),)
)
WEB, OTHER = "c" * 64, "d" * 64
BR_N = {
    "ip bridges br-n",
    "ip within br-n . br-n : accept",
    "ip homes 10.9.0.0/24 . br-n",
    "ip outbound 10.9.0.0/24",
    "ip6 bridges br-n",
    "ip6 within br-n . br-n : accept",
    "ip6 closed br-n",
}
PUBLISHED = {"80/tcp": [PortBinding(HostIp="0.0.0.0", HostPort="8080"), PortBinding(HostIp="::", HostPort="8080")]}


class Filter:
    """A packet filter that has said something."""

    def said(self, engine):
        return frozenset({f"ip bridges {engine}"})


class Ports(Publisher):
    """One that holds what it is told."""

    def __init__(self, *places, is_relayed=False):
        super().__init__(Filter(), is_relayed=is_relayed)
        self.places = frozenset(places)

    def held(self):
        return self.places


@pytest.fixture
def changing():
    return asyncio.Lock()


def auditor(publisher, changing):
    networks = {NETWORK.id: NETWORK}
    wish = Wish(container_id=WEB, name="web", config=ContainerConfig(), host=HostConfig())
    endpoint = EndpointSettings(NetworkID=NETWORK.id, IPAddress="10.9.0.2")
    held = Held(wish, "web", None, Attachment(mode=Mode.OWN, endpoints={"n": endpoint}), gateways={4: NETWORK.id})
    wiring = Wiring(Filter(), NetworkOptions(bridge="br0"))
    return Auditor(wiring, Exposer(publisher, wiring, networks), publisher, networks, {WEB: held}, changing)


def test_bridges_and_ports_are_due_in_the_words_of_the_packet_filter(changing):
    both = ("tcp", ip_address("0.0.0.0"), 8080), ("tcp", ip_address("::"), 8080)
    made = auditor(Ports(*both), changing)
    due = made.due({WEB: PUBLISHED})
    assert due.rules == {"br-n": BR_N, WEB: {"ip published tcp . 8080 : 10.9.0.2 . 80"}}  # IPv6 is relayed
    assert (due.held, due.unheld, due.modes) == (frozenset(), {WEB: frozenset()}, {WEB: Mode.OWN})
    assert made.said() == {"ip bridges br0"}


def test_ports_of_the_host_are_compared_with_the_records(changing):
    due = auditor(Ports(("udp", ip_address("127.0.0.1"), 53), ("tcp", ip_address("::"), 8080)), changing).due(
        {WEB: PUBLISHED}
    )
    assert due.held == {"udp 127.0.0.1:53"}
    assert due.unheld == {WEB: {"tcp 0.0.0.0:8080"}}


def test_what_is_relayed_or_unknown_is_not_translated(changing):
    assert auditor(Ports(is_relayed=True), changing).due({WEB: PUBLISHED}).rules[WEB] == frozenset()
    assert auditor(Ports(), changing).due({OTHER: PUBLISHED}).rules[OTHER] == frozenset()


def test_networks_being_changed_are_told(changing):
    made = auditor(Ports(), changing)
    assert not made.due({}).is_changing
    asyncio.run(changing.acquire())
    assert made.due({}).is_changing
