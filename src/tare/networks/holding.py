"""What the service remembers of a container that is plugged in."""

from __future__ import annotations

from msgspec import Struct, field

from tare.drivers.network.netns import NetNamespace
from tare.networks.attachment import Attachment, Wish
from tare.networks.nameserver import NameServer
from tare.networks.ports import PortWish, Published


class Held(Struct):
    """`gateways`: for each family (4, 6) the id of the network with the default route and the published ports.

    `again`: what is to be published as soon as a network can, of what a network that was left had published.
    `leaving`: numbers of interfaces cut off that the kernel has not deleted yet. `outside`: by network id the host's end of the container's interface, where it has one.
    """

    wish: Wish
    name: str
    namespace: NetNamespace | None
    attachment: Attachment
    pid: int = 0
    gateways: dict[int, str] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    again: tuple[PortWish, ...] = ()
    names: NameServer | None = None
    outside: dict[str, str] = field(default_factory=dict)
    leaving: set[int] = field(default_factory=set)
