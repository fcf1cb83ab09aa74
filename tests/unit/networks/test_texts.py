"""What a container reads in its three files."""

from tare.networks import texts
from tare.networks.attachment import NetworkOptions
from tare.networks.plan import Mode
from tare.wire.config import ContainerConfig, HostConfig


def compose(tmp_path, monkeypatch, **more):
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nnameserver 192.0.2.1\nsearch example.com\n")
    monkeypatch.setattr(texts, "_HOST_RESOLVER", tmp_path / "resolv.conf")
    return texts.compose(ContainerConfig(Hostname="box"), HostConfig(), options=NetworkOptions(), mode=Mode.OWN, **more)


def test_with_our_name_server(tmp_path, monkeypatch):
    given = compose(tmp_path, monkeypatch, name_server="127.0.0.11")
    assert given.resolv_conf == "nameserver 127.0.0.11\nsearch example.com\noptions ndots:0\n"
    assert texts.host_servers() == ("127.0.0.1", "192.0.2.1")


def test_with_the_hosts(tmp_path, monkeypatch):
    given = compose(tmp_path, monkeypatch, addresses=["10.0.0.2"], links=["10.0.0.3\tdb web"])
    assert given.resolv_conf == "nameserver 192.0.2.1\nsearch example.com\n"
    assert given.hosts.endswith("10.0.0.3\tdb web\n10.0.0.2\tbox\n")
