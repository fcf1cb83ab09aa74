"""What clients of today's dockerd (28) rely on and an older one does otherwise; each was found by moby's own tests."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tare.testing.daemon import Daemon
from tare.testing.exchange import tar_of

pytestmark = pytest.mark.root

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def engine(daemon: Daemon, engine_host: str) -> Iterator[Daemon]:
    yield daemon
    daemon.clear()


def make(engine: Daemon, name: str, *argv: str, config: dict[str, Any] | None = None, start: bool = True,
         **host: Any) -> str:  # fmt: skip
    body = {"Image": "busybox", "Cmd": list(argv), **(config or {}), "HostConfig": {"NetworkMode": "none", **host}}
    container = str(engine.json("POST", f"/containers/create?name={name}", body, expect=201)["Id"])
    if start:
        engine.json("POST", f"/containers/{container}/start", expect=204)
    return container


def refused(engine: Daemon, method: str, path: str, body: object = None) -> tuple[int, str]:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    status, text = engine.request(method, path, body=data, headers=JSON)
    return status, str(json.loads(text)["message"])


@pytest.mark.parametrize("path", ["/commit?container=nosuch", "/containers/nosuch/update", "/containers/create"])
def test_a_body_that_is_none_is_said_before_all_else(engine: Daemon, path: str) -> None:
    wrong = refused(engine, "POST", path, b"{invalid json")
    assert wrong == (400, "invalid JSON: invalid character 'i' looking for beginning of object key string")
    assert refused(engine, "POST", path, b'{} "more"') == (400, "invalid JSON: unexpected content after JSON")


def test_sizes_that_are_none(engine: Daemon) -> None:
    make(engine, "box", "sleep", "1000", config={"Tty": True})
    for query, words in (
        ("h=&w=10", 'invalid resize height "": invalid syntax'),
        ("h=10&w=x", 'invalid resize width "x": invalid syntax'),
        ("h=-1&w=10", 'invalid resize height "-1": value out of range'),
        ("h=10&w=65536", 'invalid resize width "65536": value out of range'),
    ):
        assert refused(engine, "POST", f"/containers/box/resize?{query}") == (400, words)


def test_a_stop_right_after_a_start_is_obeyed(engine: Daemon) -> None:
    """The kernel drops what the first process of a namespace has no handler for, and this one sets it a little late."""
    for number in range(5):
        make(engine, f"late-{number}", "sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done")
        begun = time.monotonic()
        engine.json("POST", f"/containers/late-{number}/stop?t=10", expect=204)
        assert time.monotonic() - begun < 5
        assert engine.json("GET", f"/containers/late-{number}/json")["State"]["ExitCode"] == 5


def test_a_container_with_rm_can_be_restarted(engine: Daemon) -> None:
    make(engine, "again", "sleep", "1000", AutoRemove=True)
    engine.json("POST", "/containers/again/restart?t=0", expect=204)
    assert engine.json("GET", "/containers/again/json")["State"]["Running"] is True
    removed = engine.request("POST", "/containers/again/kill")[0]
    assert removed == 204
    engine.request("POST", "/containers/again/wait?condition=removed")
    assert engine.request("GET", "/containers/again/json")[0] == 404


def test_a_profile_of_ones_own_holds_for_a_privileged_container(engine: Daemon) -> None:
    profile = json.dumps(
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chown", "fchownat"], "action": "SCMP_ACT_ERRNO"}]}
    )
    for options, code in (([], 0), ([f"seccomp={profile}"], 1)):
        name = f"privileged-{code}"
        make(engine, name, "chown", "42", "/etc", Privileged=True, SecurityOpt=options)
        assert engine.json("POST", f"/containers/{name}/wait")["StatusCode"] == code


@pytest.mark.parametrize(
    ("options", "privileged", "code"),
    [([], False, 1), (["writable-cgroups=true"], False, 0), (["writable-cgroups"], False, 0),
     (["writable-cgroups=false"], True, 1), ([], True, 0)],
)  # fmt: skip
def test_writable_cgroups(engine: Daemon, options: list[str], privileged: bool, code: int) -> None:
    script = "d=/sys/fs/cgroup/pids; [ -d $d ] || d=/sys/fs/cgroup; mkdir $d/inner && rmdir $d/inner"
    make(engine, "writer", "sh", "-c", script, SecurityOpt=options, Privileged=privileged)
    assert engine.json("POST", "/containers/writer/wait")["StatusCode"] == code


def test_an_option_that_is_nearly_one(engine: Daemon) -> None:
    for option in ("writeable-cgroups=true", "writable-cgroups=1"):
        body = {"Image": "busybox", "HostConfig": {"SecurityOpt": [option]}}
        assert refused(engine, "POST", "/containers/create", body) == (400, f'invalid --security-opt 2: "{option}"')


def test_linked_containers_have_the_links_names(engine: Daemon) -> None:
    make(engine, "data", "sleep", "1000", NetworkMode="bridge")
    make(engine, "front", "sleep", "1000", NetworkMode="bridge", Links=["data:store"])
    filters = quote(json.dumps({"name": ["^/data$"]}))
    found = engine.json("GET", f"/containers/json?filters={filters}")
    assert [container["Names"] for container in found] == [["/data", "/front/store"]]
    engine.json("DELETE", "/containers/front?force=1", expect=204)
    assert engine.json("GET", f"/containers/json?filters={filters}")[0]["Names"] == ["/data"]


def test_annotations_are_listed_since_1_46(engine: Daemon) -> None:
    make(engine, "noted", "true", start=False, Annotations={"foo": "bar"})
    new, old = (engine.json("GET", f"/{version}/containers/json?all=1")[0] for version in ("v1.46", "v1.45"))
    assert (new["HostConfig"].get("Annotations"), old["HostConfig"].get("Annotations")) == ({"foo": "bar"}, None)
    body = {"Image": "busybox", "HostConfig": {"Annotations": {"": "a"}}}
    assert refused(engine, "POST", "/containers/create", body)[0] == 400


def test_processes_of_another_container(engine: Daemon) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"PidMode": "container:nosuch"}}
    assert refused(engine, "POST", "/containers/create", body) == (400, "No such container: nosuch")
    other = make(engine, "asleep", "true", start=False)
    make(engine, "joins", "true", start=False, PidMode="container:asleep")
    words = f"failed to join PID namespace: container {other} is not running"
    assert refused(engine, "POST", "/containers/joins/start") == (500, words)


def test_update_knows_its_client(engine: Daemon) -> None:
    make(engine, "limited", "sleep", "1000", PidsLimit=32)

    def limit(version: str, value: int) -> object:
        engine.json("POST", f"/{version}/containers/limited/update", {"PidsLimit": value})
        return engine.json("GET", "/containers/limited/json")["HostConfig"]["PidsLimit"]

    assert limit("v1.39", 16) == 32  # it could not mean it
    assert limit("v1.51", 16) == 16
    assert limit("v1.51", -1) in (0, None)


def test_a_working_directory_is_kept_clean(engine: Daemon) -> None:
    make(engine, "there", "true", start=False, config={"WorkingDir": "/tmp/../tmp/"})
    assert engine.json("GET", "/containers/there/json")["Config"]["WorkingDir"] == "/tmp"


def test_one_network_before_1_44(engine: Daemon) -> None:
    body = {"Image": "busybox", "NetworkingConfig": {"EndpointsConfig": {"one": {}, "two": {}}}}
    status, words = refused(engine, "POST", "/v1.43/containers/create", body)
    assert (status, words) == (400, "Container cannot be created with multiple network endpoints: one, two")
    assert engine.request("POST", "/v1.44/containers/create", body=json.dumps(body).encode(), headers=JSON)[0] == 201


def test_a_check_that_is_cut_off_shows_what_it_said(engine: Daemon) -> None:
    check = {"Test": ["CMD", "sh", "-c", "echo one two; sleep 60"], "Interval": 100_000_000, "Timeout": 50_000_000}
    make(engine, "slow", "sleep", "1000", config={"Healthcheck": check | {"Retries": 1}})
    engine.request("POST", "/containers/slow/wait?condition=healthy")  # ends with an error: it fails for good
    deadline = time.monotonic() + 20
    while not (log := engine.json("GET", "/containers/slow/json")["State"]["Health"]["Log"]):
        assert time.monotonic() < deadline
    assert log[-1]["Output"].startswith("Health check exceeded timeout (50ms)")
    assert any("one two" in entry["Output"] for entry in log) or len(log) < 3


def test_null_is_nothing_to_a_build(engine: Daemon) -> None:
    """Go's clients write the arguments they were not given as null."""
    query = "dockerfile=Dockerfile&buildargs=null&labels=null&ulimits=null&cachefrom=null"
    status, text = engine.request("POST", f"/build?{query}", body=b"", headers={"Content-Type": "application/x-tar"})
    assert b"invalid JSON" not in text, (status, text)


