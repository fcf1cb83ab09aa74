"""From records to what the kernel is told."""

from ipaddress import IPv4Address, IPv4Interface, IPv6Address

from tare.drivers.network.nft import Listener
from tare.networks import wiring
from tare.networks.attachment import NetworkOptions
from tare.networks.gateways import MODES
from tare.networks.records import NetworkRecord, Pool


class Kernel:
    """A host whose bridge has an address already."""

    def bridge_address(self, name):
        return IPv4Interface("10.0.0.1/24")

    def networks_in_use(self, *, besides=""):
        return []


def default(old=None, **options):
    return wiring.Wiring(Kernel(), NetworkOptions(**options)).default_network(old)


def test_the_record_of_the_default_bridge_keeps_its_id_and_its_prefix():
    first = default(ipv6=True, seed="a")
    second = default(first, icc=False, ipv6=True, seed="b")
    assert second.id == first.id
    assert second.options["com.docker.network.bridge.enable_icc"] == "false"
    assert (second.pools[0].subnet, second.pools[0].gateway) == ("10.0.0.0/24", "10.0.0.1")
    assert second.pools[1] == first.pools[1]
    assert second.gateway6 == IPv6Address(int(second.subnet6.network_address) + 1)
    assert default(first, ipv6=True, fixed_cidr_v6="fd09::/80").pools[1].subnet == "fd09::/80"
    assert len(default(first).pools) == 1


def test_rules_name_the_engines_sockets():
    listener = Listener(port=2376, address=IPv4Address("10.0.0.1"))
    options = NetworkOptions(listeners=(listener,))
    record = NetworkRecord(
        id="1" * 64, name="n", driver="bridge", created_at=0, bridge="br-n", pools=(Pool(subnet="10.9.0.0/24"),)
    )
    rules = wiring.Wiring(Kernel(), options).rules(record)
    assert (rules.bridge, str(rules.subnet), rules.subnet6, rules.listeners) == (
        "br-n",
        "10.9.0.0/24",
        None,
        (listener,),
    )


def test_rules_have_the_modes_of_the_network_and_what_the_engine_allows():
    options = {MODES[4]: "routed", MODES[6]: "nat-unprotected"}
    record = NetworkRecord(id="1" * 64, name="n", driver="bridge", created_at=0, bridge="br-n", options=options)
    rules = wiring.Wiring(Kernel(), NetworkOptions(allow_direct_routing=True)).rules(record)
    assert (rules.mode, rules.mode6, rules.direct) == ("routed", "nat-unprotected", True)


class Links:
    """A kernel that remembers how links were asked for."""

    def __init__(self):
        self.asked = []

    def ensure_bridge(self, name, *addresses, mtu, mark, is_ours, has_ipv6):
        self.asked.append((name, mark, is_ours))

    def enable_forwarding(self, *, ipv6=False):
        return

    def ensure_dummy(self, name, *, mark):
        self.asked.append((name, mark))

    def ensure_vlan(self, name, parent, number, *, mark):
        self.asked.append((name, parent, number, mark))


def test_links_that_are_made_say_whose_they_are():
    kernel = Links()
    made = wiring.Wiring(kernel, NetworkOptions(seed="id"))
    for name, owns in (("bridge", True), ("n", True), ("given", False)):
        made.make(NetworkRecord(id="1" * 64, name=name, driver="bridge", created_at=0, bridge="br", owns_bridge=owns))
    for parent in ("dm-1", "eth0.7"):
        made.make(NetworkRecord(id="1" * 64, name="m", driver="macvlan", created_at=0, parent=parent))
    assert kernel.asked == [
        ("br", "tare id", False),  # an administrator may have made the default bridge
        ("br", "tare id", True),
        ("br", "tare id", False),
        ("dm-1", "tare id"),
        ("eth0.7", "eth0", 7, "tare id"),
    ]
