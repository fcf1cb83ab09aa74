"""pack, unpack and send against canned engines: what they ask, and what they do when something fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DONE = {"aux": {"ID": "d" * 64, "Name": "web", "Running": True}}
WEB = {"Id": "c" * 64, "Name": "/web", "State": {"Running": True}, "HostConfig": {"AutoRemove": False}}
LAYERS = [
    {"Digest": "sha256:1", "Size": 5, "ChainID": "sha256:a"},
    {"Digest": "sha256:2", "Size": 5, "ChainID": "sha256:b"},
    {"Digest": "sha256:3", "Size": 5, "ChainID": "sha256:c"},
]


def asked(engine: Any) -> list[str]:
    return [f"{method} {target}" for method, target, _ in engine.requests]


def test_pack(engine: Any, tare: Any, tmp_path: Path) -> None:
    engine.answers["GET /tare/v1/containers/web/pack"] = (200, b"archive")
    assert tare("pack", "web") == (0, "archive", "")
    assert asked(engine)[-1] == "GET /tare/v1/containers/web/pack?volumes=all"
    out = str(tmp_path / "web.tar")
    assert tare("pack", "--logs", "--stop", "--volumes", "a,b", "web", "-o", out) == (0, "", "")
    assert (tmp_path / "web.tar").read_bytes() == b"archive"
    assert asked(engine)[-1] == "GET /tare/v1/containers/web/pack?logs=1&stop=1&volumes=a%2Cb"
    assert tare("pack", "--stop", "--pause", "web") == (1, "", "--pause and --stop exclude each other\n")


def test_unpack(engine: Any, tare: Any, tmp_path: Path) -> None:
    path = "POST /tare/v1/containers/unpack"
    (tmp_path / "x.tar").write_bytes(b"tar")
    engine.answers[path] = (200, b'{"status":"Verifying the container"}\r\n' + json.dumps(DONE).encode() + b"\r\n")
    assert tare("unpack", "-i", str(tmp_path / "x.tar")) == (0, "d" * 64 + "\n", "Verifying the container\n")
    assert engine.requests[-1] == ("POST", "/tare/v1/containers/unpack", b"tar")
    code, _, _ = tare(
        "unpack", "-i", str(tmp_path / "x.tar"), "--name", "n", "--no-start", "--replace", "--replace-volumes"
    )
    assert code == 0
    assert asked(engine)[-1] == f"{path}?name=n&replace=1&replacevolumes=1&start=0"
    engine.answers[path] = (200, {"errorDetail": {"message": "no"}, "error": "no"})
    assert tare("unpack", "-i", str(tmp_path / "x.tar")) == (1, "", "no\n")
    assert tare("unpack", "-i", str(tmp_path / "none"))[0] == 1


def prepare(engine: Any) -> None:
    """One engine plays both ends."""
    engine.answers.update(
        {
            "GET /tare/v1/containers/web/layers": (200, LAYERS),
            "POST /tare/v1/missing": (200, {"Missing": ["sha256:2", "sha256:b", "sha256:3"]}),
            "GET /containers/web/json": (200, WEB),
            "GET /containers/two/json": (404, {"message": "No such container: two"}),
            f"GET /tare/v1/containers/{'c' * 64}/pack": (200, b"archive"),
            "POST /tare/v1/containers/unpack": (200, DONE),
            f"DELETE /containers/{'c' * 64}": (204, b""),
            f"POST /containers/{'c' * 64}/start": (204, b""),
        }
    )


def test_send_leaves_out_what_is_there(engine: Any, tare: Any) -> None:
    prepare(engine)
    code, out, err = tare("send", "--name", "two", "web", engine.host)
    assert (code, out) == (0, "d" * 64 + "\n")
    assert err == "3 layers, 2 of them there already\nsent 7B\n"
    pack = next(line for line in asked(engine) if "/pack" in line)
    assert pack.endswith("/pack?volumes=all&without=sha256%3A1%2Csha256%3A3")
    assert ("POST", "/tare/v1/containers/unpack?name=two", b"archive") in engine.requests
    assert not any(line.startswith("DELETE") for line in asked(engine))


def test_send_removes_only_what_arrived(engine: Any, tare: Any) -> None:
    prepare(engine)
    assert tare("send", "--remove", "--name", "two", "web", engine.host)[0] == 0
    assert asked(engine)[-1] == f"DELETE /containers/{'c' * 64}?force=1"
    assert "stop=1" in next(line for line in asked(engine) if "/pack" in line)
    engine.requests.clear()
    engine.answers["POST /tare/v1/containers/unpack"] = (200, {"errorDetail": {"message": "full"}})
    code, out, err = tare("send", "--remove", "--name", "two", "web", engine.host)
    assert (code, out) == (1, "")
    assert err.endswith("it was started again here\nfull\n")
    assert not any(line.startswith("DELETE") for line in asked(engine))


def test_send_says_a_taken_name_before_anything_stops(engine: Any, tare: Any) -> None:
    prepare(engine)
    code, _, err = tare("send", "--stop", "web", engine.host)
    assert code == 1
    assert "there is a container web at" in err
    assert not any("/pack" in line for line in asked(engine))


def test_send_to_what_is_no_engine_of_ours(engine: Any, tare: Any) -> None:
    prepare(engine)
    engine.answers["POST /tare/v1/missing"] = (404, {"message": "page not found"})
    assert tare("send", "web", engine.host)[2] == f"{engine.host} is no tare engine, or an older one\n"
    assert "neither an address" in tare("send", "web", "nosuchcontext")[2]
