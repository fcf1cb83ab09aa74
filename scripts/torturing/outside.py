"""What others do to the engine's things: kill monitors and containers, remove control groups, mounts and files, set the clock, pull the plug.

Within two seconds the engine's records have to say what the kernel does, policies have to be applied once, and the container
has to start again as if nothing had been.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tare.drivers.network.bridge import BridgeDriver
from tare.testing.audit import until
from torturing.engines import ROOT, Tare

IMAGE = "outside:base"
SOON_S = 2.0
_FAKE = """import os, pathlib, time
_ns, _read, _PLACE = time.time_ns, pathlib.Path.read_text, os.environ["TARE_TORTURE_FAKE"]
def time_ns():
    with open(_PLACE + "/clock") as file:
        return _ns() + int(file.read()) * 1_000_000_000
def read_text(self, *rest, **more):
    return _read(pathlib.Path(_PLACE, "boot") if str(self) == "/proc/sys/kernel/random/boot_id" else self, *rest, **more)
time.time_ns, time.time, pathlib.Path.read_text = time_ns, lambda: time_ns() / 1e9, read_text
"""


@dataclass
class Outcome:
    """slowest_s: until the records were the kernel's; faults: one line each, none if all is well."""

    cases: int = 0
    slowest_s: float = 0.0
    faults: list[str] = field(default_factory=list)

    def row(self) -> str:
        """For people."""
        return f"{self.cases} cases, the records were right after {self.slowest_s * 1000:.0f} ms at most, {len(self.faults)} faults"

    def within(self, what: str, holds: Callable[[], bool], *, seconds: float = SOON_S) -> None:
        """It has to hold soon."""
        began = time.monotonic()
        try:
            until(what, holds, patience_s=seconds)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        except (AssertionError, OSError, EOFError) as error:
            self.faults.append(f"{what}: {error!r}")


