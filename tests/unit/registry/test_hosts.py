"""Where registries are, and who is told what."""

from __future__ import annotations

import pytest

from tare.base.errors import InvalidArgument
from tare.registry.hosts import (
    Endpoint,
    RegistryOptions,
    domain_of,
    endpoints,
    host_name,
    is_insecure,
    may_authenticate,
    parse_insecure,
    parse_mirror,
    proxy_for,
)

OPTIONS = RegistryOptions(
    mirrors={"docker.io": ("https://mirror.example/hub/", "http://plain.example")},
    insecure=("old.example:5000", "bare.example", "10.0.0.0/8"),
    realms=("login.other.example",),
)


def bases(domain: str, *, with_mirrors: bool = True) -> list[str]:
    return [endpoint.base for endpoint in endpoints(domain, OPTIONS, with_mirrors=with_mirrors)]


def test_endpoints() -> None:
    assert bases("docker.io") == ["https://mirror.example/hub", "http://plain.example", "https://registry-1.docker.io"]
    assert bases("docker.io", with_mirrors=False) == ["https://registry-1.docker.io"]
    assert bases("quay.example") == ["https://quay.example"]
    assert bases("127.0.0.1:5000") == ["https://127.0.0.1:5000", "http://127.0.0.1:5000"]
    assert endpoints("quay.example", OPTIONS, with_mirrors=True)[0].is_verified
    assert not endpoints("localhost:1", OPTIONS, with_mirrors=True)[0].is_verified


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.8.9.1:5000", True),
        ("[::1]:5000", True),
        ("old.example:5000", True),
        ("old.example:5001", False),
        ("bare.example:77", True),
        ("10.9.8.7:1", True),
        ("11.9.8.7:1", False),
        ("quay.example", False),
    ],
)
def test_insecure(host: str, expected: bool) -> None:
    assert is_insecure(host, OPTIONS) is expected


def test_addresses() -> None:
    assert domain_of("https://index.docker.io/v1/") == domain_of("") == domain_of("registry-1.docker.io") == "docker.io"
    assert domain_of("http://localhost:5000/v2/") == "localhost:5000"
    assert host_name("[::1]:5000") == "::1"
    with pytest.raises(InvalidArgument):
        domain_of("user:password@host")


def test_options_are_checked() -> None:
    assert parse_mirror("https://m.example") == ("docker.io", "https://m.example")
    assert parse_mirror("quay.example=http://m.example/q") == ("quay.example", "http://m.example/q")
    assert parse_insecure("10.0.0.1/8") == "10.0.0.0/8"
    for text in ("m.example", "ftp://m.example", "https://a:b@m.example"):
        with pytest.raises(InvalidArgument):
            parse_mirror(text)
    for text in ("http://x.example", "", "a/b"):
        with pytest.raises(InvalidArgument):
            parse_insecure(text)


@pytest.mark.parametrize(
    ("host", "realm", "expected"),
    [
        ("registry-1.quay.example", "https://auth.quay.example/token", True),
        ("quay.example", "https://quay.example/auth", True),
        ("quay.example", "http://quay.example/auth", False),
        ("quay.example", "https://collector.test/auth", False),
        ("a.quay.example", "https://login.quay.example/auth", True),
        ("quay.example", "https://login.other.example/auth", True),
        ("quay.example", "https://user@quay.example/auth", False),
        ("quay.example", "/token", False),
        ("203.0.113.9", "https://203.0.113.8/token", False),
    ],
)
def test_realms(host: str, realm: str, expected: bool) -> None:
    options = RegistryOptions(realms=("login.other.example",))
    assert may_authenticate(Endpoint(scheme="https", host=host), realm, options) is expected


def test_an_insecure_registry_may_have_a_plain_realm_at_its_host() -> None:
    endpoint = Endpoint(scheme="http", host="127.0.0.1:5000", is_verified=False)
    assert may_authenticate(endpoint, "http://127.0.0.1:5001/token", OPTIONS)


def test_proxies() -> None:
    environment = {
        "HTTPS_PROXY": "proxy.example:3128",
        "no_proxy": "internal.example,.sub.example,10.0.0.0/8,p.example:8443",
    }

    def proxy(url: str) -> str | None:
        return proxy_for(url, environment)

    assert proxy("https://quay.example/v2/") == "http://proxy.example:3128"
    assert proxy("http://quay.example/v2/") is None  # no proxy for http is named
    assert proxy("https://internal.example/") is None
    assert proxy("https://a.internal.example/") is None
    assert proxy("https://notinternal.example/") == "http://proxy.example:3128"
    assert proxy("https://sub.example/") == "http://proxy.example:3128"
    assert proxy("https://a.sub.example/") is None
    assert proxy("https://10.1.2.3/") is None
    assert proxy("https://p.example:8443/") is None
    assert proxy("https://p.example/") == "http://proxy.example:3128"
    assert proxy("https://localhost/") is None
    assert proxy("https://127.0.0.1:5000/") is None
    assert proxy_for("https://x.example/", {"https_proxy": "http://p", "NO_PROXY": "*"}) is None
