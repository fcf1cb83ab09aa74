from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tare.base.errors import InvalidArgument
from tare.engine.builds.agents import check_socket, leading


def test_a_socket_leads_to_the_agent_as_long_as_its_block(tmp_path: Path) -> None:
    asyncio.run(leads(tmp_path))


async def leads(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readexactly(4))
        writer.write(b"answer")
        writer.close()

    server = await asyncio.start_unix_server(agent, path=str(tmp_path / "agent"))
    check_socket("x", str(tmp_path / "agent"))
    place = tmp_path / "step"
    async with leading(place, str(tmp_path / "agent")):
        reader, writer = await asyncio.open_unix_connection(str(place))
        writer.write(b"ping")
        assert await reader.read() == b"answer"
        writer.close()
        idle_reader, idle = await asyncio.open_unix_connection(str(place))
    assert await idle_reader.read() == b""
    idle.close()
    assert heard == [b"ping"]
    assert not place.exists()
    server.close()


def test_an_agent_that_is_gone_closes_the_connection(tmp_path: Path) -> None:
    asyncio.run(closes(tmp_path))


async def closes(tmp_path: Path) -> None:
    async with leading(tmp_path / "step", str(tmp_path / "nobody")):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "step"))
        assert await reader.read() == b""
        writer.close()


def test_only_sockets_are_agents(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (str(tmp_path / "file"), str(tmp_path / "absent"), os.path.relpath(tmp_path / "file")):
        with pytest.raises(InvalidArgument, match="no socket"):
            check_socket("x", path)
