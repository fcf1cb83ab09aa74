"""`tare checkout`: the files of an image or container in a directory. Docker has no such command.

The tar comes from outside, so the engine's own extractor unpacks it: by descriptors below the directory, following no
link. Owners, devices and extended attributes are kept as root only.
"""

from __future__ import annotations

from tare.cli import exit as exits
from tare.cli import flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from tare.cli.context import Context


def prepare(directory: str, *, force: bool) -> bool:
    """Make the directory if it is not there; whether it was made. Raises Exit when something is in it."""
    import os

    try:
        members = os.listdir(directory)
    except FileNotFoundError:
        os.mkdir(directory)
        return True
    except NotADirectoryError:
        raise exits.Exit(exits.FAILED, f"{directory} is not a directory") from None
    if members and not force:
        raise exits.Exit(exits.FAILED, f"{directory} is not empty: add --force to write over what is there")
    return False


def unpack(pieces: Iterator[bytes], directory: str, *, is_root: bool) -> int:
    """Extract a plain tar; how many devices were left out, which only root can make. Raises Exit for a wrong one."""
    import os

    from tare.drivers.archive import tar
    from tare.drivers.archive.extract import Extractor

    left_out = 0

    class Ours(Extractor):
        def add(self, entry: tar.Entry, source: tar.Source) -> None:
            nonlocal left_out
            if not is_root and entry.kind in (tar.CHAR, tar.BLOCKDEV):
                left_out += 1
            else:
                super().add(entry, source)

    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    mask = os.umask(0)
    try:
        source = tar.Source(lambda: next(pieces, b""))
        Ours(fd, whiteouts=False, owners=is_root, keep_free=False).run(source)
        source.drain()
    except tar.ArchiveError as error:
        raise exits.Exit(exits.FAILED, f"{directory}: {error}") from None
    finally:
        os.umask(mask)
        os.close(fd)
    return left_out


def _checkout(context: Context, options: flags.Options, operands: list[str]) -> int:
    import os

    name, directory = operands
    query = {"of": name, "path": options.text("path")}
    answer = context.client.request("GET", "/tare/v1/tree", query=query)  # the name is right, or this raises
    is_new = False
    try:
        is_new = prepare(directory, force=options.on("force"))
        left_out = unpack(iter(answer), directory, is_root=os.geteuid() == 0)
    except BaseException:
        answer.close()
        if is_new and not os.listdir(directory):
            os.rmdir(directory)
        raise
    if left_out:
        context.error(f"WARNING: {left_out} devices were left out: only root can make them")
    return exits.OK


CHECKOUT = flags.Command(
    _checkout,
    "Write the files of an image into a directory",
    operands="IMAGE|CONTAINER[@LAYER] DIRECTORY",
    least=2,
    most=2,
    about="The directory must be empty, or is made. Owners and devices are kept as root only. @LAYER is as in diff.",
    flags=(
        flags.Flag("force", "f", flags.BOOL, "Write into a directory that is not empty"),
        flags.Flag("path", "", flags.STRING, "Only what is at this path of the image"),
    ),
)
