"""Side by side with the stock docker command line: the same words to the same engine, the same bytes back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "src"
_START = "import sys; from tare.cli.__main__ import main; sys.argv[0] = 'tare'; sys.exit(main())"


@dataclass(frozen=True)
class Said:
    """What a program answered."""

    code: int
    out: str
    err: str


def _run(argv: list[str], host: str, stdin: str) -> Said:
    environment = {**os.environ, "DOCKER_HOST": host, "TARE_HOST": "", "PYTHONPATH": str(SOURCES)}
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, env=environment, timeout=60, check=False)
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def docker() -> Callable[..., Said]:
    """The stock command line, its name in texts replaced by ours."""
    program = shutil.which("docker")
    if program is None:
        pytest.skip("the stock docker command line is not installed")

    def run(host: str, *argv: str, stdin: str = "") -> Said:
        said = _run([program, *argv], host, stdin)
        # docker 28 says "SRun" here; tare does not.
        text = said.err.replace("\nSRun ", "\nRun ").replace("docker", "tare").replace("Docker daemon", "tare daemon")
        return Said(said.code, said.out, text)

    return run


@pytest.fixture(scope="session")
def tare() -> Callable[..., Said]:
    """Our command line, in a process of its own."""

    def run(host: str, *argv: str, stdin: str = "") -> Said:
        return _run([sys.executable, "-c", _START, *argv], host, stdin)

    return run


@pytest.fixture(scope="session")
def engine_host(request: pytest.FixtureRequest) -> Iterator[str]:
    """DOCKER_HOST of the engine under test: the session's, or the one that TARE_TEST_HOST names (it needs busybox)."""
    host = os.environ.get("TARE_TEST_HOST", "")
    if host:
        yield host
        return
    if os.geteuid() != 0:
        pytest.skip("an engine needs root, and TARE_TEST_HOST names none")
    engine = request.getfixturevalue("daemon")
    engine.clear()
    yield engine.host
    engine.clear()
