"""The mechanical rules of the house: what a tool can check is checked here, so that nobody has to remember it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tare.api.routes import ROUTES
from tare.base import errors
from tare.wire.errors import STATUS, status_of

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "tare"
TESTS = ROOT / "tests"
BIN = Path(sys.prefix) / "bin"

MAX_LINES = 700
TOO_LONG = {
    "src/tare/cli/createspec.py",
    "src/tare/cli/template.py",
    "src/tare/web/server.py",
}
"""Files that were longer when the rule came. An entry that is no longer too long must be taken out."""

OWED: set[str] = set()
"""Modules without a test of their own. It only shrinks: an entry that has its test must be taken out."""

PROVED_WHOLE = ("engine", "api", "daemon")
"""Rooms whose modules count as tested when a test of a real engine says that it exercises them."""

KNOWN_HOSTS = {
    "index.docker.io",
    "registry-1.docker.io",
    "www.apache.org",
    "keepachangelog.com",
    "semver.org",
    "in-toto.io",
    "slsa.dev",
}
"""Public hosts that documentation and code may name: no mirror, no machine of ours."""


# --- tools


def run_tool(*argv: str) -> None:
    """Run a tool of the virtual environment in the checkout; its complaint is the test's message."""
    program = BIN / argv[0]
    if not program.exists():
        pytest.skip(f"{argv[0]} is not installed")
    done = subprocess.run(
        [program, *argv[1:]],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(argv)}\n{done.stdout}{done.stderr}"


def test_every_file_is_formatted() -> None:
    run_tool("ruff", "format", "--check", "src", "tests")


def test_lint() -> None:
    run_tool("ruff", "check", "src", "tests")


def test_types_are_strict_and_hold() -> None:
    assert pyproject()["tool"]["mypy"]["strict"] is True
    run_tool("mypy", "--no-error-summary")


def test_imports_go_downwards() -> None:
    run_tool("lint-imports", "--no-cache")


# --- files


@cache
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@cache
def tracked() -> tuple[Path, ...]:
    """Every file of the checkout that belongs to the project (what a build or an editor leaves is not)."""
    skipped = {".git", ".venv", ".venv-ansible", "__pycache__", "build", ".hypothesis"}
    found: list[Path] = []
    for directory, names, files in os.walk(ROOT):
        names[:] = [
            name for name in names if name not in skipped and not name.endswith(("_cache", ".egg-info", "-cache"))
        ]
        found += [Path(directory) / name for name in files if name != ".git"]
    return tuple(sorted(path for path in found if not path.is_symlink()))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def texts() -> Iterator[tuple[str, str]]:
    """Every text file of the project but the locks, whose contents are hashes, and this one."""
    for path in tracked():
        if path.suffix == ".lock" or path == Path(__file__).resolve():
            continue
        try:
            yield relative(path), path.read_text()
        except UnicodeDecodeError:
            continue


def python_files(*tops: Path) -> list[Path]:
    return sorted(path for path in tracked() if path.suffix == ".py" and any(path.is_relative_to(top) for top in tops))


def modules() -> list[str]:
    """`containers/merge`, …: every module with code of its own (packages' `__init__` and tare.testing aside)."""
    return [
        str(path.relative_to(SOURCE).with_suffix(""))
        for path in python_files(SOURCE)
        if path.name != "__init__.py" and not path.is_relative_to(SOURCE / "testing")
    ]


def test_no_file_is_too_long() -> None:
    long = {relative(path) for path in python_files(SOURCE, TESTS) if len(path.read_text().splitlines()) > MAX_LINES}
    assert long - TOO_LONG == set(), f"over {MAX_LINES} lines: split them"
    assert TOO_LONG - long == set(), "no longer too long: take them out of TOO_LONG"


