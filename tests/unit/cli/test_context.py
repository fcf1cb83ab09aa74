from __future__ import annotations

import pytest

from tare.cli.context import Context, each
from tare.client.errors import ApiError


def test_config_dir() -> None:
    assert Context(hosts=[], environ={"HOME": "/h"}, path="x").config_dir == "/h/.docker"
    assert Context(hosts=[], environ={"DOCKER_CONFIG": "/c"}, path="x").config_dir == "/c"
    assert Context(hosts=[], environ={}, path="x", config_dir="/d").config_dir == "/d"


def test_each_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    def act(name: str) -> str:
        if name == "b":
            raise ApiError(500, "why")
        return name.upper()

    assert each(Context(hosts=[], environ={}, path="x"), ["a", "b", "c"], act) == 1
    assert capsys.readouterr() == ("A\nC\n", "Error response from daemon: why\n")
