"""The API's surface as bytes: versions, statuses, error bodies, and what Docker has and this engine does not.

Exercises api/app, api/routes, api/system, api/absent, api/handler, engine/info, engine/inspect and engine/restart.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from pathlib import Path

import pytest

from tare import __version__
from tare.testing.daemon import Daemon

pytestmark = pytest.mark.root

JSON = {"Content-Type": "application/json"}


def message(answer: bytes) -> str:
    body = json.loads(answer)
    assert set(body) == {"message"}
    return str(body["message"])


@pytest.mark.parametrize("path", ["/_ping", "/v1.24/_ping", "/v1.51/_ping"])
def test_ping(daemon: Daemon, path: str) -> None:
    assert daemon.request("GET", path) == (200, b"OK")
    assert daemon.request("HEAD", path) == (200, b"")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/v1.23/_ping", "client version 1.23 is too old. Minimum supported API version is 1.24"),
        ("/v1.99/_ping", "client version 1.99 is too new. Maximum supported API version is 1.51"),
    ],
)
def test_versions_outside_the_range(daemon: Daemon, path: str, text: str) -> None:
    status, answer = daemon.request("GET", path)
    assert status == 400
    assert text in message(answer)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nothing"), ("PUT", "/_ping"), ("GET", "/containers/create"), ("GET", "/v1.51")]
)
def test_unknown_paths_and_methods(daemon: Daemon, method: str, path: str) -> None:
    status, answer = daemon.request(method, path)
    assert (status, message(answer)) == (404, "page not found")


def test_a_path_that_is_not_tidy_is_sent_to_the_one_that_is(daemon: Daemon) -> None:
    """A client whose address ends in a slash asks for `//version`."""
    connection = http.client.HTTPConnection("x")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(daemon.socket))
    with contextlib.closing(connection):
        for method in ("GET", "POST"):
            connection.request(method, "//containers/../containers/json?all=1&x=%20")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (301, b"")
            assert answer.headers["Location"] == "/containers/json?all=1&x=%20"


def test_a_route_newer_than_the_version_asked_for(daemon: Daemon) -> None:
    status, answer = daemon.request("POST", "/v1.24/containers/prune")
    assert status == 400
    assert "requires minimum API version 1.25" in message(answer)


def test_version(daemon: Daemon) -> None:
    found = daemon.json("GET", "/version")
    assert (found["ApiVersion"], found["MinAPIVersion"], found["Os"]) == ("1.51", "1.24", "linux")
    assert found["Version"].endswith(f"+tare.{__version__}")
    assert {part["Name"] for part in found["Components"]} >= {"Engine", "crun"}


def test_info_counts_and_names_what_was_chosen(engine_host: str, daemon: Daemon) -> None:
    daemon.json("POST", "/containers/create?name=one", {"Image": "busybox"}, expect=201)
    found = daemon.json("GET", "/info")
    assert (found["Containers"], found["ContainersRunning"], found["ContainersStopped"]) == (1, 0, 1)
    assert found["Images"] >= 1
    assert found["DefaultRuntime"] in found["Runtimes"]
    assert found["DockerRootDir"] == str(daemon.data_root)
    assert found["ID"] == daemon.json("GET", "/info")["ID"]
    assert found["Swarm"]["LocalNodeState"] == "inactive"
    assert found["FirewallBackend"] == {"Driver": "nftables"}
    assert "FirewallBackend" not in daemon.json("GET", "/v1.48/info")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/swarm", 503),
        ("GET", "/nodes", 503),
        ("GET", "/services/x/logs", 503),
        ("POST", "/secrets/create", 503),
        ("POST", "/swarm/leave", 503),
        ("POST", "/swarm/init", 501),
        ("GET", "/plugins/x/y/json", 404),
        ("GET", "/containers/x/checkpoints", 501),
    ],
)
def test_what_is_absent_says_so(daemon: Daemon, method: str, path: str, status: int) -> None:
    found, answer = daemon.request(method, path)
    assert found == status
    assert message(answer)


def test_what_info_said_in_older_versions(daemon: Daemon) -> None:
    for version, there in (("1.49", True), ("1.50", False)):
        told = daemon.json("GET", f"/v{version}/info")
        assert ("BridgeNfIptables" in told, "BridgeNfIp6tables" in told) == (there, there)


def test_no_plugins(daemon: Daemon) -> None:
    assert daemon.json("GET", "/plugins") == []


@pytest.mark.parametrize(
    ("body", "headers", "text"),
    [
        (b"{", JSON, "invalid JSON"),
        (b"[]", JSON, "invalid JSON"),
        (b"{}", {"Content-Type": "text/plain"}, "unsupported Content-Type header (text/plain)"),
        (b"[" * 5000, JSON, "invalid JSON"),
        (b'{"Image": ""}', JSON, "no image specified"),
    ],
)
def test_bodies_that_cannot_be_read(daemon: Daemon, body: bytes, headers: dict[str, str], text: str) -> None:
    status, answer = daemon.request("POST", "/containers/create", body=body, headers=headers)
    assert status == 400, answer
    assert text in message(answer)


def test_restart_is_a_new_process_in_the_same_container(engine_host: str, daemon: Daemon) -> None:
    body = {"Image": "busybox", "Cmd": ["sleep", "99"], "StopSignal": "KILL"}
    name = daemon.json("POST", "/containers/create?name=again", body, expect=201)["Id"]
    daemon.json("POST", f"/containers/{name}/start", expect=204)
    before = daemon.json("GET", f"/containers/{name}/json")["State"]
    daemon.json("POST", f"/containers/{name}/restart?t=1", expect=204)
    after = daemon.json("GET", f"/containers/{name}/json")["State"]
    assert after["Running"]
    assert after["Pid"] != before["Pid"]
    assert after["StartedAt"] > before["StartedAt"]
    daemon.json("POST", f"/containers/{name}/kill", expect=204)
    assert daemon.json("POST", f"/containers/{name}/wait")["StatusCode"] == 137
    daemon.json("POST", f"/containers/{name}/restart", expect=204)
    assert daemon.json("GET", f"/containers/{name}/json")["State"]["Running"], "one that does not run is started"


def test_an_image_for_another_platform_is_a_missing_one(engine_host: str, daemon: Daemon) -> None:
    body = json.dumps({"Image": "busybox"}).encode()
    status, answer = daemon.request("POST", "/containers/create?platform=linux/s390x", body=body, headers=JSON)
    assert status == 404
    assert "was found but does not match the specified platform: wanted linux/s390x, actual: linux/" in message(answer)
    machine = daemon.json("GET", "/images/busybox/json")["Architecture"]
    daemon.json("POST", f"/containers/create?platform=linux/{machine}", {"Image": "busybox"}, expect=201)


def test_shared_memory_and_links_of_another_container(engine_host: str, daemon: Daemon) -> None:
    def put(name: str, **host: object) -> str:
        body = {"Image": "busybox", "Cmd": ["sleep", "99"], "StopSignal": "KILL", "HostConfig": host}
        found = str(daemon.json("POST", f"/containers/create?name={name}", body, expect=201)["Id"])
        daemon.json("POST", f"/containers/{found}/start", expect=204)
        return found

    donor = put("donor", IpcMode="shareable")
    other = put("other", IpcMode="container:donor", Links=["donor:friend"])
    places = [daemon.json("GET", f"/containers/{name}/json")["State"]["Pid"] for name in (donor, other)]
    Path(f"/proc/{places[1]}/root/dev/shm/mark").write_text("x")
    assert Path(f"/proc/{places[0]}/root/dev/shm/mark").read_text() == "x"
    assert daemon.json("GET", f"/containers/{other}/json")["HostConfig"]["Links"] == ["/donor:/other/friend"]
    daemon.json("DELETE", f"/containers/{other}?force=1", expect=204)
    assert Path(f"/proc/{places[0]}/root/dev/shm/mark").exists(), "the donor keeps what was written"


def test_of_an_image_with_several_names_those_asked_for_are_listed(daemon: Daemon) -> None:
    daemon.json("POST", "/images/busybox/tag?repo=several/names&tag=1", expect=201)
    daemon.json("POST", "/images/busybox/tag?repo=several/names&tag=2", expect=201)
    try:
        for pattern, tags in (("several/*", {"several/names:1", "several/names:2"}), ("busybox", {"busybox:latest"}),
                              ("several/names:2", {"several/names:2"})):  # fmt: skip
            [found] = daemon.json("GET", f'/images/json?filters={{"reference":["{pattern}"]}}')
            assert set(found["RepoTags"]) == tags
    finally:
        daemon.request("DELETE", "/images/several/names:1")
        daemon.request("DELETE", "/images/several/names:2")


def test_which_refusal_comes_first(engine_host: str, daemon: Daemon) -> None:
    """Where several things are wrong, dockerd's is the one that is said."""
    for name in ("one", "two"):
        daemon.json("POST", f"/containers/create?name={name}", {"Image": "busybox"}, expect=201)
    taken = 'Error when allocating new name: Conflict. The container name "/two" is already in use by container'
    for path, body, status, text in (
        ("/containers/one/rename?name=two", None, 409, taken),
        ("/containers/one/rename?name=a%20b", None, 400, "Error when allocating new name: Invalid container name"),
        ("/containers/one/rename?name=one", None, 400, "Renaming a container with the same name as its current name"),
        ("/networks/nosuch/connect", {"Container": "nobody"}, 404, "No such container: nobody"),
        ("/networks/nosuch/disconnect", {"Container": "nobody"}, 404, "No such container: nobody"),
        ("/networks/nosuch/connect", {"Container": "one"}, 404, "network nosuch not found"),
        ("/volumes/create", {"Name": "x", "Driver": "nosuch"}, 404, 'create x: error looking up volume plugin nosuch'),
    ):  # fmt: skip
        found, answer = daemon.request("POST", path, body=json.dumps(body).encode() if body else b"", headers=JSON)
        assert (found, message(answer)[: len(text)]) == (status, text)


def test_options_of_address_management_come_back_as_they_were_sent(engine_host: str, daemon: Daemon) -> None:
    for ipam, options in (
        (None, None),
        ({"Driver": "default"}, None),
        ({"Options": {}}, {}),
        ({"Options": {"a": "b"}}, {"a": "b"}),
    ):
        body = {"Name": "asked", **({"IPAM": ipam} if ipam is not None else {})}
        made = daemon.json("POST", "/networks/create", body, expect=201)
        assert daemon.json("GET", f"/networks/{made['Id']}")["IPAM"]["Options"] == options
        assert daemon.request("DELETE", f"/networks/{made['Id']}")[0] == 204
