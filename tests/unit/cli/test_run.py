from __future__ import annotations

from typing import Any

from tare.cli.run import exit_status, familiar, normalized


def test_names() -> None:
    assert [familiar(name) for name in ("a", "a:1", "h:5/a", "a@sha256:x")] == [
        ("a", "latest"), ("a", "1"), ("h:5/a", "latest"), ("a", "sha256:x"),
    ]  # fmt: skip
    assert [normalized(name) for name in ("a", "a/b", "h:5/a", "docker.io/a")] == [
        "docker.io/library/a", "docker.io/a/b", "h:5/a", "docker.io/library/a",
    ]  # fmt: skip


def test_create_fetches_a_missing_image(engine: Any, tare: Any) -> None:
    engine.answers["POST /containers/create"] = (404, {"message": "No such image: a:latest"})
    engine.answers["POST /images/create"] = (200, {"status": "got it"})
    code, out, err = tare("create", "a")
    assert (code, out) == (1, "")
    assert (
        err == "Unable to find image 'a:latest' locally\ngot it\nError response from daemon: No such image: a:latest\n"
    )
    assert [method_and_path[1].partition("?")[0] for method_and_path in engine.requests] == [
        "/containers/create", "/images/create", "/containers/create",
    ]  # fmt: skip


def test_detached_prints_the_id_and_writes_the_cidfile(engine: Any, tare: Any, tmp_path: Any) -> None:
    engine.answers["POST /containers/create"] = (201, {"Id": "c1", "Warnings": ["careful"]})
    engine.answers["POST /containers/c1/start"] = (204, b"")
    cidfile = tmp_path / "cid"
    assert tare("run", "-d", "--cidfile", str(cidfile), "a") == (0, "c1\n", "WARNING: careful\n")
    assert cidfile.read_text() == "c1"
    assert tare("run", "-d", "--cidfile", str(cidfile), "a")[0] == 125


def test_a_failed_start_has_its_code(engine: Any, tare: Any) -> None:
    engine.answers["POST /containers/create"] = (201, {"Id": "c1"})
    engine.answers["POST /containers/c1/start"] = (400, {"message": 'exec: "x": executable file not found in $PATH'})
    code, _, err = tare("run", "-d", "a", "x")
    assert code == 127
    assert err.endswith("\n\nRun 'tare run --help' for more information\n")


def test_exit_status() -> None:
    assert exit_status(None, {"StatusCode": 3}) == 3  # type: ignore[arg-type]
