"""Links and rules of networks that are gone: what is taken away, and what is left alone."""

import asyncio

import pytest

from tare.networks.attachment import NetworkOptions
from tare.networks.records import NetworkRecord
from tare.networks.strays import Strays
from tare.networks.wiring import Wiring

NETWORK = NetworkRecord(id="1" * 64, name="n", driver="bridge", created_at=0, bridge="br-n")
PARENT = NetworkRecord(id="2" * 64, name="m", driver="macvlan", created_at=0, parent="dm-m")


class Kernel:
    def __init__(self, **links):
        self.links, self.done = links, []

    def marked(self, mark):
        assert mark == "tare seed"
        return self.links

    def remove_link(self, name):
        self.done.append(f"link {name}")

    def forget_forwarding(self, bridge):
        self.done.append(f"forwarding {bridge}")

    def forget(self, engine, said):
        self.done.append(f"{engine}: {said}")


def strays(kernel):
    wiring = Wiring(kernel, NetworkOptions(bridge="tare0", seed="seed"))
    return Strays(wiring, {NETWORK.id: NETWORK, PARENT.id: PARENT}, asyncio.Lock())


@pytest.mark.parametrize(
    ("name", "done", "why"),
    [
        ("br-gone", ["link br-gone", "forwarding br-gone"], ""),
        ("br-busy", [], "2 interfaces use it"),
        ("br-n", [], ""),  # a network was made meanwhile
        ("dm-m", [], ""),
        ("eth0", [], ""),  # it is not ours
    ],
)
def test_links(name, done, why):
    kernel = Kernel(**{"br-gone": 0, "br-busy": 2, "br-n": 1, "dm-m": 0})
    answer = asyncio.run(strays(kernel).remove_link(name))
    assert (kernel.done, answer.partition(":")[0]) == (done, why)


@pytest.mark.parametrize(
    ("said", "done"),
    [
        ("ip bridges br-gone", ["tare0: ip bridges br-gone", "forwarding br-gone"]),
        ("ip within br-n . br-n : accept", []),
        ("ip published tcp . 1 : 10.0.0.2 . 80", ["tare0: ip published tcp . 1 : 10.0.0.2 . 80"]),
    ],
)
def test_rules(said, done):
    kernel = Kernel()
    asyncio.run(strays(kernel).remove_rule(said))
    assert kernel.done == done


def test_links_of_networks():
    assert strays(Kernel()).known() == {"br-n", "dm-m"}
