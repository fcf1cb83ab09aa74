from __future__ import annotations

import os
import stat

import msgspec

from tare.api.versions import difference_of, file_state
from tare.oci.changeset import Entry, diff


def test_a_difference_in_json() -> None:
    old = Entry(mode=stat.S_IFREG | 0o4755, size=3, mtime_ns=7)
    new = Entry(mode=stat.S_IFLNK | 0o777, target="/x", mtime_ns=7)
    (change,) = diff({"/a": old}, {"/a": new})
    assert msgspec.to_builtins(difference_of(change)) == {
        "Path": "/a",
        "Kind": 0,
        "What": ["kind"],
        "Old": {"Mode": 0o755 | 1 << 23, "Uid": 0, "Gid": 0, "Size": 3, "Modified": 7},
        "New": {"Mode": 0o777 | 1 << 27, "Uid": 0, "Gid": 0, "Size": 0, "Modified": 7, "Target": "/x"},
    }
    assert file_state(Entry(mode=stat.S_IFCHR | 0o666, rdev=os.makedev(259, 300))).Device == "259:300"
