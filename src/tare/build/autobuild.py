"""Automated builds: what one is, what a run of one is, and the rules about them. No input or output.

An autobuild is due by its record alone: somebody asked later than it last looked, or its schedule came since. So nothing
is queued that a crash could lose, and a schedule that was missed is made up for once.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from msgspec import Struct, field

from tare.base.clock import NEVER, Nanos
from tare.base.errors import InvalidArgument
from tare.base.reference import parse_reference
from tare.build.gitref import GitRef, parse_git
from tare.build.schedule import parse_schedule

KEPT_RUNS = 50
MAX_LOG = 2 * 1024 * 1024
MAX_LOGS = 32 * 1024 * 1024
"""What is kept of each autobuild: so many runs, bytes of one log, bytes of all its logs."""
DEFAULT_TIMEOUT_S = 6 * 3600
MAX_TIMEOUT_S = 7 * 24 * 3600
RUNNING, SUCCEEDED, FAILED, INTERRUPTED = "running", "succeeded", "failed", "interrupted"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}\Z")
_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@-]{0,200}\Z")
_SIGNATURE = re.compile(r"sha256=([0-9a-f]{64})\Z")


class Autobuild(Struct, frozen=True, kw_only=True):
    """What is built, from where, and when. Times in nanoseconds.

    branch: "" for the repository's default. tags: canonical references, the first is shown. checked_at: when a run last
    looked at the repository; asked_at: when somebody last wanted one; resumed_at: when it was last made or went on.
    built: the commit of the last run that succeeded.
    """

    id: str
    name: str
    git: str
    tags: tuple[str, ...]
    branch: str = ""
    context: str = ""
    dockerfile: str = ""
    schedule: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    pushes: bool = False
    has_credentials: bool = False
    timeout_s: int = DEFAULT_TIMEOUT_S
    created_at: Nanos = NEVER
    resumed_at: Nanos = NEVER
    checked_at: Nanos = NEVER
    asked_at: Nanos = NEVER
    asked_by: str = ""
    is_forced: bool = False
    is_paused: bool = False
    built: str = ""
    last_run: int = 0

    @property
    def source(self) -> GitRef:
        """What is fetched: the branch and nothing else that is called so."""
        found = parse_git(self.git)
        assert found is not None, "checked when it was added"
        ref = f"refs/heads/{self.branch}" if self.branch else ""
        return GitRef(found.url, ref, self.context.strip("/"), found.host)


class Run(Struct, frozen=True, kw_only=True):
    """One run. cause: `schedule`, `hook` or `request`; code: of the step that failed; error: one line."""

    number: int
    status: str
    cause: str
    commit: str = ""
    image: str = ""
    code: int = 0
    error: str = ""
    pushed: tuple[str, ...] = ()
    log_bytes: int = 0
    began_at: Nanos = NEVER
    ended_at: Nanos = NEVER


def check(wanted: Autobuild) -> None:
    """Raise InvalidArgument for what could never be built."""
    if not _NAME.match(wanted.name):
        raise InvalidArgument(
            f"invalid name of an autobuild {wanted.name[:130]!r}", hint="letters, digits, and _ . - after the first"
        )
    _check_source(wanted)
    if not wanted.tags:
        raise InvalidArgument("an autobuild needs a tag for what it builds")
    tags = [parse_reference(text) for text in wanted.tags]
    if any(tag.digest for tag in tags):
        raise InvalidArgument("a tag of an autobuild cannot contain a digest")
    if wanted.pushes and len({tag.domain for tag in tags}) > 1:
        raise InvalidArgument(
            "all tags that are pushed must be of one registry", hint="make an autobuild for each registry"
        )
    if wanted.schedule:
        parse_schedule(wanted.schedule)
    if not 1 <= wanted.timeout_s <= MAX_TIMEOUT_S:
        raise InvalidArgument("the time-out of a run is a second to seven days")


def _check_source(wanted: Autobuild) -> None:
    found = parse_git(wanted.git)
    if found is None:
        raise InvalidArgument(
            f"{wanted.git[:200]!r} is no git repository", hint="as https://HOST/PATH.git, git://… or ssh://…"
        )
    if found.ref or found.directory or found.checksum or found.keeps_git or "#" in wanted.git or "?" in wanted.git:
        raise InvalidArgument("the URL of an autobuild is that of its repository: use --branch and --context")
    if "://" in found.url and urlsplit(found.url).password is not None:
        raise InvalidArgument(
            "the URL holds a password, which lists and logs would show", hint="use ssh with a key of the engine's host"
        )
    if wanted.branch and (not _BRANCH.match(wanted.branch) or ".." in wanted.branch):
        raise InvalidArgument(f"invalid branch {wanted.branch[:100]!r}")
    for what, path in (("context", wanted.context), ("Dockerfile", wanted.dockerfile)):
        if path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise InvalidArgument(f"the {what} {path[:200]!r} is a path inside of the repository")


def cause_of(item: Autobuild) -> str:
    """Why a run of it begins."""
    return item.asked_by if item.asked_at > item.checked_at else "schedule"


def next_at(item: Autobuild) -> Nanos:
    """When it is to run next: maybe in the past; NEVER if nothing asks for it."""
    if item.asked_at > item.checked_at:
        return item.asked_at
    if not item.schedule or item.is_paused:
        return NEVER
    return parse_schedule(item.schedule).next_after(max(item.checked_at, item.resumed_at, item.created_at))


def choose(items: Iterable[Autobuild], *, now: Nanos, running: Collection[str], slots: int) -> list[Autobuild]:
    """What is to be started now, the longest due first. running: ids. slots: how many may run at once."""
    due = sorted(
        (at, item.name, item) for item in items if item.id not in running and NEVER < (at := next_at(item)) <= now
    )
    return [item for _, _, item in due[: max(0, slots - len(running))]]


def wakes_at(items: Iterable[Autobuild], *, running: Collection[str]) -> Nanos:
    """The next time at which something that does not run becomes due; NEVER for none."""
    times = [at for item in items if item.id not in running and (at := next_at(item)) != NEVER]
    return min(times, default=NEVER)


def surplus(runs: Sequence[Run]) -> list[int]:
    """The numbers of runs that go, so that the rest is within the bounds. The newest stays, and what still runs.

    runs: in any order.
    """
    gone: list[int] = []
    size = 0
    for position, run in enumerate(sorted(runs, key=lambda run: run.number, reverse=True)):
        size += run.log_bytes
        if position and run.status != RUNNING and (position >= KEPT_RUNS or size > MAX_LOGS):
            gone.append(run.number)
    return gone


def is_signed(body: bytes, header: str, secret: str) -> bool:
    """Whether `X-Hub-Signature-256` is the HMAC of the body with the secret; compared in constant time.

    Source: GitHub, "Validating webhook deliveries"; Gitea sends the same header.
    """
    match = _SIGNATURE.match(header.strip().lower())
    wanted = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(match[1] if match else "", wanted)


__all__ = ["Autobuild", "Run", "cause_of", "check", "choose", "is_signed", "next_at", "surplus", "wakes_at"]
