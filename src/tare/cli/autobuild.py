"""`tare autobuild add|ls|run|logs|history|rm|pause|resume|stop`: the engine builds from a repository by itself. Docker has no such command."""

from __future__ import annotations

import sys
import time

from tare.cli import exit as exits
from tare.cli import flags, human, listing
from tare.cli.context import each
from tare.cli.createspec import check_env
from tare.cli.flags import BOOL, LIST, STRING, Flag
from tare.cli.ps import FORMAT
from tare.client.http import percent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from tare.cli.context import Context
    from tare.cli.listing import Item
    from tare.client.http import QueryValue

_PATH = "/tare/v1/autobuilds"
_QUIET = Flag("quiet", "q", BOOL, "Print names and nothing else")


def _seconds(text: object) -> int:
    """A time of the wire in seconds; 0 for none."""
    found = human.parse_time(str(text or ""))
    return found[0] if found is not None and found[0] > 0 else 0


def _when(text: object, *, now: float | None = None) -> str:
    """`2 hours ago`, `in 10 hours`, or nothing."""
    seconds = _seconds(text)
    if not seconds:
        return ""
    left = seconds - (time.time() if now is None else now)
    return f"in {human.duration(left)}" if left > 0 else f"{human.duration(-left)} ago"


def _next(item: Item) -> str:
    if item.get("Running"):
        return "now"
    return "paused" if item.get("Paused") else _when(item.get("NextRun")) or "when asked"


def _last(item: Item, key: str) -> str:
    last = item.get("LastRun")
    return str(last.get(key) or "") if isinstance(last, dict) else ""


def _took(run: Item) -> str:
    begun, ended = _seconds(run.get("StartedAt")), _seconds(run.get("FinishedAt"))
    return human.duration(max(0, (ended or int(time.time())) - begun))


KIND = listing.Kind(
    "*autobuild",
    {
        "Name": ("NAME", lambda item: item.get("Name", "")),
        "ID": ("ID", lambda item: item.get("Id", "")),
        "Git": ("REPOSITORY", lambda item: item.get("Git", "")),
        "Branch": ("BRANCH", lambda item: item.get("Branch") or "(default)"),
        "Tags": ("TAGS", lambda item: ",".join(item.get("Tags") or [])),
        "Schedule": ("SCHEDULE", lambda item: item.get("Schedule") or "-"),
        "Status": ("LAST RUN", lambda item: _last(item, "Status") or "never"),
        "LastRun": ("WHEN", lambda item: _when(_last(item, "StartedAt"))),
        "Commit": ("BUILT", lambda item: str(item.get("Built") or "")[:12]),
        "NextRun": ("NEXT RUN", _next),
        "Paused": ("PAUSED", lambda item: str(bool(item.get("Paused"))).lower()),
        "Push": ("PUSH", lambda item: str(bool(item.get("Push"))).lower()),
    },
)
RUNS = listing.Kind(
    "*autobuildRun",
    {
        "Number": ("RUN", lambda run: str(run.get("Number", ""))),
        "Status": ("STATUS", lambda run: run.get("Status", "")),
        "Cause": ("CAUSE", lambda run: run.get("Cause", "")),
        "Commit": ("COMMIT", lambda run: str(run.get("Commit") or "")[:12]),
        "Image": ("IMAGE", lambda run: listing.short_id(str(run.get("Image") or ""))),
        "Started": ("STARTED", lambda run: _when(run.get("StartedAt"))),
        "Took": ("TOOK", _took),
        "ExitCode": ("EXIT CODE", lambda run: str(run.get("ExitCode", 0))),
        "Error": ("ERROR", lambda run: run.get("Error", "")),
    },
)


