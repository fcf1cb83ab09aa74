"""CDI: what files may say, which devices names and GPUs mean, what is added to a container."""

from __future__ import annotations

from typing import Any

import pytest

from tare.base.errors import InvalidArgument
from tare.containers.cdi import Edits, Known, Node, Spec, apply, edits_of, names_of, parse
from tare.wire.config import DeviceRequest


def document(**changes: Any) -> dict[str, Any]:
    return {"cdiVersion": "0.6.0", "kind": "vendor.com/net", "devices": [{"name": "eth0"}]} | changes


def spec(
    kind: str, *devices: str, path: str = "/etc/cdi/a.json", priority: int = 0, common: Edits | None = None
) -> Spec:
    edits = {name: Edits(env=(f"D={name}",)) for name in devices}
    return Spec(path=path, kind=kind, priority=priority, common=common or Edits(), devices=edits)


def test_everything_a_file_may_say() -> None:
    edits = {
        "env": ["A=1"],
        "deviceNodes": [{"path": "/dev/v", "hostPath": "/dev/zero", "type": "u", "permissions": "rw", "uid": 3, "fileMode": 432}],
        "mounts": [{"hostPath": "/h", "containerPath": "/c", "options": ["bind"]}, {"hostPath": "t", "containerPath": "/t", "type": "tmpfs"}],
        "hooks": [{"hookName": "createContainer", "path": "/bin/x", "args": ["x", "y"], "env": ["B=2"], "timeout": 3}],
        "additionalGids": [5],
    }  # fmt: skip
    found = parse(
        document(devices=[{"name": "eth0", "containerEdits": edits}], containerEdits={"env": ["C="]}),
        path="p",
        priority=1,
    )
    assert (found.kind, found.priority, found.common) == ("vendor.com/net", 1, Edits(env=("C=",)))
    assert found.devices["eth0"] == Edits(
        env=("A=1",),
        nodes=(Node(path="/dev/v", host_path="/dev/zero", kind="c", access="rw", uid=3, mode=432),),
        mounts=(
            {"destination": "/c", "type": "bind", "source": "/h", "options": ["bind"]},
            {"destination": "/t", "type": "tmpfs", "source": "t", "options": ["ro", "nosuid", "nodev", "bind"]},
        ),
        hooks=(("createContainer", {"path": "/bin/x", "args": ["x", "y"], "env": ["B=2"], "timeout": 3}),),
        gids=(5,),
    )


def with_edits(**edits: Any) -> dict[str, Any]:
    return document(containerEdits=edits)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "the file is not an object"),
        ({}, "cdiVersion is missing"),
        (document(cdiVersion="9.0.0"), "unknown cdiVersion"),
        (document(kind="vendor"), "invalid kind"),
        (document(kind="-v/c"), "invalid kind"),
        (document(devices=[]), "no devices"),
        (document(devices={}), "devices is not a list"),
        (document(devices=[{"name": "a b"}]), "invalid device name"),
        (document(devices=[{"name": "a"}, {"name": "a"}]), "is there twice"),
        (with_edits(env=["A"]), "invalid variable"),
        (with_edits(env=[1]), "a variable is not a text"),
        (with_edits(deviceNodes=[{"path": "dev"}]), "is not absolute"),
        (with_edits(deviceNodes=[{"path": "/d", "type": "x"}]), "invalid device node"),
        (with_edits(deviceNodes=[{"path": "/d", "permissions": "z"}]), "invalid device node"),
        (with_edits(deviceNodes=[{"path": "/d", "major": -1}]), "major is not a number"),
        (with_edits(mounts=[{"containerPath": "/c"}]), "hostPath is missing"),
        (with_edits(hooks=[{"hookName": "no", "path": "/x"}]), "invalid hook"),
        (with_edits(additionalGids=[True]), "additionalGids is not a number"),
    ],
)
def test_what_a_file_may_not_say(wrong: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        parse(wrong, path="p", priority=0)


def request(**given: Any) -> DeviceRequest:
    return DeviceRequest(**({"Capabilities": [["gpu"]]} | given))


KNOWN = Known((spec("nvidia.com/gpu", "0", "1", "10", "GPU-abc", "all"), spec("vendor.com/net", "eth0", path="/b")))


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (request(Driver="cdi", DeviceIDs=["vendor.com/net=eth0"]), ["vendor.com/net=eth0"]),
        (request(Count=-1), ["nvidia.com/gpu=all"]),
        (request(Count=2), ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]),
        (request(DeviceIDs=["GPU-abc"]), ["nvidia.com/gpu=GPU-abc"]),
        (request(Driver="nvidia", Count=1), ["nvidia.com/gpu=0"]),
    ],
)
def test_what_requests_mean(asked: DeviceRequest, names: list[str]) -> None:
    assert names_of([asked, asked], KNOWN) == names


