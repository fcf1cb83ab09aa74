from __future__ import annotations

import base64
import io
import json
import socket
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tare.cli import build
from tare.cli.exit import Exit

DONE = [
    {"stream": "Step 1/1 : FROM x\n"},
    {"aux": {"ID": "sha256:abc"}},
    {"stream": "Successfully built abc\n"},
]


def lines(*messages: dict[str, Any]) -> tuple[int, bytes]:
    return 200, b"".join(json.dumps(message).encode() + b"\r\n" for message in messages)


def query(engine: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(engine.requests[-1][1]).query)


def header(engine: Any, name: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(engine.received[-1][name]))


def sent(engine: Any) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(engine.requests[-1][2])) as archive:
        return archive.getnames()


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration directory of the test's own, so that nobody's credentials are sent."""
    (tmp_path / "config").mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def context(tmp_path: Path, engine: Any) -> str:
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM x\n")
    engine.answers["POST /build"] = lines(*DONE)
    return str(tmp_path / "context")


# -- flags


def test_a_plain_build(engine: Any, tare: Any, context: str) -> None:
    wanted = "Sending build context to Docker daemon  2.048kB\nStep 1/1 : FROM x\nSuccessfully built abc\n"
    assert tare("build", context) == (0, wanted, "")
    assert engine.requests[-1][1] == "/build?dockerfile=Dockerfile&version=1"
    assert sent(engine) == ["Dockerfile"]
    assert engine.received[-1]["content-type"] == "application/x-tar"
    assert header(engine, "x-registry-config") == {}
    assert "x-tare-secrets" not in engine.received[-1]
    assert tare("image", "build", context)[0] == tare("builder", "build", context)[0] == 0


def test_every_flag_has_its_place_in_the_query(
    engine: Any, tare: Any, context: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_HERE", "there")
    words = (
        "-q -t a:1 --tag b --build-arg A=1 --build-arg FROM_HERE --build-arg NOWHERE --label x=y --label z"
        " --ulimit nofile=1:2 --ulimit core=0 --cache-from a,b --cache-from c --add-host h=1.2.3.4 --network host -m 1g"
        " --memory-swap -1 --shm-size 1m -c 5 --cpuset-cpus 0 --cpuset-mems 1 --cpu-period 7 --cpu-quota 8"
        " --cgroup-parent g --pull --no-cache --rm=false --force-rm --security-opt s --isolation i"
        " --platform linux/AMD64 --target t --squash --no-cache-filter s1,s2 --no-cache-filter s3"
        " --build-context base=docker-image://alpine:3 --disable-content-trust=false"
    )
    assert tare("build", *words.split(), context) == (0, "sha256:abc\n", "")
    found = query(engine)
    for name in ("buildargs", "labels", "ulimits", "cachefrom", "contexts"):
        found[name] = [json.loads(found[name][0])]
    assert found == {
        "version": ["1"],
        "dockerfile": ["Dockerfile"],
        "q": ["1"],
        "t": ["a:1", "b"],
        "buildargs": [{"A": "1", "FROM_HERE": "there", "NOWHERE": None}],
        "labels": [{"x": "y", "z": ""}],
        "ulimits": [[{"Name": "core", "Hard": 0, "Soft": 0}, {"Name": "nofile", "Hard": 2, "Soft": 1}]],
        "cachefrom": [["a", "b", "c"]],
        "extrahosts": ["h:1.2.3.4"],
        "networkmode": ["host"],
        "memory": ["1073741824"],
        "memswap": ["-1"],
        "shmsize": ["1048576"],
        "cpushares": ["5"],
        "cpusetcpus": ["0"],
        "cpusetmems": ["1"],
        "cpuperiod": ["7"],
        "cpuquota": ["8"],
        "cgroupparent": ["g"],
        "pull": ["1"],
        "nocache": ["1"],
        "rm": ["0"],
        "forcerm": ["1"],
        "squash": ["1"],
        "securityopt": ["s"],
        "isolation": ["i"],
        "platform": ["linux/amd64"],
        "target": ["t"],
        "nocachefilter": ["s1", "s2", "s3"],
        "contexts": [{"base": "alpine:3"}],
    }


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["-t", "A:b"],
            'invalid argument "A:b" for "-t, --tag" flag: invalid reference format:'
            " repository name (library/A) must be lowercase",
        ),
        (["--label", "=x"], 'invalid argument "=x" for "--label" flag: invalid label \'=x\': empty name'),
        (["--build-arg", "=x"], 'invalid argument "=x" for "--build-arg" flag: invalid environment variable: =x'),
        (["--ulimit", "x"], 'invalid argument "x" for "--ulimit" flag: invalid ulimit argument: x'),
        (["--add-host", "x"], 'invalid argument "x" for "--add-host" flag: bad format for add-host: "x"'),
        (["-m", "x"], 'invalid argument "x" for "-m, --memory" flag: invalid size: \'x\''),
    ],
)
def test_a_flag_that_cannot_be_read(tare: Any, engine: Any, words: list[str], text: str) -> None:
    code, _, said = tare("build", *words, ".")
    assert (code, said.splitlines()[0]) == (125, text)
    assert engine.requests == []


def test_named_contexts_are_images_urls_and_directories(tmp_path: Path) -> None:
    query, sent = build.named_contexts(
        [f"dir={tmp_path}", "img=docker-image://alpine:3", "git=https://h.example/x.git#v1"]
    )
    assert (query["img"], query["git"]) == ("alpine:3", "https://h.example/x.git#v1")
    assert list(sent.values()) == [str(tmp_path)]
    assert query["dir"] == f"local:{next(iter(sent))}"
    for wrong, said in (
        ("src=./nowhere", "is no directory"), ("src", "expected key=value"), ("a=oci-layout://x", "load the layout"),
        ("a=docker-image://", "REFERENCE"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            build.named_contexts([wrong])


def test_agents_are_sockets_or_keys(tmp_path: Path) -> None:
    key, path = tmp_path / "key", tmp_path / "socket"
    key.write_text("x")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        own = {"SSH_AUTH_SOCK": str(path)}
        assert build.agents_of(["default"], own) == ({"default": str(path)}, {})
        assert build.agents_of([f"a={path}", f"b={key},{key}"], {}) == ({"a": str(path)}, {"b": [str(key)] * 2})
        for wrong in (["default"], [f"a={path},{key}"], [f"a={path}", f"a={path}"], ["a=/nowhere"]):
            with pytest.raises(ValueError):
                build.agents_of(wrong, {})


# -- secrets


def test_secrets_are_sent_in_a_header(
    engine: Any, tare: Any, context: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_bytes(b"\x00\xff")
    monkeypatch.setenv("TOKEN", "t0")
    secrets = [f"id=a,src={tmp_path}/key", "id=b,env=TOKEN", "id=TOKEN", "type=env,id=c,source=TOKEN"]
    words = [word for secret in secrets for word in ("--secret", secret)]
    assert tare("build", *words, context)[0] == 0
    found = {name: base64.b64decode(value) for name, value in header(engine, "x-tare-secrets").items()}
    assert found == {"a": b"\x00\xff", "b": b"t0", "TOKEN": b"t0", "c": b"t0"}
    assert "t0" not in engine.requests[-1][1]


def test_a_secret_without_id_is_named_after_its_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"k")
    assert build.read_secret(f"src={tmp_path}/key", {}) == ("key", b"k")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("id=a,src=/nosuch/file", "secret a: open /nosuch/file: no such file or directory"),
        ("id=a,env=NOWHERE", "secret a: the environment has no NOWHERE"),
        ("id=a,x=y", "unexpected key 'x' in 'x=y'"),
        ("id", "invalid field 'id' must be a key=value pair"),
        ("type=ssh,id=a", "unsupported secret type 'ssh'"),
        ("type=file", "secret 'type=file' has no id"),
    ],
)
def test_a_secret_that_cannot_be_read(text: str, wrong: str) -> None:
    with pytest.raises(ValueError) as caught:
        build.read_secret(text, {})
    assert str(caught.value) == wrong


def test_secrets_have_a_limit(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(build.MAX_SECRETS + 1))
    with pytest.raises(ValueError, match="longer than"):
        build.read_secret(f"id=a,src={tmp_path}/big", {})
    environ = {"A": "a" * 20000, "B": "b" * 20000}
    with pytest.raises(ValueError, match="the secrets are too long"):
        build.secrets_header(["id=A", "id=B"], environ)


# -- the context


def test_credentials_of_all_registries_go_along(engine: Any, tare: Any, context: str, config: Path) -> None:
    auth = base64.b64encode(b"u:p").decode()
    auths = {"https://index.docker.io/v1/": {"auth": auth}, "h:5": {"identitytoken": "t"}, "none": {}}
    (config / "config.json").write_text(json.dumps({"auths": auths}))
    assert tare("build", context)[0] == 0
    assert header(engine, "x-registry-config") == {
        "https://index.docker.io/v1/": {
            "serveraddress": "https://index.docker.io/v1/",
            "username": "u",
            "password": "p",
        },
        "h:5": {"serveraddress": "h:5", "identitytoken": "t"},
    }


def test_a_helper_that_fails_is_a_warning(engine: Any, tare: Any, context: str, config: Path) -> None:
    (config / "config.json").write_text(json.dumps({"credHelpers": {"h:5": "nosuchhelper"}}))
    code, _, said = tare("build", context)
    assert (code, said.startswith("WARNING: error getting credentials: docker-credential-nosuchhelper")) == (0, True)


def test_a_context_on_stdin(engine: Any, tare: Any, context: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"FROM y\n")
    assert tare("build", "-")[0] == 0
    assert (sent(engine), query(engine)["dockerfile"]) == (["Dockerfile"], ["Dockerfile"])

    archive = engine.requests[-1][2]
    stdin(monkeypatch, archive)
    assert tare("build", "-")[0] == 0
    assert engine.requests[-1] == ("POST", "/build?version=1", archive)
    stdin(monkeypatch, archive)
    assert tare("build", "-f", "d/D", "-")[0] == 0
    assert query(engine)["dockerfile"] == ["d/D"]

    stdin(monkeypatch, b"FROM y\n")
    assert "ambiguous Dockerfile source" in tare("build", "-f", "D", "-")[2]
    assert tare("build", "-f", "-", "-") == (
        1,
        "",
        "invalid argument: can't use stdin for both build context and dockerfile\n",
    )


def test_a_dockerfile_on_stdin(engine: Any, tare: Any, context: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"FROM y\n")
    assert tare("build", "-f", "-", "--compress", context)[0] == 0
    assert query(engine)["dockerfile"][0] == sent(engine)[-1]
    assert engine.requests[-1][2].startswith(b"\x1f\x8b")


def test_a_context_elsewhere(engine: Any, tare: Any, context: str) -> None:
    assert tare("build", "-f", "d/D", "git@h:a/b.git#c:d")[:2] == (0, "Step 1/1 : FROM x\nSuccessfully built abc\n")
    found = ("POST", "/build?dockerfile=d%2FD&remote=git%40h%3Aa%2Fb.git%23c%3Ad&version=1", None)
    assert engine.requests[-1] == found
    assert tare("build", "-f", "-", "git@h:a/b.git")[0] == 1
    nowhere = f"{context}/nosuch"
    assert tare("build", nowhere) == (1, "", f'unable to prepare context: path "{nowhere}" not found\n')


def test_a_file_that_changes_while_it_is_sent(
    engine: Any, tare: Any, context: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tare.cli import buildcontext

    def broken(_: object) -> Any:
        yield b"x" * 512
        raise Exit(1, "cannot send /x: it was replaced meanwhile")

    monkeypatch.setattr(buildcontext, "pack", broken)
    assert tare("build", context) == (1, "", "cannot send /x: it was replaced meanwhile\n")


# -- the answer


def test_a_failed_run_gives_its_exit_code(engine: Any, tare: Any, context: str) -> None:
    wrong = "The command '/bin/sh -c exit 3' returned a non-zero code: 3"
    failed = {"errorDetail": {"code": 3, "message": wrong}, "error": wrong}
    engine.answers["POST /build"] = lines(DONE[0], failed)
    code, out, said = tare("build", context)
    assert (code, out.splitlines()[-1], said) == (3, "Step 1/1 : FROM x", f"{wrong}\n")
    assert tare("build", "-q", context) == (3, "", f"Step 1/1 : FROM x\n{wrong}\n")
    engine.answers["POST /build"] = lines({"errorDetail": {"message": "no"}, "error": "no"})
    assert tare("build", "-q", context)[0] == 1
    engine.answers["POST /build"] = (400, {"message": "dockerfile parse error line 2: unknown instruction: RUNN"})
    assert tare("build", "-q", context)[2] == (
        "Error response from daemon: dockerfile parse error line 2: unknown instruction: RUNN\n"
    )


@pytest.mark.parametrize(("code", "wanted"), [(3, 3), (255, 255), (256, 1), (0, 1), (-1, 1), ("x", 1), (401, 1)])
def test_exit_codes(code: Any, wanted: int) -> None:
    with pytest.raises(Exit) as caught:
        build.fail({"errorDetail": {"code": code, "message": "m"}})
    assert caught.value.code == wanted


def test_progress_of_a_pull_stands_between_the_steps(engine: Any, tare: Any, context: str) -> None:
    pulled = [{"status": "Pulling from library/x", "id": "1"}, {"status": "Done"}]
    engine.answers["POST /build"] = lines(DONE[0], *pulled, {"stream": "a\x1b[91mb\n"}, *pulled[1:])
    wanted = "Step 1/1 : FROM x\n1: Pulling from library/x\nDone\na\x1b[91mb\nDone\n"
    assert tare("build", context)[1].partition("\n")[2] == wanted


def test_quiet_without_aux_takes_the_last_line(engine: Any, tare: Any, context: str) -> None:
    engine.answers["POST /build"] = lines({"stream": "sha256:def\n"})
    assert tare("build", "-q", context) == (0, "sha256:def\n", "")


def test_files_about_the_image(engine: Any, tare: Any, context: str, tmp_path: Path) -> None:
    ids, meta = tmp_path / "id", tmp_path / "meta"
    flags = ("--iidfile", str(ids), "--metadata-file", str(meta))
    assert tare("build", *flags, "-t", "a", "-t", "h:5/b:1", context)[0] == 0
    assert ids.read_text() == "sha256:abc"
    assert json.loads(meta.read_text()) == {
        "containerimage.config.digest": "sha256:abc",
        "image.name": "docker.io/library/a:latest,h:5/b:1",
    }
    engine.answers["POST /build"] = (500, {"message": "no"})
    assert tare("build", *flags, context)[0] == 1
    assert not ids.exists()
    assert not meta.exists()
    engine.answers["POST /build"] = lines(DONE[0])
    assert tare("build", *flags, context)[2] == f"server did not provide an image ID. Cannot write {ids}\n"
    assert tare("build", "--iidfile", "/nosuch/id", context)[0] == 1
