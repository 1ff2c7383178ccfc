"""The pace of publishing: how much at a time, how often, and how long after a failure."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    batch: int = 500  # events in one round trip
    # Published events are marked together: a disk sync for each would slow callers down.
    mark_seconds: float = 0.05
    poll_seconds: float = 1.0  # finds events of a sender that died before it published them
    first_backoff_seconds: float = 0.2
    max_backoff_seconds: float = 2.0
    attempts: int = 5  # for an event that Redis refuses; about three seconds
    late_seconds: float = 1.0  # after it was recorded, an event should be in Redis
    # Without a turn, the relay counts as dead; deadlines of Redis and database are far below.
    dead_seconds: float = 30.0
    # Events of a channel that are published again if Redis has lost them: enough for a short absence. Older
    # ones are read from the database, like those of a quiet channel; publishing each channel's whole log
    # again would delay every new event for minutes.
    refill_length: int = 100
    refill_at_once: int = 256  # events, of all channels that Redis has lost
    claim_seconds: int = 15  # for which a sender claims the names in Redis
    hold_seconds: float = 2.0  # after which it claims them again
    succeed_seconds: float = 300.0  # how long another living installation must have been away

    def backoff(self, attempts: int) -> float:
        """Seconds to wait after that many failures in a row."""
        longest = min(self.max_backoff_seconds, self.first_backoff_seconds * 2 ** min(attempts - 1, 10))
        return random.uniform(longest / 2, longest)


USUAL = Pace()