def body(name: str, options: flags.Options, environ: Mapping[str, str]) -> dict[str, object]:
    """The request of add. Raises ValueError."""
    from tare.cli.build import build_args

    seconds = 0
    if text := options.text("timeout"):
        seconds = human.parse_duration(text) // 1_000_000_000
    return {
        "Name": name,
        "Git": options.text("git"),
        "Branch": options.text("branch"),
        "Context": options.text("context"),
        "Dockerfile": options.text("dockerfile"),
        "Schedule": options.text("schedule"),
        "Tags": options.many("tag"),
        "BuildArgs": {
            key: value for key, value in build_args(options.many("build-arg"), environ).items() if value is not None
        },
        "Push": options.on("push"),
        "Timeout": seconds,
    }


def _add(context: Context, options: flags.Options, operands: list[str]) -> int:
    from tare.cli import registryauth

    for name in ("git", "tag"):
        if not options.many(name) if name == "tag" else not options.text(name):
            raise exits.Exit(
                exits.FAILED, f"--{name} is needed: tare autobuild add NAME --git URL --tag REPOSITORY:TAG"
            )
    try:
        wanted = body(operands[0], options, context.environ)
    except ValueError as error:
        raise exits.Exit(exits.FAILED, str(error)) from None
    headers = registryauth.header(context.config_dir, options.many("tag")[0]) if options.on("push") else {}
    made = context.client.request("POST", _PATH, body=wanted, headers=headers).json()
    assert isinstance(made, dict)
    if options.on("quiet"):
        context.line(str(made["Secret"]))
        return exits.OK
    context.line(str(made["Name"]))
    context.line(f"hook:    POST {_PATH}/{made['Name']}/hook")
    context.line(f"secret:  {made['Secret']}  (of the hook; it is not shown again)")
    return exits.OK


def _ls(context: Context, options: flags.Options, _: list[str]) -> int:
    answer = context.client.get(_PATH)
    found = [item for item in answer if isinstance(item, dict)] if isinstance(answer, list) else []
    layout = options.text("format")
    if options.on("quiet") and not layout:
        listing.lines(context, [str(item["Name"]) for item in found])
        return exits.OK
    columns = ("Name", "Git", "Branch", "Schedule", "Status", "LastRun", "Commit", "NextRun")
    listing.show(context, KIND, found, columns=columns, layout=layout)
    return exits.OK


def _run(context: Context, options: flags.Options, operands: list[str]) -> int:
    from tare.cli.build import fail

    query: dict[str, QueryValue] = {"force": options.on("force"), "detach": options.on("detach")}
    answer = context.client.request("POST", f"{_PATH}/{percent(operands[0])}/run", query=query)
    if options.on("detach"):
        context.line(operands[0])
        return exits.OK
    last = ""
    for told in answer.documents():
        assert isinstance(told, dict)
        try:
            fail(told)
        except exits.Exit as leaving:  # the log ends with the error too: once is enough
            raise exits.Exit(leaving.code, "" if last.endswith(f"{leaving.message}\n") else leaving.message) from None
        if text := told.get("stream"):
            last = (last + str(text))[-4096:]
            sys.stdout.write(str(text))
            sys.stdout.flush()
    return exits.OK


def _logs(context: Context, options: flags.Options, operands: list[str]) -> int:
    from tare.cli.streams import write_all

    number = operands[1] if len(operands) > 1 else "0"
    if not number.isdecimal():
        raise exits.Exit(exits.FAILED, f"invalid number of a run: {number}: see tare autobuild history {operands[0]}")
    query: dict[str, QueryValue] = {"run": number, "follow": options.on("follow")}
    answer = context.client.request("GET", f"{_PATH}/{percent(operands[0])}/logs", query=query)
    sys.stdout.flush()
    for piece in answer:
        write_all(1, piece)
    return exits.OK


def _history(context: Context, options: flags.Options, operands: list[str]) -> int:
    answer = context.client.get(f"{_PATH}/{percent(operands[0])}/runs")
    found = [run for run in answer if isinstance(run, dict)] if isinstance(answer, list) else []
    layout = options.text("format")
    if options.on("quiet") and not layout:
        listing.lines(context, [str(run["Number"]) for run in found])
        return exits.OK
    columns = ("Number", "Status", "Cause", "Commit", "Image", "Started", "Took", "Error")
    listing.show(context, RUNS, found, columns=columns, layout=layout)
    return exits.OK


