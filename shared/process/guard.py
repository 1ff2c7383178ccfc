"""The guard: ends our child processes when we die, however we die.

Children join the guard's process group. The guard waits for the end of a pipe that only we hold, which comes
with our exit, even after `kill -9`; then it ends the whole group. It is the group's leader, so the group's id
can't be reused. PR_SET_PDEATHSIG would do as well, but only on Linux, and it reacts to the end of a thread.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

GRACE_SECONDS = 3.0  # between SIGTERM and SIGKILL, so that everything ends within five


class Guard:
    """`with Guard() as guard: Popen(…, process_group=guard.group)`"""

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """`grace_seconds` between SIGTERM and SIGKILL, for children that have something to end."""
        self._grace_seconds = grace_seconds

    def __enter__(self) -> Guard:
        # By path and with -I -S: the guard then starts in some 15 ms and needs nothing but the standard
        # library.
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(self._grace_seconds)],
            stdin=subprocess.PIPE,
            process_group=0,
        )
        return self

    @property
    def group(self) -> int:
        return self.process.pid

    def __exit__(self, *_: object) -> None:
        """Kills whatever is still in the group; end children gently before."""
        if self.process.poll() is None:
            os.killpg(self.group, signal.SIGKILL)
        self.process.communicate()


def _wait_and_end(grace_seconds: float) -> None:
    for quiet in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(quiet, signal.SIG_IGN)
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(grace_seconds)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    _wait_and_end(float(sys.argv[1]))
