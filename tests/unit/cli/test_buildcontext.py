from __future__ import annotations

import gzip
import io
import os
import socket
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tare.build.ignore import read_ignore
from tare.cli import buildcontext
from tare.cli.buildcontext import Local, Stream, pack, read_directory
from tare.cli.exit import Exit


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    (root / "a/b").mkdir(parents=True)
    (root / "skip/deep").mkdir(parents=True)
    (root / "Dockerfile").write_text("FROM x\n")
    (root / "a/b/f").write_text("text")
    (root / "a/b/f").chmod(0o4755)
    (root / "skip/one").write_text("1")
    (root / "skip/keep").write_text("2")
    (root / "skip/deep/keep").write_text("3")
    return root


def members(pieces: Iterator[bytes]) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        return {member.name: member for member in archive.getmembers()}


def names(local: Local) -> list[str]:
    return list(members(pack(local)))


def contents(local: Local, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(b"".join(pack(local)))) as archive:
        file = archive.extractfile(name)
        assert file is not None
        return file.read()


def test_a_directory_is_sent_in_order_and_belongs_to_root(context: Path) -> None:
    os.link(context / "a/b/f", context / "a/hard")
    os.symlink("../../../etc/passwd", context / "a/link")
    os.mkfifo(context / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(context / "socket"))
    (context / "ünï").mkdir()
    local = read_directory(str(context), file="")
    found = members(pack(local))
    assert local.dockerfile == "Dockerfile"
    assert list(found) == [
        "Dockerfile", "a", "a/b", "a/b/f", "a/hard", "a/link", "fifo",
        "skip", "skip/deep", "skip/deep/keep", "skip/keep", "skip/one", "ünï",
    ]  # fmt: skip
    assert {(m.uid, m.gid, m.uname, m.gname) for m in found.values()} == {(0, 0, "", "")}
    assert (found["a/b/f"].mode, found["a/b/f"].size) == (0o4755, 4)
    assert (found["a/hard"].type, found["a/hard"].linkname) == (tarfile.LNKTYPE, "a/b/f")
    assert (found["a/link"].type, found["a/link"].linkname) == (tarfile.SYMTYPE, "../../../etc/passwd")
    assert found["fifo"].isfifo()


def test_nothing_behind_a_link_is_sent(context: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("s")
    os.symlink(tmp_path / "outside", context / "way")
    found = members(pack(read_directory(str(context), file="")))
    assert found["way"].issym()
    assert not any(name.startswith("way/") for name in found)


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ("skip\na\n", ["Dockerfile"]),
        ("*\n!skip/keep\n", ["Dockerfile", "skip/keep"]),
        ("**/keep\na\n# skip\n", ["Dockerfile", "skip", "skip/deep", "skip/one"]),
        ("a\nskip\n!skip/deep\n", ["Dockerfile", "skip/deep", "skip/deep/keep"]),
    ],
)
def test_what_dockerignore_names_stays(context: Path, rules: str, wanted: list[str]) -> None:
    (context / ".dockerignore").write_text(rules)
    assert names(read_directory(str(context), file="")) == [".dockerignore", *wanted]


