"""Docker's query names and headers become a request to build."""

from __future__ import annotations

import base64
import json
from urllib.parse import urlencode

import pytest

from tare.api.build import wanted_of
from tare.base.errors import InvalidArgument
from tare.base.reference import parse_reference
from tare.web.message import Query


def wanted(headers: dict[str, str] | None = None, **query: object):  # type: ignore[no-untyped-def]
    return wanted_of(Query(urlencode(query, doseq=True)), headers or {})


def test_what_docker_sends_is_understood() -> None:
    found = wanted(
        dockerfile="D", t=["a", "a:latest", "b:2"], nocache="1", pull="true", q="1", target="t", networkmode="host",
        buildargs='{"A":"1","B":null,"SOURCE_DATE_EPOCH":"7"}', labels='{"l":"v"}', memory="1000", shmsize="5",
        ulimits='[{"Name":"nofile","Soft":1,"Hard":2}]', extrahosts="h:1.2.3.4", cpusetcpus="0",
    )  # fmt: skip
    assert [tag.familiar() for tag in found.tags] == ["a:latest", "b:2"]
    assert (found.arguments, found.labels) == ({"A": "1", "SOURCE_DATE_EPOCH": "7"}, {"l": "v"})
    assert (found.no_cache, found.pull, found.quiet, found.target) == (True, True, True, "t")
    host = found.host
    assert (host.NetworkMode, host.Memory, host.ShmSize, host.CpusetCpus) == ("host", 1000, 5, "0")
    assert (host.ExtraHosts, [limit.Hard for limit in host.Ulimits or ()]) == (["h:1.2.3.4"], [2])
    assert found.epoch_ns == 7_000_000_000
    assert (found.squash, wanted(squash="1").squash) == (False, True)


@pytest.mark.parametrize(
    "query",
    [{"buildargs": "{"}, {"labels": "[]"}, {"ulimits": "x"}, {"t": "A B"}, {"t": f"a@sha256:{'0' * 64}"},
     {"buildargs": '{"SOURCE_DATE_EPOCH":"soon"}'}, {"cachefrom": "a"}, {"cachefrom": "{}"}],
)  # fmt: skip
def test_what_is_wrong_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        wanted(**query)


def test_images_to_take_steps_from() -> None:
    assert wanted(cachefrom='["a","b:1"]').cache_from == ("a", "b:1")
    assert [wanted(cachefrom=text).cache_from for text in ("", "null", "[]")] == [(), (), ()]


def test_caches_to_take_from_and_to_write() -> None:
    found = wanted(cachefrom='["a","type=registry,ref=r.example/c:1"]', cacheto='["type=local,mode=max"]')
    assert found.cache_from == ("a",)
    assert [str(source) for source in found.cache_sources] == ["r.example/c:1"]
    assert [(target.reference, target.mode) for target in found.cache_targets] == [(None, "max")]
    for wrong in ({"cachefrom": '["type=gha"]'}, {"cacheto": '["c:1"]'}, {"cacheto": "x"}):
        with pytest.raises(InvalidArgument):
            wanted(**wrong)


def test_outputs_are_those_there_are() -> None:
    assert [wanted(outputs=text).is_for_output for text in ("", "[]", '[{"Type":"tar"}]')] == [False, False, True]
    for wrong in ('[{"Type":"registry"}]', "{", "[1]"):
        with pytest.raises(InvalidArgument):
            wanted(outputs=wrong)


@pytest.mark.parametrize("strip", [True, False])
def test_credentials_by_registry(strip: bool) -> None:
    document = {
        "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
        "r.example:5000": {"username": "own", "password": "p??>>"},
    }
    header = base64.urlsafe_b64encode(json.dumps(document).encode()).decode()
    found = wanted({"x-registry-config": header.rstrip("=") if strip else header})
    assert found.credentials(parse_reference("busybox")).username == "hub"
    assert found.credentials(parse_reference("r.example:5000/x")).password == "p??>>"
    assert found.credentials(parse_reference("other.example/x")).username == ""
    assert wanted({"x-registry-config": "%%%"}).credentials(parse_reference("busybox")).username == ""


def test_secrets_are_read_and_not_shown() -> None:
    header = base64.b64encode(json.dumps({"s": base64.b64encode(b"\x00hush").decode()}).encode()).decode()
    found = wanted({"x-tare-secrets": header})
    assert found.secrets == {"s": b"\x00hush"}
    assert "hush" not in repr(found)
    with pytest.raises(InvalidArgument):
        wanted({"x-tare-secrets": "e30x"})
    with pytest.raises(InvalidArgument, match="48 KiB"):
        wanted({"x-tare-secrets": "A" * 70_000})
