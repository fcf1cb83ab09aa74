"""What is remembered of a container."""

from tare.networks.attachment import Attachment, Wish
from tare.networks.holding import Held
from tare.networks.plan import Mode
from tare.wire.config import ContainerConfig, HostConfig


def test_nothing_is_shared_between_two():
    wish = Wish(container_id="c", name="box", config=ContainerConfig(), host=HostConfig())
    one, other = (Held(wish, "box", None, Attachment(mode=Mode.OWN)) for _ in range(2))
    one.gateways[4] = "n"
    one.outside["n"] = "veth1"
    assert (other.gateways, other.outside, other.published, other.again) == ({}, {}, (), ())