def test_a_directory_that_is_left_out_is_not_entered(context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    listdir = os.listdir
    monkeypatch.setattr(buildcontext.os, "listdir", lambda path: listed.append(str(path)) or listdir(path))
    list(buildcontext.walk(str(context), read_ignore("skip"), {".dockerignore"}))
    assert str(context / "skip") not in listed
    list(buildcontext.walk(str(context), read_ignore("skip"), {"skip/deep/keep"}))
    assert str(context / "skip/deep") in listed


def test_the_dockerfile_is_sent_although_it_is_ignored(context: Path) -> None:
    (context / "skip/D").write_text("FROM y\n")
    (context / ".dockerignore").write_text("skip\na\nDockerfile\n")
    local = read_directory(str(context), file=str(context / "skip/D"))
    assert local.dockerfile == "skip/D"
    assert names(local) == [".dockerignore", "skip/D"]


def test_rules_beside_the_dockerfile_win(context: Path) -> None:
    (context / ".dockerignore").write_text("a\n")
    (context / "Dockerfile.dockerignore").write_text("skip\nDockerfile*\n")
    found = names(read_directory(str(context), file=""))
    assert found == [".dockerignore", "Dockerfile", "Dockerfile.dockerignore", "a", "a/b", "a/b/f"]


def test_a_dockerfile_from_elsewhere_is_added_and_hidden_from_copy(context: Path, tmp_path: Path) -> None:
    (tmp_path / "D").write_text("FROM outside\n")
    (tmp_path / "D.dockerignore").write_text("a")
    (context / ".dockerignore").write_text("skip")
    local = read_directory(str(context), file=str(tmp_path / "D"))
    assert local.dockerfile.startswith(".dockerfile.")
    assert names(local)[-2:] == [".dockerignore", local.dockerfile]
    assert names(local).count(".dockerignore") == 1
    assert "a" not in names(local)
    assert contents(local, ".dockerignore").decode() == f"a\n{local.dockerfile}\n"
    assert contents(local, local.dockerfile) == b"FROM outside\n"

    local = read_directory(str(context), file="-", dockerfile=b"FROM stdin\n")
    assert contents(local, local.dockerfile) == b"FROM stdin\n"
    assert contents(local, ".dockerignore").decode() == f"skip\n{local.dockerfile}\n"
    (context / ".dockerignore").unlink()
    local = read_directory(str(context), file="-", dockerfile=b"FROM stdin\n")
    assert contents(local, ".dockerignore").decode() == f".dockerignore\n{local.dockerfile}\n"


def test_a_dockerfile_may_be_a_link_or_in_lower_case(context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").rename(context / "dockerfile")
    assert read_directory(str(context), file="").dockerfile == "dockerfile"
    (context / "a/D").write_text("FROM y\n")
    os.symlink("a/D", context / "Dockerfile")
    assert read_directory(str(context), file="").dockerfile == "a/D"
    os.symlink(context, tmp_path / "way")
    assert read_directory(str(tmp_path / "way"), file=str(tmp_path / "way/a/D")).dockerfile == "a/D"


def test_what_is_wrong_is_named(context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(directory: Path, file: str = "") -> str:
        with pytest.raises(Exit) as caught:
            read_directory(str(directory), file=file)
        assert caught.value.code == 1
        return caught.value.message

    plain = context / "Dockerfile"
    assert said(plain) == f"unable to prepare context: context must be a directory: {plain}"
    missing = tmp_path / "nosuch"
    assert said(context, str(missing)) == (
        "unable to prepare context: unable to evaluate symlinks in Dockerfile path:"
        f" lstat {missing}: no such file or directory"
    )
    assert said(context, str(context / "a")).endswith("is not a regular file")
    (context / ".dockerignore").write_text("[")
    assert said(context).startswith(f"error checking context: {context}/.dockerignore: syntax error in pattern")
    (context / ".dockerignore").unlink()
    # Root may read everything, so the answer of access(2) is given here.
    monkeypatch.setattr(buildcontext.os, "access", lambda path, *_, **__: not str(path).endswith("/f"))
    assert said(context) == f"error checking context: no permission to read from '{context}/a/b/f'"


def test_a_file_that_changes_meanwhile_is_an_error(context: Path, tmp_path: Path) -> None:
    local = read_directory(str(context), file="")
    (tmp_path / "secret").write_text("secret")
    (context / "a/b/f").unlink()
    os.symlink(tmp_path / "secret", context / "a/b/f")
    with pytest.raises(Exit, match=r"cannot send .*/a/b/f"):
        list(pack(local))

    (context / "a").rename(context / "old")
    (tmp_path / "other/b").mkdir(parents=True)
    (tmp_path / "other/b/f").write_text("secret")
    os.symlink(tmp_path / "other", context / "a")
    with pytest.raises(Exit, match="it was replaced meanwhile"):
        list(pack(local))


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_bytes(bytes(600_000))
    pieces = pack(read_directory(str(tmp_path), file=""))
    next(pieces)
    os.truncate(tmp_path / "Dockerfile", 100)
    with pytest.raises(Exit, match="became shorter"):
        list(pieces)


def test_the_stream_counts_and_keeps_what_stopped_it() -> None:
    counted: list[int] = []
    stream = Stream(iter([b"abc", b"", b"defg", b"h"]), counted.append)
    assert [stream.read(4), stream.read(3), stream.read(9), stream.read(9)] == [b"abcd", b"efg", b"h", b""]
    assert (stream.count, counted) == (8, [4, 3, 1, 0])

    def broken() -> Iterator[bytes]:
        yield b"x"
        raise Exit(1, "no")

    stream = Stream(broken())
    with pytest.raises(Exit):
        stream.read(5)
    assert isinstance(stream.error, Exit)


def test_compressed() -> None:
    assert gzip.decompress(b"".join(buildcontext.compressed(iter([b"a" * 70000, b"b"])))) == b"a" * 70000 + b"b"


def test_a_single_dockerfile() -> None:
    found = members(buildcontext.single("Dockerfile", b"FROM x"))
    assert list(found) == ["Dockerfile"]
    assert stat.S_IMODE(found["Dockerfile"].mode) == 0o644


@pytest.mark.parametrize(
    ("data", "archive"),
    [
        (b"FROM x\n", False),
        (b"", False),
        (b"# " + b"x" * 2000, False),
        (gzip.compress(b"x"), True),
        (bytes(1024), True),
        (b"".join(buildcontext.single("f", b"x")), True),
    ],
)
def test_stdin_is_an_archive_or_a_dockerfile(data: bytes, archive: bool) -> None:
    found, pieces = buildcontext.read_stdin(io.BytesIO(data))
    assert (found, b"".join(pieces)) == (archive, data)


def test_what_the_engine_fetches() -> None:
    assert all(map(buildcontext.is_remote, ("https://h/x", "git@h:a.git", "github.com/a/b", "git://h/a")))
    assert not buildcontext.is_remote("./git")
