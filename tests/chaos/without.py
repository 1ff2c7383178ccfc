"""Sender or receiver with one safeguard switched off: a proof that it is needed, and that the checker sees.

    python -m tests.chaos.without position-check receiver --port 0

Each of these changes one thing and then runs the real `__main__`. Nothing of it is in the services
themselves. tests/chaos/test_without.py shows what goes wrong without each.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def crash_on_signal() -> None:
    """No safeguard is off: after SIGUSR1 the sender dies before its next publish, as by kill -9."""
    from sender.relay import Relay

    publish, crashing = Relay._publish, False

    def crash(*_: object) -> None:
        nonlocal crashing
        crashing = True

    async def publish_or_die(self: Relay, *args: object, **kwargs: object) -> object:
        if crashing:
            os.kill(os.getpid(), signal.SIGKILL)
        return await publish(self, *args, **kwargs)  # type: ignore[arg-type] # as they came

    Relay._publish = publish_or_die  # type: ignore[assignment, method-assign]
    signal.signal(signal.SIGUSR1, crash)


SAFEGUARDS: dict[str, Callable[[], None]] = {
    change.__name__.replace("_", "-"): change for change in (crash_on_signal,)
}


def main() -> None:
    _, safeguard, service, *arguments = sys.argv
    SAFEGUARDS[safeguard]()
    sys.argv = [service, *arguments]
    runpy.run_module(service, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
