"""Names on networks."""

from ipaddress import IPv4Address

from tare.networks.attachment import Member
from tare.networks.directory import Directory, aliases
from tare.wire.config import EndpointSettings


def settings(address, names, *, network="n1", links=None):
    return EndpointSettings(NetworkID=network, IPAddress=address, DNSNames=names, Links=links)


def member(name, address, names):
    return Member(container_id=name * 8, container_name=name, settings=settings(address, names))


def test_names_aliases_links_and_back():
    people = {"n1": [member("web", "10.0.0.2", ["web", "WWW"]), member("web2", "10.0.0.3", ["web2", "www"])]}
    directory = Directory(lambda network: people.get(network, []))
    mine = {"front": settings("10.0.0.9", ["me"], links=["web:db"]), "bridge": settings("10.1.0.1", None, network="b")}
    first, second = IPv4Address("10.0.0.2"), IPv4Address("10.0.0.3")
    assert directory.find("web", mine) == [first]
    assert directory.find("www", mine) == [first, second]
    assert directory.find("db", mine) == [first]
    assert directory.find("web2.front", mine) == [second]
    assert directory.find("web2.back", mine) is None
    assert directory.find("nobody", mine) is None
    assert directory.find("web", {"bridge": mine["bridge"]}) is None
    assert directory.name_of(second, mine) == "web2.front"
    assert directory.name_of(IPv4Address("10.0.0.7"), mine) is None


def test_changes_are_seen_when_told():
    people = []
    directory = Directory(lambda _: people)
    mine = {"front": settings("10.0.0.9", ["me"])}
    assert directory.find("web", mine) is None
    people.append(member("web", "10.0.0.2", ["web"]))
    directory.changed()
    assert directory.find("web", mine) == [IPv4Address("10.0.0.2")]


def test_links():
    assert aliases(["web:Front", "/db"]) == {"front": "web", "db": "db"}