def test_every_module_says_what_it_owns() -> None:
    without = [
        relative(path)
        for path in python_files(SOURCE)
        if path.stat().st_size and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert without == []


def test_nothing_names_a_machine_or_a_mirror() -> None:
    """Paths of a developer's machine and hosts that only exist at one place do not belong into the tree."""
    paths = re.compile("|".join(("/wor" + "k/", "/home/" + r"[a-z]", "/User" + "s/")))
    host = re.compile(r"https?://([a-zA-Z0-9.-]+\.[a-zA-Z]{2,})(?=[/:\s\"'`)>\]]|$)")
    wrong: list[str] = []
    for name, text in texts():
        wrong += [f"{name}: {found[0]}" for found in paths.finditer(text)]
        wrong += [
            f"{name}: {found[1]}"
            for found in host.finditer(text)
            if found[1] not in KNOWN_HOSTS and not found[1].endswith((".example", "example.com", ".test", ".invalid"))
        ]
    assert wrong == []


TOP = {
    ".ci", ".gitignore", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "docs", "examples", "packaging",
    "pyproject.toml", "quickstart", "requirements-ansible.lock", "requirements-dev.lock", "requirements.lock", "scripts",
    "src", "tests",
}  # fmt: skip


def test_the_top_of_the_checkout_holds_what_it_should() -> None:
    """A program run from here must not leave its files here."""
    assert {relative(path).partition("/")[0] for path in tracked()} - TOP == set()


# --- dependencies


def names_of(requirements: list[str]) -> dict[str, str]:
    """Normalised name → the rest of the requirement (`>=0.6`)."""
    out: dict[str, str] = {}
    for text in requirements:
        found = re.match(r"([A-Za-z0-9._-]+)(.*)\Z", text)
        assert found is not None, text
        out[re.sub(r"[-_.]+", "-", found[1]).lower()] = found[2]
    return out


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Name → version and how many hashes, of a lock file."""
    out: dict[str, tuple[str, int]] = {}
    for entry in (ROOT / name).read_text().replace("\\\n", " ").splitlines():
        words = entry.split("#")[0].split()
        if not words:
            continue
        assert "==" in words[0], f"{name}: not a pinned requirement: {entry}"
        package, _, version = words[0].partition("==")
        hashes = [word for word in words[1:] if re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word)]
        out[re.sub(r"[-_.]+", "-", package).lower()] = (version, len(hashes))
    return out


def test_what_replays_need_is_locked_with_hashes() -> None:
    assert {package for package, (_, hashes) in locked("requirements-ansible.lock").items() if not hashes} == set()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_locks_have_hashes_and_cover_what_is_needed(name: str) -> None:
    project = pyproject()["project"]
    needed = names_of(project["dependencies"])
    if name == "requirements-dev.lock":
        needed |= names_of(project["optional-dependencies"]["dev"])
    found = locked(name)
    assert {package for package, (_, hashes) in found.items() if not hashes} == set()
    assert set(needed) - set(found) == set()
    for package, bounds in needed.items():
        minimum = re.search(r">=([0-9.]+)", bounds)
        if minimum is not None:
            assert numbers(found[package][0]) >= numbers(minimum[1]), package


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def test_locks_agree() -> None:
    run, dev = locked("requirements.lock"), locked("requirements-dev.lock")
    assert {name for name, (version, _) in run.items() if dev.get(name, ("",))[0] != version} == set()


IMPORT_NAMES = {"import-linter": "importlinter", "pytest-timeout": "pytest_timeout", "pyyaml": "yaml"}


def imported(path: Path) -> set[str]:
    """Top-level names a file imports, wherever in the file."""
    out: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            out |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            out.add(node.module.partition(".")[0])
    return out


def test_only_declared_packages_are_imported() -> None:
    project = pyproject()["project"]
    ours = {"tare", "tests", "torturing"} | {path.stem for path in python_files(TESTS)} | {"conftest", "suites"}
    run = {IMPORT_NAMES.get(name, name) for name in names_of(project["dependencies"])}
    dev = run | {IMPORT_NAMES.get(name, name) for name in names_of(project["optional-dependencies"]["dev"])}
    standard = set(sys.stdlib_module_names)
    wrong = {relative(path): imported(path) - standard - {"tare"} - run for path in python_files(SOURCE)}
    wrong |= {relative(path): imported(path) - standard - ours - dev for path in python_files(TESTS)}
    assert {name: names for name, names in wrong.items() if names} == {}


def test_every_declared_package_is_used() -> None:
    used: set[str] = set()
    for path in python_files(SOURCE):
        used |= imported(path)
    declared = {IMPORT_NAMES.get(name, name) for name in names_of(pyproject()["project"]["dependencies"])}
    assert declared - used == set()


# --- the layers


def test_the_layers_list_every_room() -> None:
    contract = pyproject()["tool"]["importlinter"]["contracts"][0]
    assert contract["type"] == "layers"
    listed = [room.strip() for layer in contract["layers"] for room in layer.split("|")]
    rooms = {f"tare.{path.parent.name}" for path in SOURCE.glob("*/__init__.py")} - {"tare.testing"}
    assert len(listed) == len(set(listed))
    assert set(listed) == rooms


def test_only_tests_import_tare_testing() -> None:
    wrong = [
        relative(path)
        for path in python_files(SOURCE)
        if not path.is_relative_to(SOURCE / "testing") and re.search(r"\btare\.testing\b", path.read_text())
    ]
    assert wrong == []


# --- tests


def is_tested(module: str) -> bool:
    """Whether a test file of the module's name exists where it belongs, or (engine, api, daemon) a test of a real engine
    imports or names the module: `engine/start`, `tare.engine.start`."""
    room, _, name = module.rpartition("/")
    stem = f"test_{name.strip('_')}.py"
    if (TESTS / "unit" / room / stem).exists():
        return True
    whole = [TESTS / tier for tier in ("e2e", "suites", "compat", "api", "fuzz")]
    beside = {path.name for path in python_files(*whole)}
    if f"test_{module.replace('/', '_')}.py" in beside:
        return True
    if room.partition("/")[0] not in PROVED_WHOLE:
        return stem in beside
    names = re.compile(
        rf"\b{re.escape(module)}\b|\btare\.{re.escape(module.replace('/', '.'))}\b"
        rf"|^from tare\.{re.escape(room.replace('/', '.'))} import [^\n]*\b{re.escape(name)}\b",
        re.MULTILINE,
    )
    return any(names.search(path.read_text()) for path in python_files(*whole))


def test_every_module_has_its_tests() -> None:
    missing = {module for module in modules() if not is_tested(module)}
    assert missing - OWED == set(), "without a test file: tests/unit/<room>/test_<module>.py"
    assert OWED - missing == set(), "has its test now (or is gone): take it out of OWED"


def test_every_unit_test_file_has_its_module() -> None:
    """A test whose module was renamed or removed would otherwise stay where nobody looks for it."""
    known = {f"{room}/test_{name.strip('_')}.py" for room, _, name in (module.rpartition("/") for module in modules())}
    stray = [
        str(path.relative_to(TESTS / "unit"))
        for path in python_files(TESTS / "unit")
        if path.name.startswith("test_") and str(path.relative_to(TESTS / "unit")) not in known
    ]
    assert stray == []


def test_no_test_sleeps() -> None:
    """Wait on an event instead. `asyncio.sleep(0)` only lets others run."""
    pattern = re.compile(r"\btime\.sleep\(|\basyncio\.sleep\((?!0\))|\bfrom time import [^\n]*\bsleep\b")
    wrong = [
        relative(path)
        for path in python_files(TESTS)
        if path != Path(__file__).resolve() and pattern.search(path.read_text())
    ]
    assert wrong == []


# --- routes and errors


def documented() -> dict[tuple[str, str], str]:
    """(method, path) → permission, of docs/api.md; `/(a,b)/x` stands for `/a/x` and `/b/x`."""
    out: dict[tuple[str, str], str] = {}
    for line in (ROOT / "docs" / "api.md").read_text().splitlines():
        row = re.match(r"\| (GET|HEAD|POST|PUT|DELETE|OPTIONS) \| `([^`]+)` \| (\w+) \| (\S.*) \|\Z", line)
        if row is None:
            assert not re.match(r"\| [A-Z]+ \|", line), f"docs/api.md: not a row of four columns: {line}"
            continue
        kinds = re.match(r"/\(([a-z,]+)\)(.*)\Z", row[2])
        paths = [f"/{kind}{kinds[2]}" for kind in kinds[1].split(",")] if kinds else [row[2]]
        for path in paths:
            assert (row[1], path) not in out, f"docs/api.md: twice: {row[1]} {path}"
            out[row[1], path] = row[3]
    return out


def test_every_route_is_documented_with_its_permission() -> None:
    served = {(route.method, route.pattern): route.permission for route in ROUTES}
    assert len(served) == len(ROUTES), "a route is declared twice"
    assert documented() == served


def test_every_handler_says_what_it_serves() -> None:
    assert [route.pattern for route in ROUTES if not route.handler.__doc__] == []


def test_every_error_class_has_a_status() -> None:
    vocabulary = {
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.TareError) and cls is not errors.TareError
    }
    assert set(STATUS) == vocabulary
    assert all(status_of(cls("x")) == STATUS[cls] for cls in vocabulary)


def test_statuses_and_exit_codes_are_chosen_in_one_place() -> None:
    """HTTP numbers in wire/errors.py, exit codes in cli/exit.py; nobody else maps an error class to a number."""
    pattern = re.compile(
        r"^\s*(?:errors\.)?(?:" + "|".join(cls.__name__ for cls in STATUS) + r"): \d+,?$", re.MULTILINE
    )
    wrong = [
        relative(path)
        for path in python_files(SOURCE)
        if path != SOURCE / "wire" / "errors.py" and pattern.search(path.read_text())
    ]
    assert wrong == []
    literal = re.compile(r"\bExit\((?:code=)?\d|\bsys\.exit\([0-9]")
    wrong = [relative(path) for path in python_files(SOURCE / "cli") if literal.search(path.read_text())]
    assert wrong == []


def test_every_expected_error_ends_the_command_line_with_a_code(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever class of the vocabulary a command raises, the program says one line and fails with 1."""
    from tare.cli import __main__ as program
    from tare.cli import exit as exits

    for cls in STATUS:

        def fail(*_: object, cls: type[errors.TareError] = cls) -> int:
            raise cls("what went wrong")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(program, "_run", fail)
            assert program.main(["ps"]) == exits.FAILED, cls
        assert capsys.readouterr().err == "what went wrong\n", cls
