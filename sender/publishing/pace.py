"""The pace of publishing: how much at a time, how often, and how long after a failure."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    batch: int = 500  # events in one round trip
    # What was published is marked together: a disk sync for each event would cost the callers.
    mark_seconds: float = 0.05
    poll_seconds: float = 1.0  # finds what another sender recorded and did not live to publish
    first_backoff_seconds: float = 0.2
    max_backoff_seconds: float = 2.0
    attempts: int = 5  # for an event that Redis refuses; three seconds or so
    late_seconds: float = 1.0  # after it was recorded, an event should be in Redis
    # Without a turn of the relay; Redis' and the database's deadlines are far below.
    dead_seconds: float = 30.0
    # Events of a channel that go back into a Redis that has lost them: enough for a short absence. Older
    # ones are read from the database, as those of a quiet channel are; publishing each channel's whole log
    # again would hold up every new event for minutes.
    refill_length: int = 100
    claim_seconds: int = 15  # for which a sender claims the names in Redis
    hold_seconds: float = 2.0  # after which it claims them again
    succeed_seconds: float = 300.0  # for which another living installation must have been away

    def backoff(self, attempts: int) -> float:
        """Seconds to wait after so many failures in a row."""
        longest = min(self.max_backoff_seconds, self.first_backoff_seconds * 2 ** min(attempts - 1, 10))
        return random.uniform(longest / 2, longest)


USUAL = Pace()