@pytest.mark.parametrize(
    ("asked", "known", "message"),
    [
        (request(Count=-1), Known(), 'could not select device driver "" with capabilities: \\[\\[gpu\\]\\]'),
        (request(Driver="amd", Count=1), KNOWN, 'could not select device driver "amd"'),
        (request(Driver="other", Count=1), KNOWN, 'could not select device driver "other"'),
        (request(Capabilities=[["tpu"]], Count=1), KNOWN, "with capabilities: \\[\\[tpu\\]\\]"),
        (request(Count=9), KNOWN, "could not select 9 devices of nvidia.com/gpu: there are 3"),
        (request(Count=1, DeviceIDs=["0"]), KNOWN, "cannot set both Count and DeviceIDs"),
    ],
)
def test_what_cannot_be_had(asked: DeviceRequest, known: Known, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        names_of([asked], known)


def test_an_unknown_device_is_refused_with_what_there_is() -> None:
    known = Known(KNOWN.specs[1:], {"/etc/cdi/bad.json": "no devices"})
    with pytest.raises(InvalidArgument) as error:
        edits_of(["vendor.com/net=eth0", "vendor.com/net=eth9"], known)
    assert error.value.message == "CDI device injection failed: unresolvable CDI devices vendor.com/net=eth9"
    assert error.value.hint == "known devices: vendor.com/net=eth0; /etc/cdi/bad.json: no devices"


def test_common_edits_come_once_and_later_directories_win() -> None:
    common = Edits(env=("COMMON=1",))
    low = spec("v.com/c", "a", "b", common=common)
    high = spec("v.com/c", "b", path="/var/run/cdi/x", priority=1)
    assert edits_of(["v.com/c=a"], Known((low, high))).env == ("COMMON=1", "D=a")
    assert edits_of(["v.com/c=b"], Known((low, high))).env == ("D=b",)
    assert edits_of(["v.com/c=a", "v.com/c=b"], Known((low,))).env == ("COMMON=1", "D=a", "D=b")
    with pytest.raises(InvalidArgument, match="conflicting device"):
        edits_of(["v.com/c=b"], Known((low, spec("v.com/c", "b", path="/etc/cdi/z"))))


def test_what_is_added() -> None:
    config: dict[str, Any] = {
        "process": {"env": ["A=old", "B=2"], "user": {"uid": 7, "gid": 8, "additionalGids": [8]}},
        "mounts": [{"destination": "/c", "source": "old"}],
        "linux": {"devices": [{"path": "/dev/v"}], "resources": {"devices": [{"allow": False, "access": "rwm"}]}},
    }
    edits = Edits(
        env=("A=new",),
        nodes=(Node(path="/dev/v", access="r"),),
        mounts=({"destination": "/c", "source": "new", "type": "bind", "options": []},),
        hooks=(("prestart", {"path": "/x"}),),
        gids=(0, 8, 9),
    )
    apply(
        config,
        edits,
        lambda node: {"path": node.path, "type": "c", "major": 1, "minor": 5, "fileMode": 438, "uid": 0, "gid": 0},
    )
    assert config["process"] == {"env": ["B=2", "A=new"], "user": {"uid": 7, "gid": 8, "additionalGids": [8, 9]}}
    assert [mount["source"] for mount in config["mounts"]] == ["new"]
    assert config["linux"]["devices"] == [
        {"path": "/dev/v", "type": "c", "major": 1, "minor": 5, "fileMode": 438, "uid": 7, "gid": 8}
    ]
    assert config["linux"]["resources"]["devices"][-1] == {
        "allow": True,
        "access": "r",
        "type": "c",
        "major": 1,
        "minor": 5,
    }
    assert config["hooks"] == {"prestart": [{"path": "/x"}]}
