"""Search terms, filters, and an index that answers."""

from __future__ import annotations

import asyncio

import pytest

from tare.base.errors import InvalidArgument, NotFound
from tare.registry.hosts import RegistryOptions
from tare.registry.search import Found, Term, choose, parse_term, search
from tare.registry.transport import Transport
from tare.testing.registry import Fault, registry

ENTRIES = [Found("a", "x", 5, True), Found("b", None, 1, False)]


def test_terms() -> None:
    assert parse_term("nginx") == Term("docker.io", "nginx")
    assert parse_term("library/nginx") == Term("docker.io", "nginx")
    assert parse_term("some/one") == Term("docker.io", "some/one")
    assert parse_term("quay.example/some/one") == Term("quay.example", "some/one")
    assert parse_term("docker.io/library/x") == Term("docker.io", "x")
    with pytest.raises(InvalidArgument):
        parse_term("https://quay.example/x")


def test_filters() -> None:
    assert choose(ENTRIES, {"stars": ["3"]}) == ENTRIES[:1]
    assert choose(ENTRIES, {"is-official": ["false"]}) == ENTRIES[1:]
    assert choose(ENTRIES, {"is-automated": ["true"]}) == []
    assert choose(ENTRIES, {"is-automated": ["false"]}) == ENTRIES
    for wrong in ({"stars": ["many"]}, {"is-official": ["perhaps"]}):
        with pytest.raises(InvalidArgument):
            choose(ENTRIES, wrong)


def test_a_registry_with_neither_index_nor_catalog_says_so() -> None:
    with registry() as server:
        server.faults.append(Fault(path="/v", status=404, times=9))

        async def story() -> None:
            transport = Transport(RegistryOptions())
            try:
                with pytest.raises(NotFound, match="has no index to search"):
                    await search(transport, Term(server.host, "x"))
            finally:
                await transport.close()

        asyncio.run(story())
