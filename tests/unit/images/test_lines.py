"""Patches are read by git itself; lines keep who wrote them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tare.images import lines
from tare.oci.changeset import Change, Entry

FILE = Entry(mode=stat.S_IFREG | 0o644)
SCRIPT = Entry(mode=stat.S_IFREG | 0o755)
LINK = Entry(mode=stat.S_IFLNK | 0o777)
DIRECTORY = Entry(mode=stat.S_IFDIR | 0o755)
TEXTS = st.lists(st.sampled_from((b"a\n", b"b\n", b"c\n", b"\n", b"d")), max_size=30).map(b"".join)


def changed(old: Entry | None, new: Entry | None, path: str = "/etc/x") -> Change:
    kind = "C" if old and new else "A" if new else "D"
    return Change(path=path, kind=kind, old=old, new=new)


def test_a_patch_reads_like_one_of_git() -> None:
    old, new = b"1\n2\n3\n4\n5\n6\n7\n8\n9\n", b"1\n2\n3\n4\n5\n6\n7\n8\nnine"
    assert lines.patch(changed(FILE, SCRIPT), old, new).decode() == (
        "diff --git a/etc/x b/etc/x\nold mode 100644\nnew mode 100755\n--- a/etc/x\n+++ b/etc/x\n"
        "@@ -6,4 +6,4 @@\n 6\n 7\n 8\n-9\n+nine\n\\ No newline at end of file\n"
    )
    assert lines.patch(changed(None, LINK), None, b"/y").decode() == (
        "diff --git a/etc/x b/etc/x\nnew file mode 120000\n--- /dev/null\n+++ b/etc/x\n@@ -0,0 +1 @@\n+/y\n"
        "\\ No newline at end of file\n"
    )
    assert b"Binary files a/etc/x and /dev/null differ" in lines.patch(changed(FILE, None), b"\0", None)
    assert b"Binary files" in lines.patch(changed(FILE, FILE), None, b"x")
    assert lines.patch(changed(DIRECTORY, None), None, None) == b""
    assert lines.patch(changed(FILE, FILE), b"x", b"x") == b""
    kinds = lines.patch(changed(FILE, LINK), b"x\n", b"/y")
    assert kinds.index(b"deleted file mode 100644") < kinds.index(b"new file mode 120000")


def test_names_are_quoted() -> None:
    assert lines.quoted("/plain name") == "/plain name"
    assert lines.quoted('/a\n"\udcff\u00e9') == '"/a\\n\\"\\377\\303\\251"'


def test_what_is_too_much_is_not_compared() -> None:
    many = b"".join(b"%d\n" % number for number in range(lines.MAX_LINES))
    other = b"".join(b"%d\n" % -number for number in range(1, lines.MAX_LINES))
    assert lines.hunks(lines.split(many), lines.split(other)) is None
    assert b"Binary files" in lines.patch(changed(FILE, FILE), many, other)
    assert lines.hunks(lines.split(many), lines.split(many + b"more\n")) is not None


@given(TEXTS, TEXTS)
@settings(max_examples=200, deadline=None)
def test_opcodes_make_the_new_from_the_old(old: bytes, new: bytes) -> None:
    left, right = lines.split(old), lines.split(new)
    assert b"".join(left) == old
    made: list[bytes] = []
    at = 0
    for tag, a, b, c, d in lines.opcodes(left, right) or ():
        assert (a, c) == (at, len(made))
        made += left[a:b] if tag == "equal" else right[c:d]
        at = b
    assert made == right
    assert at == len(left)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("name", ["plain", "with blank", 'odd"\u00e9\t'])
def test_git_applies_what_we_write(tmp_path: Path, name: str) -> None:
    texts = [(b"", b"a\nb"), (b"a\n" * 20, b"a\n" * 9 + b"b\n" + b"a\n" * 10 + b"c"), (b"x\ny\n", b"y\n")]
    for number, (old, new) in enumerate(texts):
        place = tmp_path / str(number) / name
        place.parent.mkdir()
        place.write_bytes(old)
        text = lines.patch(changed(FILE, FILE, f"/{name}"), old, new)
        argv = ["git", "apply", "-"]
        environment = {"PATH": os.environ["PATH"], "GIT_CEILING_DIRECTORIES": str(tmp_path)}
        subprocess.run(argv, input=text, cwd=place.parent, check=True, timeout=20, env=environment)
        assert place.read_bytes() == new


def test_blame_says_who_brought_a_line() -> None:
    versions = [(1, b"a\nb\nc\n"), (3, b"a\nB\nc\n"), (5, b"new\na\nB\nc\n")]
    assert lines.blame(versions) == [(5, b"new\n"), (1, b"a\n"), (3, b"B\n"), (1, b"c\n")]
    assert lines.blame([(2, b"x")]) == [(2, b"x")]
    assert lines.blame([(1, b"x\n"), (2, b"")]) == []


@given(st.lists(TEXTS, min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_blame_keeps_every_line(texts: list[bytes]) -> None:
    found = lines.blame(list(enumerate(texts)))
    assert b"".join(line for _, line in found) == texts[-1]
    for number, line in found:
        assert line in lines.split(texts[number])