# Found by the tests of python-on-whales, which type what people type.


def test_an_image_is_pruned_together_with_those_made_from_it(engine: Daemon) -> None:
    make(engine, "parent", "true", start=False, config={"Labels": {"old": ""}})
    first = engine.json("POST", "/commit?container=parent&repo=first", expect=201)["Id"]
    engine.json("POST", "/containers/create?name=child", {"Image": "first"}, expect=201)
    second = engine.json("POST", "/commit?container=child&repo=second", expect=201)["Id"]
    for name in ("parent", "child"):
        engine.json("DELETE", f"/containers/{name}", expect=204)
    filters = quote(json.dumps({"dangling": ["false"], "label": ["old"]}))
    deleted = [
        entry.get("Deleted") for entry in engine.json("POST", f"/images/prune?filters={filters}")["ImagesDeleted"]
    ]
    assert [image for image in deleted if image in (first, second)] == [second, first]


def test_system_prune_by_label_leaves_the_cache_of_builds(engine: Daemon) -> None:
    context = tar_of({"Dockerfile": b"FROM busybox\nRUN echo kept\n"})
    engine.request("POST", "/build?q=1", body=context, headers={"Content-Type": "application/x-tar"})
    before = len(engine.json("GET", "/system/df?type=build-cache")["BuildCache"])
    filters = quote(json.dumps({"label": ["dne"]}))
    assert before
    assert engine.json("POST", f"/build/prune?all=1&filters={filters}") == {"CachesDeleted": None, "SpaceReclaimed": 0}
    assert len(engine.json("GET", "/system/df?type=build-cache")["BuildCache"]) == before
    engine.json("POST", "/build/prune?all=1")
    assert engine.json("GET", "/system/df?type=build-cache")["BuildCache"] == []


def test_events_up_to_a_time(engine: Daemon) -> None:
    """Without a beginning: those that are remembered."""
    made = make(engine, "seen", "true", start=False)
    filters = quote(json.dumps({"container": ["seen"]}))
    status, lines = engine.request("GET", f"/events?until={time.time():.6f}&filters={filters}")
    assert status == 200
    found = [json.loads(line) for line in lines.splitlines()]
    assert [(event["Action"], event["id"]) for event in found] == [("create", made)]
