"""Networks on the wire."""

import msgspec

from tare.wire.networks import IPAM, EndpointResource, IPAMConfig, NetworkResource


def test_members_are_written_as_docker_writes_them():
    network = NetworkResource(
        Name="bridge",
        Id="x",
        Created="t",
        Driver="bridge",
        IPAM=IPAM(Config=[IPAMConfig(Subnet="10.0.0.0/8")]),
        Containers={"c": EndpointResource(Name="box")},
    )
    written = msgspec.json.decode(msgspec.json.encode(network))
    assert written["IPAM"] == {"Driver": "default", "Options": None, "Config": [{"Subnet": "10.0.0.0/8"}]}
    assert written["ConfigFrom"] == {"Network": ""}
    assert written["Containers"]["c"]["IPv6Address"] == ""
    assert "Peers" not in written
