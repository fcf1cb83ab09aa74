"""What the tiers share: one real engine for the session, a small image, and the check that nothing is left behind."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tare.testing import footprint
from tare.testing.audit import findings
from tare.testing.busybox import busybox_tar
from tare.testing.daemon import Daemon

REPOSITORY = Path(__file__).resolve().parent.parent
IMAGE = "busybox:latest"
SCRATCH = Path("/var/tmp") / f"tt-{os.getpid()}"


def pytest_configure() -> None:
    """A shell's background jobs ignore SIGINT, and so would the command lines that are interrupted here."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked `root` is skipped, with a reason, where we are not root or a package is missing."""
    missing = [name for name in ("conmon", "crun", "busybox") if shutil.which(name) is None]
    reason = "needs root" if os.geteuid() != 0 else f"not installed: {', '.join(missing)}" if missing else ""
    if reason:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare processes, mounts, links, namespaces, cgroups, rules and files before and after the whole run."""
    if os.geteuid() != 0 or not any(item.get_closest_marker("root") for item in request.session.items):
        yield
        return
    prepared = footprint.prepare_host()
    before = footprint.take()
    try:
        yield
        left = footprint.settle(before, own=str(SCRATCH))
    finally:
        footprint.unprepare_host(prepared, own=str(SCRATCH))
    assert not left, "left behind by the tests:\n" + "\n".join(left)


@pytest.fixture(scope="session")
def rootfs_tar() -> bytes:
    """The tar that the test image is made from."""
    return busybox_tar()


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A short-named directory on disk for engines' roots (socket names are limited to 107 bytes)."""
    SCRATCH.mkdir(mode=0o700)
    yield SCRATCH
    shutil.rmtree(SCRATCH)


@pytest.fixture(scope="session")
def daemon(scratch: Path, rootfs_tar: bytes) -> Iterator[Daemon]:
    """The session's engine, with the image busybox:latest in it."""
    engine = Daemon(scratch / "main", bridge=f"tt{os.getpid()}", source=REPOSITORY / "src")
    engine.start()
    try:
        engine.import_image(IMAGE, rootfs_tar, changes=['CMD ["sh"]', "ENV PATH=/usr/bin:/bin"])
        yield engine
        engine.clear()
        assert not (wrong := findings(engine)), "the engine finds wrong with itself:\n" + "\n".join(wrong)
    finally:
        engine.destroy()


@pytest.fixture
def engine_host(daemon: Daemon) -> Iterator[str]:
    """DOCKER_HOST of an engine without containers; what the test made in it is removed afterwards."""
    daemon.clear()
    yield daemon.host
    daemon.clear()
