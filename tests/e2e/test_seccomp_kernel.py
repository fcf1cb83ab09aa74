"""The seccomp filter as the kernel has it in a container: calls that a capability opens, tried with and without it.

Exercises the whole way from `--cap-add` over the profile and the compiled filter to the runtime, crun and runc.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86_64"),
]
EPERM, ENOSYS = 1, 38
NUMBERS = {
    "open_by_handle_at": 304, "bpf": 321, "perf_event_open": 298, "mount": 165, "umount2": 166, "setns": 308,
    "unshare": 272, "sethostname": 170, "fsopen": 430, "move_mount": 429, "reboot": 169, "init_module": 175,
    "delete_module": 176, "acct": 163, "kcmp": 312, "iopl": 172, "ioperm": 173, "settimeofday": 164, "clock_settime": 227,
    "syslog": 103, "set_mempolicy": 238, "quotactl": 179,
    # never, whatever the container may do
    "keyctl": 250, "add_key": 248, "io_uring_setup": 425, "userfaultfd": 323, "kexec_load": 246, "swapon": 167,
    "pivot_root": 155, "move_pages": 279,
}  # fmt: skip
OPENS = {
    "DAC_READ_SEARCH": {"open_by_handle_at"},
    "SYS_ADMIN": {  # the filter lets it try syslog as well; the kernel wants SYSLOG all the same
                  "mount", "umount2", "setns", "unshare", "sethostname", "fsopen", "move_mount", "quotactl", "bpf", "perf_event_open"},
    "SYS_BOOT": {"reboot"},
    "SYS_MODULE": {"init_module", "delete_module"},
    "SYS_PACCT": {"acct"},
    "SYS_PTRACE": {"kcmp"},
    "SYS_RAWIO": {"iopl", "ioperm"},
    "SYS_TIME": {"settimeofday", "clock_settime"},
    "SYS_NICE": {"set_mempolicy"},
    "SYSLOG": {"syslog"},
}  # fmt: skip
PROBE = """
import ctypes, json, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
found = {}
for name, number in json.loads(sys.argv[1]).items():
    read, write = os.pipe()
    if os.fork() == 0:  # each alone: one that hangs or kills tells so
        signal.alarm(5)
        ctypes.set_errno(0)
        result = libc.syscall(number, *(ctypes.c_long(-1) for _ in range(6)))
        os.write(write, str(ctypes.get_errno() if result == -1 else 0).encode())
        os._exit(0)
    os.close(write)
    found[name] = int(os.read(read, 16) or b"-1")
    os.close(read)
    os.wait()
print(json.dumps(found))
"""


def probed(host: str, *options: str) -> dict[str, int]:
    """errno of each call with senseless arguments, 0 for success, -1 for a call that did not come back."""
    python = ["-v", "/usr:/usr:ro", "-v", "/usr/lib:/lib:ro", "-v", "/usr/lib64:/lib64:ro"]
    done = subprocess.run(
        ["docker", "run", "--rm", *python, *options, "busybox", "/usr/bin/python3", "-ISc", PROBE, json.dumps(NUMBERS)],
        env={"DOCKER_HOST": host, "PATH": "/usr/local/bin:/usr/bin:/bin"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {name: int(code) for name, code in json.loads(done.stdout).items()}


@pytest.fixture(scope="module", params=["crun", "runc"])
def runtime(request: pytest.FixtureRequest) -> str:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    if sys.version_info < (3, 11) or not shutil.which("python3", path="/usr/bin"):
        pytest.skip("the probe needs the distribution's python3")
    return str(request.param)


def test_without_a_capability_all_of_them_are_refused(engine_host: str, runtime: str) -> None:
    found = probed(engine_host, "--runtime", runtime, "--cap-drop", "ALL")
    assert {name: code for name, code in found.items() if code not in (EPERM, ENOSYS)} == {}


@pytest.mark.parametrize("capability", sorted(OPENS))
def test_a_capability_opens_its_calls_and_no_others(engine_host: str, runtime: str, capability: str) -> None:
    found = probed(engine_host, "--runtime", runtime, "--cap-drop", "ALL", "--cap-add", capability)
    opened = {name for name, code in found.items() if code not in (EPERM, ENOSYS)}
    absent = {name for name in OPENS[capability] if found[name] == ENOSYS}  # not in this kernel
    assert opened == OPENS[capability] - absent


def test_unconfined_lets_the_kernel_decide(engine_host: str, runtime: str) -> None:
    found = probed(engine_host, "--runtime", runtime, "--security-opt", "seccomp=unconfined")
    assert found["keyctl"] not in (EPERM, ENOSYS)
