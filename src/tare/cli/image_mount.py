"""`tare image mount` and `tare image unmount`: looking into images with ordinary programs. Docker has no such commands."""

from __future__ import annotations

from tare.cli import exit as exits
from tare.cli import flags, human, listing
from tare.cli.ps import ago

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.context import Context


def _mount(context: Context, _: flags.Options, operands: list[str]) -> int:
    if not operands:
        return _list(context)
    target = ""
    if len(operands) > 1:
        import os

        target = os.path.abspath(operands[1])
    answer = context.client.post("/tare/v1/mounts", body={"Image": operands[0], "Target": target})
    assert isinstance(answer, dict)
    context.line(str(answer["Target"]))
    return exits.OK


def _list(context: Context) -> int:
    answer = context.client.get("/tare/v1/mounts")
    rows = [["IMAGE", "IMAGE ID", "MOUNTED", "TARGET"]]
    for mount in answer if isinstance(answer, list) else []:
        assert isinstance(mount, dict)
        moment = human.parse_time(str(mount.get("MountedAt") or ""))
        rows.append(
            [
                listing.escape(str(mount["Image"])),
                listing.short_id(str(mount["ImageID"])),
                ago(moment[0]) if moment else "N/A",
                listing.escape(str(mount["Target"])),
            ]
        )
    context.out(listing.table(rows))
    return exits.OK


def _unmount(context: Context, options: flags.Options, operands: list[str]) -> int:
    from tare.cli.context import each

    def act(name: str) -> str | None:
        if "/" in name and name[:1] in "./":
            import os

            name = os.path.abspath(name)
        query: dict[str, str | bool] = {"of": name, "force": options.on("force")}
        done = context.client.call("DELETE", "/tare/v1/mounts", query=query)
        targets = [str(mount["Target"]) for mount in done if isinstance(mount, dict)] if isinstance(done, list) else []
        return "\n".join(targets) or None

    return each(context, operands, act)


MOUNT = flags.Command(
    _mount,
    "Mount an image on this machine, to look into it",
    operands="[IMAGE [DIRECTORY]]",
    most=2,
    about="Read-only, on the machine of the engine. Prints the directory, which is chosen by the engine if none is named. "
    "Without an image, lists what is mounted. A mounted image is not removed; mounts outlive the engine, not a reboot.",
)
UNMOUNT = flags.Command(
    _unmount,
    "Unmount images",
    operands="IMAGE|DIRECTORY [IMAGE|DIRECTORY...]",
    least=1,
    most=None,
    flags=(flags.Flag("force", "f", flags.BOOL, "Also when somebody uses it, who keeps what is open"),),
)
