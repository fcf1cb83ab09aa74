"""The check of everything the engine keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
from msgspec import UNSET

from tare.base.errors import TareError
from tare.engine.check.check import GRACE_S, QUIET_GRACE_S, Doing, Options, Summary, Told
from tare.engine.check.check import check as look
from tare.engine.engine import Engine
from tare.web.message import Answer, Request, Stream
from tare.wire import check as wire
from tare.wire.errors import text_of


async def check(engine: Engine, request: Request) -> Answer:
    """`POST /tare/v1/check`: a line of JSON for each step, the summary last."""
    query = request.query
    is_quiet = query.flag("quiet")
    options = Options(
        quick=query.flag("quick"),
        fix=query.flag("fix"),
        is_quiet=is_quiet,
        grace_s=QUIET_GRACE_S if is_quiet else GRACE_S,
    )
    steps = look(engine, options)
    first = await anext(steps)  # what refuses it at all is a status

    async def lines() -> AsyncIterator[bytes]:
        async with aclosing(steps):  # type: ignore[type-var]
            try:
                yield _line(first)
                async for step in steps:
                    yield _line(step)
            except TareError as error:
                yield msgspec.json.encode(wire.CheckLine(Error=text_of(error))) + b"\n"

    return Stream(lines())


def _line(step: Doing | Told | Summary) -> bytes:
    match step:
        case Doing():
            body = wire.CheckLine(Progress=wire.CheckProgress(Current=step.current, Total=step.total, Blob=step.blob))
        case Told():
            finding = wire.CheckFinding(
                Kind=step.finding.kind,
                Subject=step.finding.subject,
                Text=step.finding.text,
                Remedy=step.finding.remedy,
                Mended=step.mended,
                Note=step.note or UNSET,
            )
            body = wire.CheckLine(Finding=finding)
        case Summary():
            summary = wire.CheckSummary(
                Blobs=step.blobs,
                Layers=step.layers,
                Containers=step.containers,
                BytesRead=step.bytes_read,
                Findings=step.findings,
                Left=step.left,
                Seconds=round(step.took_s, 3),
            )
            body = wire.CheckLine(Summary=summary)
    return msgspec.json.encode(body) + b"\n"
