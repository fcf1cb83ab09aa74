"""What is mended after which loss; real losses are in tests/e2e/test_mending.py."""

import asyncio

from tare.base.errors import NotFound
from tare.drivers.network.watch import Losses
from tare.networks.attachment import Attachment, NetworkOptions, Wish
from tare.networks.holding import Held
from tare.networks.plan import Mode
from tare.networks.records import NetworkRecord, Pool
from tare.networks.watching import Watcher
from tare.networks.wiring import Wiring
from tare.wire.config import ContainerConfig, EndpointSettings, HostConfig

NETWORK = NetworkRecord(
    id="1" * 64,
    name="n",
    driver="bridge",
    created_at=0,
    bridge="br-n",
    pools=(Pool(subnet="10.9.0.0/24", gateway="10.9.0.1"),),
)


class Namespace:
    def close(self):
        pass


class Kernel:
    def __init__(self):
        self.rules, self.said = "whole", []

    def shape(self, bridge):
        return self.rules

    def ensure_bridge(self, name, *addresses, mtu, mark, is_ours, has_ipv6):
        self.said.append(f"bridge {name}")

    def enable_forwarding(self, **_):
        pass

    def accept_forwarding(self, bridges):
        self.said.append(f"accept {bridges}")

    def open_namespace(self, pid):
        if pid == 666:
            raise NotFound("gone")
        return Namespace()

    def mend(self, namespace, plug):
        self.said.append(f"mend {plug.mac}")
        return "veth2"


class Rules:
    def __init__(self, kernel):
        self.kernel = kernel

    async def restore(self, wanted):
        self.kernel.rules = "whole"
        self.kernel.said += [f"rules {rules.bridge}" for rules in wanted]


def mended(losses, *, before="whole", after="whole", pid=42):
    kernel = Kernel()
    wish = Wish(container_id="c", name="box", config=ContainerConfig(), host=HostConfig())
    endpoint = EndpointSettings(NetworkID=NETWORK.id, IPAddress="10.9.0.2", IPPrefixLen=24, MacAddress="02:42:1")
    held = Held(wish, "box", None, Attachment(mode=Mode.OWN, endpoints={"n": endpoint}), pid=pid)
    held.outside = {NETWORK.id: "veth1"}
    watcher = Watcher(Wiring(kernel, NetworkOptions()), Rules(kernel), {NETWORK.id: NETWORK}, {"c": held})

    async def main():
        kernel.rules = before
        await watcher.learn()
        kernel.rules = after
        await watcher.mend(losses)

    asyncio.run(main())
    return kernel.said, held.outside[NETWORK.id]


def test_rules_that_differ_are_made_again_and_others_left():
    assert mended(Losses(tables={"tare-tare0"})) == ([], "veth1")
    assert mended(Losses(tables={"tare-tare0"}), after="") == (["rules br-n"], "veth1")
    assert mended(Losses(tables={"tare-other"}), after="") == ([], "veth1")


def test_a_bridge_comes_back_with_rules_and_members():
    assert mended(Losses(links={"br-n"})) == (["bridge br-n", "rules br-n", "mend 02:42:1"], "veth2")


def test_an_end_is_mended_alone_and_a_container_that_ended_is_left():
    assert mended(Losses(links={"veth1"})) == (["mend 02:42:1"], "veth2")
    assert mended(Losses(links={"veth1"}), pid=666) == ([], "veth1")


def test_other_peoples_chains_are_looked_at_when_they_change():
    assert mended(Losses(firewalls=True)) == (["accept ['br-n']"], "veth1")
