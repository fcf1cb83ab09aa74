"""The values of the service."""

from tare.networks.attachment import Attachment, dns_names
from tare.networks.plan import Mode
from tare.wire.config import EndpointSettings


def test_names_are_said_once_in_dockers_order():
    settings = EndpointSettings(Aliases=["www", "box"])
    assert dns_names("box", settings, container_id="0123456789abcdef", hostname="host") == [
        "box",
        "www",
        "0123456789ab",
        "host",
    ]
    assert dns_names("box", EndpointSettings(), container_id="0123456789abcdef", hostname="0123456789ab") == [
        "box",
        "0123456789ab",
    ]


def test_addresses():
    endpoints = {"none": EndpointSettings(), "web": EndpointSettings(IPAddress="10.0.0.2")}
    assert Attachment(mode=Mode.OWN, endpoints=endpoints).addresses == ["10.0.0.2"]
