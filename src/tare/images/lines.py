"""Text inside of files: patches as git writes them, and who wrote which line. Pure, over bytes.

Source: git's documentation, "Generating patch text with -p" and "diff-generate-patch"; POSIX diff, "Diff -u Output Format".
"""

from __future__ import annotations

import difflib
import stat
from collections.abc import Iterator, Sequence

from tare.oci.changeset import Change, Entry

MAX_BYTES = 1024 * 1024
MAX_LINES = 20_000
"""Of what is left when equal beginnings and ends are taken away: beyond that a comparison takes too long."""
_LOOKED_AT = 8000
_CONTEXT = 3
_ESCAPES = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}


def is_text(data: bytes) -> bool:
    """Whether git would show lines of it: no NUL near the beginning."""
    return b"\0" not in data[:_LOOKED_AT]


def split(data: bytes) -> list[bytes]:
    """The lines with their newlines. Only a newline ends one."""
    lines = data.split(b"\n")
    rest = lines.pop()
    return [line + b"\n" for line in lines] + ([rest] if rest else [])


def opcodes(old: Sequence[bytes], new: Sequence[bytes]) -> list[tuple[str, int, int, int, int]] | None:
    """As `difflib` numbers them; None when there are too many lines to compare."""
    head = 0
    most = min(len(old), len(new))
    while head < most and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < most - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    left, right = old[head : len(old) - tail], new[head : len(new) - tail]
    if len(left) + len(right) > MAX_LINES:
        return None
    found = [("equal", 0, head, 0, head)] if head else []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, left, right).get_opcodes():
        found.append((tag, a + head, b + head, c + head, d + head))
    if tail:
        found.append(("equal", len(old) - tail, len(old), len(new) - tail, len(new)))
    return found


def _groups(codes: Sequence[tuple[str, int, int, int, int]]) -> Iterator[list[tuple[str, int, int, int, int]]]:
    """Hunks: what changed with three lines around it."""
    group: list[tuple[str, int, int, int, int]] = []
    for tag, a, b, c, d in codes:
        if tag != "equal":
            group.append((tag, a, b, c, d))
            continue
        if group and b - a > 2 * _CONTEXT:
            group.append((tag, a, a + _CONTEXT, c, c + _CONTEXT))
            yield group
            group = []
        if group:
            group.append((tag, a, b, c, d))
        else:
            group = [(tag, max(a, b - _CONTEXT), b, max(c, d - _CONTEXT), d)]
    if group and group[-1][0] == "equal":
        tag, a, b, c, d = group.pop()
        if group:
            group.append((tag, a, min(b, a + _CONTEXT), c, min(d, c + _CONTEXT)))
    if group:
        yield group


def _range(start: int, end: int) -> str:
    count = end - start
    first = start + 1 if count else start
    return f"{first}" if count == 1 else f"{first},{count}"


def hunks(old: Sequence[bytes], new: Sequence[bytes]) -> list[bytes] | None:
    """The unified difference without its two head lines; None when there are too many lines."""
    codes = opcodes(old, new)
    if codes is None:
        return None
    out: list[bytes] = []
    for group in _groups(codes):
        first, last = group[0], group[-1]
        out.append(f"@@ -{_range(first[1], last[2])} +{_range(first[3], last[4])} @@\n".encode())
        for tag, a, b, c, d in group:
            if tag == "equal":
                out += [_line(b" ", line) for line in old[a:b]]
                continue
            out += [_line(b"-", line) for line in old[a:b]]
            out += [_line(b"+", line) for line in new[c:d]]
    return out


def _line(sign: bytes, line: bytes) -> bytes:
    return sign + line if line.endswith(b"\n") else sign + line + b"\n\\ No newline at end of file\n"


def quoted(path: str) -> str:
    """A path as git quotes it where it has to."""
    raw = path.encode(errors="surrogateescape")
    if all(0x20 <= byte < 0x7F and byte not in (0x22, 0x5C) for byte in raw):
        return path
    return '"' + "".join(_ESCAPES.get(b, chr(b) if 0x20 <= b < 0x7F else f"\\{b:03o}") for b in raw) + '"'


def _git_mode(entry: Entry) -> str:
    if stat.S_ISLNK(entry.mode):
        return "120000"
    return "100755" if entry.mode & 0o100 else "100644"


def _is_tracked(entry: Entry | None) -> bool:
    """Whether git has a word for it."""
    return entry is not None and (stat.S_ISREG(entry.mode) or stat.S_ISLNK(entry.mode))


def patch(change: Change, old: bytes | None, new: bytes | None) -> bytes:
    """One change as git writes it, b"" for what git has no word for (directories, devices, owners, times).

    old, new: the bytes of the file, of a symbolic link its target; None for what is larger than MAX_BYTES. They do not
    matter where a side is neither.
    """
    if (
        change.old is not None
        and change.new is not None
        and stat.S_IFMT(change.old.mode) != stat.S_IFMT(change.new.mode)
    ):
        gone = Change(path=change.path, kind="D", old=change.old)
        come = Change(path=change.path, kind="A", new=change.new)
        return patch(gone, old, None) + patch(come, None, new)
    before = change.old if _is_tracked(change.old) else None
    after = change.new if _is_tracked(change.new) else None
    if before is None and after is None:
        return b""
    a, b = quoted(f"a{change.path}"), quoted(f"b{change.path}")
    head: list[str] = []
    if before is None and after is not None:
        head.append(f"new file mode {_git_mode(after)}")
    elif after is None and before is not None:
        head.append(f"deleted file mode {_git_mode(before)}")
    elif before is not None and after is not None and _git_mode(before) != _git_mode(after):
        head += [f"old mode {_git_mode(before)}", f"new mode {_git_mode(after)}"]
    body = _body(old if before is not None else b"", new if after is not None else b"")
    left, right = a if before is not None else "/dev/null", b if after is not None else "/dev/null"
    if body is None:
        lines = [f"Binary files {left} and {right} differ"]
    else:
        lines = [f"--- {_tabbed(left)}", f"+++ {_tabbed(right)}"] if body else []
    if not head and not lines:
        return b""
    text = "".join(f"{line}\n" for line in [f"diff --git {a} {b}", *head, *lines])
    return text.encode(errors="surrogateescape") + (body or b"")


def _tabbed(name: str) -> str:
    # Readers of patches take what follows a blank for a time, unless a tab says where the name ends.
    return f"{name}\t" if " " in name and not name.startswith('"') else name


def _body(old: bytes | None, new: bytes | None) -> bytes | None:
    """None when there are no lines to be shown."""
    if old is not None and old == new:
        return b""
    if old is None or new is None or not is_text(old) or not is_text(new):
        return None
    found = hunks(split(old), split(new))
    return b"".join(found) if found is not None else None


def blame(versions: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """The lines of the last version, each with the number of the version that brought it.

    versions: oldest first, at least one. What is too much to compare counts as new.
    """
    lines: list[tuple[int, bytes]] = []
    for number, data in versions:
        text = split(data)
        codes = opcodes([line for _, line in lines], text)
        now: list[tuple[int, bytes]] = []
        for tag, a, b, c, d in codes if codes is not None else [("insert", 0, 0, 0, len(text))]:
            now += lines[a:b] if tag == "equal" else [(number, line) for line in text[c:d]]
        lines = now
    return lines
