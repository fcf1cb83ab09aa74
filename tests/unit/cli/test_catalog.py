from __future__ import annotations

import pytest

from tare.cli import catalog
from tare.cli.__main__ import GLOBAL


@pytest.mark.parametrize("path", sorted(catalog.COMMANDS))
def test_every_command_loads_and_says_what_the_catalog_says(path: str) -> None:
    command = catalog.load(path)
    assert command.summary == catalog.COMMANDS[path][2]
    page = catalog.command_help(path, command, 80)
    assert page.startswith(f"Usage:  tare {path}")
    assert len({flag.name for flag in command.flags}) == len(command.flags)
    shorts = [flag.short for flag in command.flags if flag.short]
    assert len(set(shorts)) == len(shorts)


def test_aliases_lead_to_commands() -> None:
    assert set(catalog.ALIASES.values()) <= set(catalog.COMMANDS)
    found = catalog.find(["container", "ls", "-a"])
    assert found is not None
    assert (found[0], found[1], found[2]) == ("container ls", catalog.load("ps"), ["-a"])
    assert catalog.find(["container", "nonsense"]) is None


@pytest.mark.parametrize("group", sorted(catalog.GROUPS))
def test_group_pages_list_their_commands(group: str) -> None:
    page = catalog.group_help(group)
    assert f"Usage:  tare {group} COMMAND" in page
    assert "dial-stdio" not in page


def test_the_root_page_names_every_command() -> None:
    page = catalog.root_help(GLOBAL, 80)
    assert "  TARE_HOST, DOCKER_HOST address of the engine" in page
    assert all(f"\n  {path} " in page for path in catalog.COMMANDS if " " not in path)
