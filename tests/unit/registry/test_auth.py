"""What is offered to whom. The exchanges themselves are in test_remote."""

from __future__ import annotations

from tare.registry.auth import Authorizer, scope_of, scopes_of
from tare.registry.credentials import Credentials
from tare.registry.hosts import Endpoint, RegistryOptions
from tare.registry.transport import Transport

HERE = Endpoint(scheme="https", host="reg.example")
MIRROR = Endpoint(scheme="https", host="mirror.example", is_mirror=True)


def test_a_registry_token_is_for_the_registry_alone() -> None:
    authorizer = Authorizer(Transport(RegistryOptions()), Credentials(registry_token="t"))
    assert authorizer.header(HERE, "x") == "Bearer t"
    assert authorizer.header(MIRROR, "x") == ""


def test_a_password_is_not_offered_unasked() -> None:
    authorizer = Authorizer(Transport(RegistryOptions()), Credentials("u", "p"))
    assert authorizer.header(HERE, "x") == ""


def test_scopes() -> None:
    assert scope_of("a/b", push=False) == "repository:a/b:pull"
    assert scope_of("a/b", push=True) == "repository:a/b:pull,push"
    assert scopes_of(["a", "b"]) == "repository:a:pull repository:b:pull"
