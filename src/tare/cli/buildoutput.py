"""`tare build --output`: where the result of a build goes: a directory, a tar, an archive of the image, the image store.

Source: docker buildx build, `--output`; the result is read from the engine once the build is done.
"""

from __future__ import annotations

import os
import sys

from tare.cli import exit as exits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tare.cli.context import Context
    from tare.client.http import QueryValue

_DEFAULT_NAMES = {"local": "", "tar": "-", "oci": "-", "docker": ""}


class Output:
    """One --output. `dest` is a path, "-" for stdout; "" only for images that stay in the engine."""

    def __init__(self, kind: str, dest: str, names: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.dest = dest
        self.names = names

    def __repr__(self) -> str:
        return f"Output({self.kind!r}, {self.dest!r}, {self.names!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Output) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    @property
    def is_read(self) -> bool:
        """Whether there is something to fetch from the engine."""
        return bool(self.dest)


def parse(text: str) -> Output:
    """`DIR`, `-`, or `type=KIND[,dest=PATH][,name=NAME]`. Raises ValueError."""
    from tare.cli.csvline import fields

    if text == "-":
        text = "type=tar,dest=-"
    parts = fields(text)
    if len(parts) == 1 and "=" not in parts[0]:
        return Output("local", parts[0])
    known: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if not equals:
            raise ValueError(f"invalid value {part}")
        if key not in ("type", "dest", "name", "tar", "push"):
            raise ValueError(f"output attribute {key!r} is not served: use type, dest, name")
        known[key] = value
    return _output(text, known)


def _output(text: str, known: dict[str, str]) -> Output:
    kind = known.get("type", "")
    names = tuple(name for name in known.get("name", "").split(",") if name)
    dest = known.get("dest", "")
    if kind in ("registry", "image") and (kind == "registry" or known.get("push", "false") != "false"):
        raise ValueError("the result is not pushed by the build: give it a name and use `tare push`")
    if kind == "image":
        return Output("docker", "", names)
    if kind not in _DEFAULT_NAMES:
        raise ValueError(
            f"unsupported output type {kind!r}: use local, tar, oci, docker or image"
            if kind
            else f"type is required for output {text!r}"
        )
    if known.get("tar", "true") != "true":
        raise ValueError("tar=false is not served: unpack the archive")
    if kind == "local" and dest in ("", "-"):
        raise ValueError("dest is required for local output, and is a directory")
    if (dest or _DEFAULT_NAMES[kind]) == "-" and sys.stdout.isatty():
        raise ValueError(f"dest file is required for {kind} exporter. refusing to write to console")
    return Output(kind, dest or _DEFAULT_NAMES[kind], names)


def parse_all(given: Sequence[str]) -> list[Output]:
    """All of them. Raises ValueError, also when two want stdout."""
    found = [parse(text) for text in given]
    if sum(output.dest == "-" for output in found) > 1:
        raise ValueError("only one output can go to stdout")
    return found


def check(text: str) -> None:
    """For the flag: raise ValueError as `parse` does."""
    parse(text)


def fetch(context: Context, image: str, outputs: Sequence[Output], *, tags: Sequence[str]) -> None:
    """Read the results. The engine forgets an image without a name with the last. Raises Exit."""
    from tare.cli.container_read import write_stream

    wanted = [output for output in outputs if output.is_read]
    for number, output in enumerate(wanted, 1):
        query: dict[str, QueryValue] = {
            "type": output.kind,
            "name": list(output.names or tags),
            "last": number == len(wanted),
        }
        answer = context.client.request("GET", f"/tare/v1/builds/{image}/result", query=query)
        try:
            if output.kind == "local":
                _to_directory(context, output.dest, iter(answer))
            else:
                write_stream(context, answer, output.dest.removeprefix("-"), label="write the result")
        except OSError as error:
            raise exits.Exit(exits.FAILED, f"open {output.dest}: {(error.strerror or str(error)).lower()}") from None
        finally:
            answer.close()


def _to_directory(context: Context, directory: str, pieces: Iterator[bytes]) -> None:
    from tare.cli.checkout import unpack

    os.makedirs(directory, exist_ok=True)
    left_out = unpack(pieces, directory, is_root=os.geteuid() == 0)
    if left_out:
        context.error(f"WARNING: {left_out} devices were left out: only root can make them")


__all__ = ["Output", "check", "fetch", "parse", "parse_all"]
