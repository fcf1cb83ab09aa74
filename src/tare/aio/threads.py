"""The bounded pool for blocking work: bytes, files, SQLite. Never for waiting on a container or a client."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_WORKERS = 8
_pool = ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="tare-bytes")

# A thread that hashes or parses may hold the interpreter no longer than this before another client is answered.
sys.setswitchinterval(0.001)


async def in_thread(func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking `func` in the pool. When the caller is cancelled the thread still finishes its work."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_pool, partial(func, *args, **kwargs))