def _remove(context: Context, _: flags.Options, operands: list[str]) -> int:
    def act(name: str) -> str:
        context.client.call("DELETE", f"{_PATH}/{percent(name)}")
        return name

    return each(context, operands, act)


def _post(context: Context, operands: list[str], verb: str) -> int:
    def act(name: str) -> str:
        context.client.call("POST", f"{_PATH}/{percent(name)}/{verb}")
        return name

    return each(context, operands, act)


def _pause(context: Context, _: flags.Options, operands: list[str]) -> int:
    return _post(context, operands, "pause")


def _resume(context: Context, _: flags.Options, operands: list[str]) -> int:
    return _post(context, operands, "resume")


def _stop(context: Context, _: flags.Options, operands: list[str]) -> int:
    return _post(context, operands, "stop")


ADD = flags.Command(
    _add,
    "Let the engine build from a git repository by itself",
    operands="NAME",
    least=1,
    most=1,
    about=(
        "The branch is built when it has a new commit: when the schedule comes, when a signed hook request does, or by"
        " `tare autobuild run`. The schedule is in UTC. The secret of the hook is printed once."
    ),
    flags=(
        Flag("branch", "", STRING, "The branch; the repository's default where none is named"),
        Flag("build-arg", "", LIST, "Set an ARG of the Dockerfile, name=value", check=check_env),
        Flag("context", "", STRING, "The directory of the repository that is the context"),
        Flag("dockerfile", "f", STRING, "The Dockerfile in the context"),
        Flag("git", "", STRING, "The repository, as https://HOST/PATH.git"),
        Flag("push", "", BOOL, "Push the tags after each build, with the credentials kept here for their registry"),
        Flag("quiet", "q", BOOL, "Print the secret of the hook and nothing else"),
        Flag("schedule", "", STRING, 'nightly, hourly, weekly, monthly, or five fields of cron: "30 2 * * mon-fri"'),
        Flag("tag", "t", LIST, "Name of the image, name[:tag]"),
        Flag("timeout", "", STRING, "How long a run may take, as 90m (default 6h)"),
    ),
)
LS = flags.Command(_ls, "List automated builds", flags=(FORMAT, _QUIET))
RUN = flags.Command(
    _run,
    "Run an automated build now and follow it",
    operands="NAME",
    least=1,
    most=1,
    about="Ends with the exit code of the build. It goes on when this program is interrupted: `tare autobuild stop` ends it.",
    flags=(
        Flag("detach", "d", BOOL, "Do not wait for it"),
        Flag("force", "", BOOL, "Build also when there is no new commit"),
    ),
)
LOGS = flags.Command(
    _logs,
    "Print what a run of an automated build said",
    operands="NAME [RUN]",
    least=1,
    most=2,
    about="The last run where no number is given.",
    flags=(Flag("follow", "f", BOOL, "Go on with what is said from now on"),),
)
HISTORY = flags.Command(
    _history,
    "List the runs of an automated build",
    operands="NAME",
    least=1,
    most=1,
    flags=(FORMAT, Flag("quiet", "q", BOOL, "Print numbers and nothing else")),
)
RM = flags.Command(_remove, "Remove automated builds with their history", operands="NAME [NAME...]", least=1, most=None)
PAUSE = flags.Command(
    _pause, "Let schedules and hooks of automated builds rest", operands="NAME [NAME...]", least=1, most=None
)
RESUME = flags.Command(_resume, "Let paused automated builds go on", operands="NAME [NAME...]", least=1, most=None)
STOP = flags.Command(
    _stop, "End the runs of automated builds that go on", operands="NAME [NAME...]", least=1, most=None
)
