"""`tare build --ssh ID=KEY`: an agent that holds the keys as long as the build lasts, in a directory nobody else can open."""

from __future__ import annotations

from contextlib import contextmanager

from tare.cli import exit as exits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def with_keys(paths: Sequence[str]) -> Iterator[str]:
    """The socket of an agent with these keys, ended with the block. Raises Exit: no ssh-agent, a key it refuses."""
    import os
    import shutil
    import subprocess
    import tempfile

    agent, adder = shutil.which("ssh-agent"), shutil.which("ssh-add")
    if agent is None or adder is None:
        raise exits.Exit(exits.FAILED, "--ssh with a key needs ssh-agent and ssh-add: install openssh-client")
    with tempfile.TemporaryDirectory(prefix="tare-ssh-") as directory:
        path = os.path.join(directory, "agent")
        # In the foreground it says where it listens when it does, and ends with us by its pid.
        process = subprocess.Popen([agent, "-D", "-a", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise exits.Exit(exits.FAILED, "ssh-agent does not start")
            environment = {**os.environ, "SSH_AUTH_SOCK": path}
            done = subprocess.run(
                [adder, "-q", *paths],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise exits.Exit(exits.FAILED, f"cannot use the key: {done.stderr.strip()}")
            yield path
        finally:
            process.terminate()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


__all__ = ["with_keys"]
