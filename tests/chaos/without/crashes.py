"""Points at which a sender dies, as by kill -9. No safeguard is off."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.chaos.without.patches import Patch


def crash_on_signal(patch: Patch) -> None:
    """No safeguard is off: after SIGUSR1 the sender dies before its next publish, as by kill -9."""
    from sender.publishing.publisher import Publisher

    send, crashing = Publisher._send, False

    def crash(*_: object) -> None:
        nonlocal crashing
        crashing = True

    async def send_or_die(self: Publisher, *args: Any, **kwargs: Any) -> object:
        if crashing:
            os.kill(os.getpid(), signal.SIGKILL)
        return await send(self, *args, **kwargs)

    patch(Publisher, "_send", send_or_die)
    signal.signal(signal.SIGUSR1, crash)


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash_before_commit(patch: Patch) -> None:
    """No safeguard is off: the sender dies when a completion is written and not committed."""
    _crash_at_completion(patch, "_run_groups")


def crash_after_commit(patch: Patch) -> None:
    """No safeguard is off: the sender dies when a completion is committed and not answered."""
    _crash_at_completion(patch, "_run")


def _crash_at_completion(patch: Patch, function: str) -> None:
    """Die when that function of the SQLite writer has done its part and there is an event."""
    from sender.database import sqlite
    from sender.database.sqlite_connect import driver_of

    do = getattr(sqlite, function)

    def do_and_die(connection: Any, jobs: Any) -> object:
        outcomes: object = do(connection, jobs)
        (events,) = driver_of(connection).execute("SELECT count(*) FROM events").fetchone()
        if events:
            _die()
        return outcomes

    patch(sqlite, function, do_and_die)


def crash_before_mark(patch: Patch) -> None:
    """No safeguard is off: the sender dies when Redis has an event and the outbox does not know it yet."""
    from sender import outbox

    patch(outbox, "mark_published", _die)
