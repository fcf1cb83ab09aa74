"""What a client asks of a build, and the running build that its stages share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from msgspec import Struct, field

from tare.base.errors import TareError
from tare.base.reference import Reference
from tare.build.cachedoc import Source, Target
from tare.build.evaluate import Given
from tare.build.instructions import Program
from tare.engine.builds.cachefrom import CacheSources
from tare.engine.builds.cacheimport import Imported
from tare.engine.builds.context import Context, Spool
from tare.engine.engine import Engine
from tare.images.drafts import Draft
from tare.images.layers import Lease
from tare.registry.credentials import Credentials
from tare.wire.config import HostConfig
from tare.wire.jsonmessage import message

_WAITED_S = 0.02
STEP: ContextVar[int] = ContextVar("the number of the step that this task does", default=0)


class Wanted(Struct, frozen=True, kw_only=True):
    """The request. `host` holds limits, network and such for RUN steps; `epoch_ns` is SOURCE_DATE_EPOCH.

    credentials: for the registry of a reference. secrets: by id; their bytes never go anywhere but into mounts.
    cache_sources: exported caches to take steps and mounts from; cache_targets: where this build's goes.
    contexts: named contexts, each the reference of an image. local_contexts: named contexts that came in the tar of the
    build's own, below the directory given; remote_contexts: those to fetch, a URL. agents: sockets of this host that ssh
    mounts lead to, by id. cache_from: images, see cachefrom.py; () for the whole cache.
    """

    dockerfile: str = ""
    tags: tuple[Reference, ...] = ()
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    platform: str = ""
    host: HostConfig = field(default_factory=HostConfig)
    quiet: bool = False
    pull: bool = False
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    cache_from: tuple[str, ...] = ()
    cache_sources: tuple[Source, ...] = ()
    cache_targets: tuple[Target, ...] = ()
    epoch_ns: int | None = None
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    contexts: Mapping[str, str] = field(default_factory=dict)
    local_contexts: Mapping[str, str] = field(default_factory=dict)
    remote_contexts: Mapping[str, str] = field(default_factory=dict)
    agents: Mapping[str, str] = field(default_factory=dict)
    squash: bool = False
    tells_steps: bool = False  # who asks is told what becomes of each step, instead of the classic builder's remarks
    provenance: str = ""  # a mode of provenance.py, "" for none
    is_for_output: bool = False  # who asks reads the result (results.py) and wants no image kept that has no name
    allowed: frozenset[str] = frozenset()  # entitlements: `security.insecure`, `network.host`
    credentials: Callable[[Reference], Credentials] = lambda _: Credentials()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(tags={self.tags!r}, target={self.target!r})"  # its secrets stay out of every log

    @property
    def named(self) -> frozenset[str]:
        """The names of all further contexts, lower case: they stand for stages and images of that name."""
        return frozenset(
            name.lower() for kind in (self.contexts, self.local_contexts, self.remote_contexts) for name in kind
        )


class StepFailed(TareError):
    """A RUN ended with an exit status that is not 0. `code` becomes the client's own."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class Build(Struct, eq=False):
    """A build under way. `tell` sends a piece of text to the client, `status` a progress message."""

    engine: Engine
    wanted: Wanted
    build_id: str
    directory: Path
    context: Context
    program: Program
    given: Given
    arguments: Mapping[str, str]
    bases: list[str]
    stood_on: frozenset[int]  # stages whose files other stages take
    lease: Lease
    tell: Callable[[str], None]
    status: Callable[[bytes], None]
    room: Callable[[], Awaitable[None]]  # returns when the client has taken most of what it was told
    cache_sources: CacheSources | None = None  # None for the whole cache
    imports: list[Imported] = field(default_factory=list)
    steps: int = 0
    step: int = 0
    started_ns: int = 0
    begun: dict[int, float] = field(default_factory=dict)  # step: when, by time.monotonic
    cached: set[int] = field(default_factory=set)
    drafts: list[Draft] = field(default_factory=list)
    pending: list[asyncio.Task[None]] = field(default_factory=list)
    spools: list[Spool] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    cache_mounts: dict[str, str] = field(default_factory=dict)
    """The cache mounts of its steps, done or cached: what the Dockerfile calls them, by the names of their directories."""

    read: list[dict[str, object]] = field(default_factory=list)
    """What was fetched: `uri` and `digest`, as provenance tells it."""

    def named(self, name: str) -> Spool | None:
        """The further context of files called `name`."""
        wanted = name.lower()
        return next((found for key, found in self.context.named.items() if wanted and key.lower() == wanted), None)

    @property
    def now_ns(self) -> int:
        """The time that what the build makes gets: SOURCE_DATE_EPOCH, or when it began."""
        return self.started_ns if self.wanted.epoch_ns is None else self.wanted.epoch_ns

    def remark(self, text: str) -> None:
        """What the classic builder says about a step."""
        if not self.wanted.tells_steps:
            self.tell(text)

    def announce(self, text: str, *, stage: str = "", position: int = 1, positions: int = 1) -> None:
        """`Step 2/5 : RUN make`: this task begins with it. stage: its name, "" for one without; the step's place in it."""
        self.step += 1
        STEP.set(self.step)
        self.begun[self.step] = time.monotonic()
        self.remark(f"Step {self.step}/{self.steps} : {text}\n")
        place = {"Stage": stage, "Position": position, "Positions": positions, "Total": self.steps}
        self._tell_step("begun", {**place, "Text": text})

    def begin_again(self) -> None:
        """The step of this task has waited for other stages: its own time begins now."""
        number = STEP.get()
        if number and time.monotonic() - self.begun[number] > _WAITED_S:
            self.begun[number] = time.monotonic()
            self._tell_step("begun", {})

    def use_cache(self) -> None:
        """The step of this task is known: nothing is done."""
        self.cached.add(STEP.get())
        self.remark(" ---> Using cache\n")

    @contextmanager
    def doing(self) -> Iterator[None]:
        """What becomes of the step of this task is told at the end of the block."""
        try:
            yield
        except asyncio.CancelledError:
            self._tell_step("cancelled", {})
            raise
        except BaseException:
            self._tell_step("failed", {})
            raise
        self._tell_step("cached" if STEP.get() in self.cached else "done", {})

    def _tell_step(self, state: str, about: Mapping[str, object]) -> None:
        number = STEP.get()
        if self.wanted.tells_steps and number:
            seconds = round(time.monotonic() - self.begun[number], 3)
            self.status(message(step={"Number": number, "State": state, "Seconds": seconds, **about}))
