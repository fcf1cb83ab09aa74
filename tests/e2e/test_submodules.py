"""Repositories inside of repositories, as contexts and in ADD, from a real git server on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tare.build.gitref import parse_git
from tare.engine.builds import repository
from tare.testing.daemon import Daemon
from tare.testing.gitserver import GitServer, git_server

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def own(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    engine = Daemon(scratch / "sub", bridge="ttsub0", source=REPOSITORY / "src", arguments=["--allow-private-sources"])
    engine.start()
    try:
        engine.import_image("busybox:latest", rootfs_tar, changes=['CMD ["sh"]'])
        yield engine
    finally:
        engine.destroy()


@pytest.fixture(autouse=True)
def nothing_left(own: Daemon) -> Iterator[None]:
    yield
    assert own.json("GET", "/containers/json?all=1") == []
    assert os.listdir(own.data_root / "builds") == []
    assert os.listdir(own.data_root / "ingest") == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    """`app` has `lib` at vendor/lib by a relative URL, at an old commit; `lib` has `deep` at in/deep by a whole URL."""
    with git_server(tmp_path) as made:
        deep = made.commit("deep", {"deepest": "of deep\n"})
        made.commit("lib", {"of-lib": "old\n"})
        old = made.add_submodule("lib", "in/deep", url=made.url("deep"), commit=deep)
        made.commit(
            "app",
            {
                "Dockerfile": "FROM busybox\nCOPY . /src\nRUN cd /src && find . -type f | sort && cat $(find . -name 'of-*')\n"
            },
        )
        made.add_submodule("app", "vendor/lib", url="../lib.git", commit=old)
        made.git("lib", "rm", "-q", "--cached", "in/deep")
        made.git("lib", "commit", "-q", "-m", "without")
        made.commit("lib", {"of-lib": "new\n"})
        yield made


def remote(engine: Daemon, url: str, **query: str) -> tuple[int, str]:
    status, body = engine.request("POST", f"/v1.51/build?{urlencode({'remote': url, 'nocache': '1', **query})}")
    return status, body.decode()


def add(engine: Daemon, tmp_path: Path, *lines: str, code: int = 0) -> str:
    context = tmp_path / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text("\n".join(("FROM busybox", *lines, "")))
    done = subprocess.run(
        [sys.executable, "-m", "tare.cli", "-H", engine.host, "build", "--provenance=true", f"--metadata-file={tmp_path}/m", str(context)],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_context_has_its_submodules_at_their_commits(own: Daemon, server: GitServer) -> None:
    status, said = remote(own, server.url("app"))
    assert status == 200
    texts = "".join(json.loads(line).get("stream", "") for line in said.splitlines())
    assert (
        "./.gitmodules\n./Dockerfile\n./vendor/lib/.gitmodules\n./vendor/lib/in/deep/deepest\n./vendor/lib/of-lib\nold\n"
        in texts
    )
    _, said = remote(own, f"{server.url('app')}?submodules=false")
    assert "of-lib" not in said
    status, said = remote(own, f"{server.url('app')}#main:vendor/lib", dockerfile="in/deep/deepest")
    assert "unknown instruction: of" in said.lower(), "a directory of the context can be inside of a submodule"


def test_add_takes_them_along_and_keys_say_so(own: Daemon, server: GitServer, tmp_path: Path) -> None:
    url = server.url("app")
    said = add(own, tmp_path, f"ADD {url} /app", "RUN find /app -type f | sort; find /app -name .git")
    assert "/app/vendor/lib/in/deep/deepest\n/app/vendor/lib/of-lib\n" in said
    assert "/.git\n" not in said
    read = json.loads((tmp_path / "m").read_text())["buildx.build.provenance"]["buildDefinition"][
        "resolvedDependencies"
    ]
    assert {server.url(name) for name in ("app", "lib", "deep")} <= {entry["uri"] for entry in read}
    assert "Using cache" in add(own, tmp_path, f"ADD {url} /app")
    without = add(own, tmp_path, f"ADD {url}?submodules=false /app", "RUN find /app -type f | sort")
    assert "Using cache" not in without
    assert "of-lib" not in without


def test_their_git_directories_are_kept_when_that_is_wanted(own: Daemon, server: GitServer, tmp_path: Path) -> None:
    said = add(
        own, tmp_path, f"ADD --keep-git-dir {server.url('app')} /app", "RUN find /app -name HEAD | grep -v logs | sort"
    )
    assert "/app/.git/HEAD\n/app/vendor/lib/.git/HEAD\n/app/vendor/lib/in/deep/.git/HEAD\n" in said


@pytest.mark.parametrize(
    ("path", "url", "why"),
    [
        ("x", "file:///etc", "only git, ssh, http, https URLs and relative ones"),
        ("x", "ext::sh -c id", "invalid URL"),
        ("x", "ext::id", "only git, ssh, http, https"),
        ("x", "/srv/lib.git", "only git, ssh, http, https"),
        ("x", "../../lib.git", "leads out of"),
        ("x", "--upload-pack=id", "invalid URL"),
    ],
)
def test_what_is_not_fetched(own: Daemon, server: GitServer, path: str, url: str, why: str) -> None:
    commit = server.git("lib", "rev-parse", "HEAD")
    server.commit("bad", {"Dockerfile": "FROM busybox\n"})
    server.add_submodule("bad", path, url=url, commit=commit)
    status, said = remote(own, server.url("bad"))
    assert status == 400, said
    assert why in said


def test_what_is_not_there(own: Daemon, server: GitServer) -> None:
    server.commit("one", {"Dockerfile": "FROM busybox\n"})
    server.add_submodule("one", "x", url="../lib.git", commit="0123456789" * 4)
    status, said = remote(own, server.url("one"))
    assert status in (404, 503)
    assert "submodule x: " in said
    server.commit("two", {"Dockerfile": "FROM busybox\n"})
    server.add_submodule("two", "x", url="../nothing.git", commit="0123456789" * 4)
    status, said = remote(own, server.url("two"))
    assert status == 404
    assert "submodule x: unable to fetch the git repository" in said
    server.commit(
        "three", {"Dockerfile": "FROM busybox\n", ".gitmodules": '[submodule "x"]\n path = x\n url = ../nothing\n'}
    )
    assert remote(own, server.url("three"))[0] == 200, "named, but no part of the commit"


def test_one_that_has_itself_ends(own: Daemon, server: GitServer) -> None:
    """A commit cannot hold itself, so a chain: each version of the repository has the one before it."""
    before = server.commit("chain", {"Dockerfile": "FROM busybox\n"})
    before = server.add_submodule("chain", "x", url="../chain.git", commit=before)
    for _ in range(10):
        server.git("chain", "update-index", "--add", "--cacheinfo", f"160000,{before},x")
        server.git("chain", "commit", "-q", "-m", "deeper")
        before = server.git("chain", "rev-parse", "HEAD")
    status, said = remote(own, server.url("chain"))
    assert status == 400
    assert "in each other" in said


def test_a_server_that_gives_branches_only(server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with protocol 0: a commit that no branch ends with is found in the branches."""
    settings = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.version", "GIT_CONFIG_VALUE_0": "0"}
    monkeypatch.setattr(repository, "_ENVIRONMENT", {**repository._ENVIRONMENT, **settings})
    wanted = parse_git(server.url("app"))
    assert wanted is not None
    place = tmp_path / "place"
    place.mkdir()
    found = asyncio.run(repository.fetch(wanted, place, allow_private=True))
    os.close(found.fd)
    assert [module.path for module in found.submodules] == ["vendor/lib", "vendor/lib/in/deep"]
    assert (place / "work/vendor/lib/of-lib").read_text() == "old\n"
    assert not list(place.rglob(".git"))
    assert found.key == " ".join((found.commit, *(f"{module.path}@{module.commit}" for module in found.submodules)))