class Victim:
    """One running container."""

    def __init__(self, engine: Tare, name: str, *, policy: str = "no", command: str = "exec sleep 100000") -> None:
        self.engine, self.name = engine, name
        body = {
            "Image": IMAGE,
            "Cmd": ["sh", "-c", command],
            "HostConfig": {"RestartPolicy": {"Name": policy}, "Binds": ["/anonymous"]},
        }
        self.id = json.loads(engine.call("POST", f"/containers/create?name={name}", body))["Id"]
        engine.call("POST", f"/containers/{name}/start")

    def inspect(self) -> dict[str, Any]:
        """Whole."""
        found: dict[str, Any] = self.engine.json("GET", f"/containers/{self.name}/json")
        return found

    @property
    def pid(self) -> int:
        """Of its first process."""
        return int(self.inspect()["State"]["Pid"])

    @property
    def monitor(self) -> int:
        """Of its monitor."""
        return int(Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[1])

    def groups(self) -> list[Path]:
        """Its control groups."""
        found = []
        for line in Path(f"/proc/{self.pid}/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            root = Path("/sys/fs/cgroup")
            places = (
                [root / name.removeprefix("name=") for name in names.split(",")] if names else [root / "unified", root]
            )
            found += [place / path[1:] for place in places if self.id in path and (place / path[1:]).exists()]
        return found

    def has_ended(self, code: int) -> bool:
        """Whether the record says so."""
        state = self.inspect()["State"]
        return (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", code, 0)


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def _kill_monitor(victim: Victim) -> None:
    _kill(victim.monitor)


def _kill_first(victim: Victim) -> None:
    _kill(victim.pid)


def _kill_both(victim: Victim) -> None:
    _kill(victim.monitor, victim.pid)


def _kill_slowly(victim: Victim) -> None:
    """The monitor is stopped, the container dies, and nobody tells of it until the monitor goes on."""
    monitor, pid = victim.monitor, victim.pid
    os.kill(monitor, signal.SIGSTOP)
    _kill(pid)
    os.kill(monitor, signal.SIGCONT)


DEADLY: dict[str, tuple[Callable[[Victim], None], int]] = {
    "its first process is killed": (_kill_first, 137),
    "its monitor is killed": (_kill_monitor, 255),
    "both are killed": (_kill_both, 255),
    "its monitor stands still while it is killed": (_kill_slowly, 137),
}


def _remove_groups(victim: Victim) -> None:
    for group in victim.groups():
        hierarchy = group
        while str(hierarchy.parent) not in ("/sys/fs/cgroup", "/"):
            hierarchy = hierarchy.parent
        for inner in [*sorted(p.parent for p in group.rglob("cgroup.procs"))][::-1]:
            for pid in (inner / "cgroup.procs").read_text().split():
                (hierarchy / "cgroup.procs").write_text(pid)
            inner.rmdir()


def _unmount(victim: Victim) -> None:
    subprocess.run(["umount", "-l", str(victim.engine.exec_root / "containers" / victim.id / "rootfs")], check=True)


def _remove_bundle(victim: Victim) -> None:
    bundle = victim.engine.exec_root / "containers" / victim.id
    for entry in bundle.iterdir():
        if entry.name != "rootfs":
            entry.unlink() if not entry.is_dir() else shutil.rmtree(entry)


def _remove_runtime(victim: Victim) -> None:
    for state in (victim.engine.exec_root / "runtime").glob(f"*/{victim.id}"):
        shutil.rmtree(state)


def _remove_link(victim: Victim) -> None:
    index = Path(f"/proc/{victim.pid}/root/sys/class/net/eth0/iflink")
    peer = index.read_text().strip() if index.exists() else ""
    for link in Path(f"/sys/class/net/{victim.engine.bridge}/brif").iterdir():
        if not peer or (
            (link / "port_no").exists() and Path(f"/sys/class/net/{link.name}/ifindex").read_text().strip() == peer
        ):
            subprocess.run(["ip", "link", "del", link.name], check=True)


def _remove_files(victim: Victim) -> None:
    shutil.rmtree(victim.engine.data / "containers" / victim.id)


STOLEN: dict[str, Callable[[Victim], None]] = {
    "its control groups are removed": _remove_groups,
    "its root is unmounted": _unmount,
    "its bundle is removed": _remove_bundle,
    "the runtime's state is removed": _remove_runtime,
    "its link is removed": _remove_link,
    "its log and hosts are removed": _remove_files,
}


def run(engine: Tare, base: bytes, *, rounds: int = 1) -> Outcome:
    """Every case on a started engine, `rounds` times."""
    outcome = Outcome()
    engine.import_image(IMAGE, base, changes=['CMD ["sh"]'])
    for number in range(rounds):
        for at, (what, (act, code)) in enumerate(DEADLY.items()):
            for policy in ("no", "always"):
                outcome.cases += 1
                _deadly(
                    engine,
                    outcome,
                    f"{what}, {policy}",
                    Victim(engine, f"d{number}-{at}-{policy}", policy=policy),
                    act,
                    code,
                )
        for at, (what, steal) in enumerate(STOLEN.items()):
            outcome.cases += 1
            _stolen(engine, outcome, what, Victim(engine, f"t{number}-{at}"), steal)
    outcome.faults += engine.findings()
    return outcome


def _deadly(
    engine: Tare, outcome: Outcome, what: str, victim: Victim, act: Callable[[Victim], None], code: int
) -> None:
    pid = victim.pid
    act(victim)
    outcome.within(f"{what}: nothing of it is left", lambda: _gone(pid))
    if victim.inspect()["HostConfig"]["RestartPolicy"]["Name"] == "no":
        outcome.within(f"{what}: the record says so", lambda: victim.has_ended(code))
        time_again = lambda: engine.call("POST", f"/containers/{victim.name}/start")  # noqa: E731
        time_again()
    outcome.within(f"{what}: it runs again", lambda: victim.pid not in (0, pid))
    pid = victim.pid
    outcome.within(f"{what}: the start is told", lambda: _count(engine, victim, "start") >= 2)  # just after the record
    if (starts := _count(engine, victim, "start")) != 2:
        outcome.faults.append(f"{what}: it was started {starts} times")
    if deaths := _count(engine, victim, "die") - 1:
        outcome.faults.append(f"{what}: it died {deaths} times too often")
    if _gone(pid):
        outcome.faults.append(f"{what}: what runs does not")
    _end(engine, outcome, what, victim)


def _count(engine: Tare, victim: Victim, action: str) -> int:
    told = engine.call("GET", f'/events?since=1&until={time.time():.3f}&filters={{"container":["{victim.id}"]}}')
    return sum(json.loads(line)["Action"] == action for line in told.splitlines())


def _stolen(engine: Tare, outcome: Outcome, what: str, victim: Victim, steal: Callable[[Victim], None]) -> None:
    pid = victim.pid
    try:
        steal(victim)
    except OSError as error:
        outcome.faults.append(f"{what}: could not be tried: {error}")
    for path in ("json", "logs?stdout=1", "stats?stream=0&one-shot=1", "top"):
        status, body = engine.request("GET", f"/containers/{victim.name}/{path}")
        if status == 500 and b"Error" in body:
            outcome.faults.append(f"{what}: {path}: {body.decode(errors='replace')[:300]}")
    try:
        engine.call("POST", f"/containers/{victim.name}/stop?t=0")
        outcome.within(f"{what}: nothing of it is left", lambda: _gone(pid))
        engine.call("POST", f"/containers/{victim.name}/start")
    except Exception as error:
        outcome.faults.append(f"{what}: {error}")
    outcome.within(f"{what}: it runs again", lambda: victim.pid not in (0, pid))
    _end(engine, outcome, what, victim)


def _end(engine: Tare, outcome: Outcome, what: str, victim: Victim) -> None:
    status, body = engine.request("DELETE", f"/containers/{victim.name}?force=1&v=1")
    if status != 204:
        outcome.faults.append(f"{what}: cannot be removed: {body.decode(errors='replace')}")
    outcome.faults += [f"{what}: {fault}" for fault in engine.findings(quick=True)]


@dataclass(frozen=True)
class Fake:
    """What an engine takes for the wall clock and for the name of the boot, by a module that its Python loads first."""

    directory: Path

    def environment(self) -> dict[str, str]:
        """For the daemon."""
        self.directory.mkdir(parents=True)
        (self.directory / "sitecustomize.py").write_text(_FAKE)
        self.set_clock(0)
        self.set_boot("00000000-0000-0000-0000-000000000000")
        return {"PYTHONPATH": f"{self.directory}:{ROOT / 'src'}", "TARE_TORTURE_FAKE": str(self.directory)}

    def set_clock(self, seconds: int) -> None:
        """From now on it is so far ahead of the real one."""
        (self.directory / "new").write_text(str(seconds))
        (self.directory / "new").replace(self.directory / "clock")

    def set_boot(self, name: str) -> None:
        """For the next start."""
        (self.directory / "boot").write_text(f"{name}\n")


_DAY_S = 86400
_TALKS = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.2; done"


def clock_jumps(engine: Tare, base: bytes, fake: Fake, *, rounds: int = 1) -> Outcome:
    """A started engine whose clock jumps by a day, forth and back, between and during operations."""
    outcome = Outcome()
    engine.import_image(IMAGE, base, changes=['CMD ["sh"]'])
    check = {"Test": ["CMD", "true"], "Interval": 200_000_000}
    body = {"Image": IMAGE, "Cmd": ["sh", "-c", _TALKS], "Healthcheck": check}
    engine.call("POST", "/containers/create?name=talks", body)
    engine.call("POST", "/containers/talks/start")
    crashes = {"Image": IMAGE, "Cmd": ["false"], "HostConfig": {"RestartPolicy": {"Name": "always"}}}
    engine.call("POST", "/containers/create?name=crashes", crashes)
    engine.call("POST", "/containers/crashes/start")
    Victim(engine, "quiet")
    jumps = [at for _ in range(rounds) for at in (_DAY_S, 0, -_DAY_S, 0)]
    for number, offset in enumerate(jumps):
        outcome.cases += 1
        what = f"jump {number} to {offset} s"
        fake.set_clock(offset)
        engine.timeout_s = 5.0
        checked = _last_check(engine)
        outcome.within(f"{what}: health is looked at", lambda checked=checked: _last_check(engine) != checked)
        for path in (
            "/containers/quiet/logs?stdout=1",
            "/containers/talks/logs?stdout=1&tail=1",
            "/containers/json?all=1",
        ):
            began = time.monotonic()
            engine.call("GET", path)
            if (took := time.monotonic() - began) > SOON_S:
                outcome.faults.append(f"{what}: {path} took {took:.1f} s")
        name = f"n{number}"
        Victim(engine, name)
        began = time.monotonic()
        engine.call("POST", f"/containers/{name}/stop?t=1")
        if not 0.5 < (took := time.monotonic() - began) < 1 + SOON_S:
            outcome.faults.append(f"{what}: a stop with a second to spare took {took:.1f} s")
        engine.call("POST", f"/containers/{name}/start")
        engine.call("DELETE", f"/containers/{name}?force=1&v=1")
    fake.set_clock(0)
    count = engine.json("GET", "/containers/crashes/json")["RestartCount"]
    if count > 10:  # it doubles from a tenth of a second: a clock that jumped ahead has to look like nothing
        outcome.faults.append(f"a container that crashes was started {count} times: the pauses did not grow")
    told = engine.call("GET", f"/events?since=1&until={time.time() - 1:.0f}")
    times = [json.loads(line)["timeNano"] for line in told.splitlines()]
    if times != sorted(set(times)):
        outcome.faults.append("the times of events do not rise")
    for name in ("talks", "crashes", "quiet"):
        engine.call("DELETE", f"/containers/{name}?force=1&v=1")
    outcome.faults += engine.findings()
    return outcome


def _last_check(engine: Tare) -> str:
    log = engine.json("GET", "/containers/talks/json")["State"].get("Health", {}).get("Log") or [{"Start": ""}]
    return str(log[-1]["Start"])


def reboot(engine: Tare, base: bytes, fake: Fake) -> Outcome:
    """The machine goes off and comes back: nothing runs, no memory file system has anything, the kernel has another name."""
    outcome = Outcome()
    engine.import_image(IMAGE, base, changes=['CMD ["sh"]'])
    policies = ("no", "on-failure", "unless-stopped", "always")
    victims = {
        f"{policy}-{kind}": Victim(engine, f"{policy}-{kind}", policy=policy)
        for policy in policies
        for kind in ("runs", "stopped")
    }
    created = json.loads(engine.call("POST", "/containers/create?name=created", {"Image": IMAGE}))["Id"]
    for name in victims:
        if name.endswith("stopped"):
            engine.call("POST", f"/containers/{name}/stop?t=0")
    switch_off(engine, list(victims.values()))
    fake.set_boot("11111111-1111-1111-1111-111111111111")
    engine.start()
    expected = {
        "no-runs": False, "no-stopped": False, "on-failure-runs": True, "on-failure-stopped": False,
        "unless-stopped-runs": True, "unless-stopped-stopped": False, "always-runs": True, "always-stopped": True,
    }  # fmt: skip
    for name, runs in expected.items():
        outcome.cases += 1
        outcome.within(f"{name}: {'runs' if runs else 'does not run'}", lambda n=name, r=runs: _runs(victims[n]) == r)
    until("what is due has been started", lambda: all(_runs(victims[name]) == runs for name, runs in expected.items()))
    for name, runs in expected.items():
        outcome.within(f"{name}: the start is told", lambda n=name, r=runs: _count(engine, victims[n], "start") > r)
        if (starts := _count(engine, victims[name], "start") - 1) != runs:
            outcome.faults.append(f"{name}: was started {starts} times by its policy")
        if runs != _runs(victims[name]):
            outcome.faults.append(f"{name}: {'does not run' if runs else 'runs'} after a moment")
    if engine.json("GET", f"/containers/{created}/json")["State"]["Status"] != "created":
        outcome.faults.append("what was only created is something else")
    outcome.faults += engine.findings()
    for name in [*victims, "created"]:
        engine.call("DELETE", f"/containers/{name}?force=1&v=1")
    outcome.faults += engine.findings()
    return outcome


def _runs(victim: Victim) -> bool:
    state = victim.inspect()["State"]
    return bool(state["Running"]) and not _gone(state["Pid"])


def switch_off(engine: Tare, victims: list[Victim]) -> None:
    """End everything at once and take away what no machine has after that: processes, mounts, links, groups, the exec root."""
    pids = [(victim.monitor, victim.pid) for victim in victims if _runs(victim)]
    groups = [group for victim in victims if _runs(victim) for group in victim.groups()]
    engine.kill()
    for monitor, pid in pids:
        _kill(monitor, pid)
    until("all have ended", lambda: all(_gone(pid) for both in pids for pid in both))
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in sorted((place for place in mounts if place.startswith(f"{engine.exec_root}/")), reverse=True):
        subprocess.run(["umount", "-l", place], check=True)
    for group in groups:
        for inner in sorted((p.parent for p in group.rglob("cgroup.procs")), reverse=True):
            inner.rmdir()
    driver = BridgeDriver(rules=True)
    try:
        driver.remove_bridge(engine.bridge)
    finally:
        driver.close()
    shutil.rmtree(engine.exec_root)
