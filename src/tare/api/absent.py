"""Parts of Docker's API that this engine does not have, answered as an engine without them does (1.2 of the API notes)."""

from __future__ import annotations

from tare.base.errors import NotFound, NotImplementedYet, Unavailable
from tare.engine.engine import Engine
from tare.web.message import Answer, Request, json_response

_NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)


async def swarm(_: Engine, __: Request) -> Answer:
    """Everything that needs a swarm manager."""
    raise Unavailable(_NO_MANAGER)


async def swarm_leave(_: Engine, __: Request) -> Answer:
    """`POST /swarm/leave`."""
    raise Unavailable("This node is not part of a swarm")


async def swarm_join(_: Engine, __: Request) -> Answer:
    """`POST /swarm/init`, `POST /swarm/join`."""
    raise NotImplementedYet("this engine has no swarm mode")


async def plugins(_: Engine, __: Request) -> Answer:
    """`GET /plugins`."""
    return json_response([])


async def plugin(_: Engine, request: Request) -> Answer:
    """`GET /plugins/{name}/json`: must be 404 so that `docker inspect` goes on (W65)."""
    raise NotFound(f'plugin "{request.params["name"]}" not found')


async def checkpoints(_: Engine, __: Request) -> Answer:
    """CRIU checkpoints."""
    raise NotImplementedYet(
        "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to "
        "enable it."
    )
