"""What is swept at the start; contexts, mounts and secrets are proved by builds that are killed, in tests/e2e."""

from __future__ import annotations

from pathlib import Path

from tare.base.digest import sha256
from tare.engine.builds import provenance
from tare.engine.builds.sweep import drop_statements


def test_statements_stay_as_long_as_their_image(tmp_path: Path) -> None:
    kept, gone = sha256(b"kept"), sha256(b"gone")
    drop_statements(tmp_path, set())
    for image in (kept, gone):
        provenance.write(tmp_path, image, b"{}")
    drop_statements(tmp_path, {kept})
    assert provenance.read(tmp_path, kept) == b"{}"
    assert [path.name for path in (tmp_path / "provenance").iterdir()] == [f"{kept.removeprefix('sha256:')}.json"]
