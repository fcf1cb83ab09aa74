from __future__ import annotations

import base64

from msgspec import UNSET

from tare.wire.versions import shown


def test_names_that_are_not_text() -> None:
    assert shown("/é") == ("/é", UNSET)
    assert shown("/a\udcff") == ("/a\\xff", base64.b64encode(b"/a\xff").decode())
    assert shown(b"\xff\n")[0] == "\\xff\n"
