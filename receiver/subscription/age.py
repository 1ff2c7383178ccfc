"""How old events are when they leave a gateway: a sample of one a second, at any load.

The sender's clock gave the event its time, so a difference between the clocks is part of the age. Only events
of completed orders count; others carry the time that their caller gave.
"""

from __future__ import annotations

import re
import time
from datetime import datetime

from receiver import metrics
from shared.events import SOURCE

EVERY_SECONDS = 1.0
_AGAIN_SECONDS = 0.02  # after an event that is not the sender's own
_SHORTEST = 100  # bytes; a probe or a notice is shorter, an event is not
_BEGINNING = 1024  # bytes of a message in which its attributes are
_TRACE = re.compile(rb'"traceparent":"00-([0-9a-f]{32})-')
_ORDER = re.compile(rb'"source":"%b".*?"time":"([0-9TZ:.+-]{20,32})"' % re.escape(SOURCE.encode()))


class Ages:
    def __init__(self) -> None:
        self._due = 0.0

    def look(self, message: bytes, now: float) -> None:
        """`now` is the loop's time. Measures at most once a second."""
        if now < self._due or len(message) < _SHORTEST:
            return
        match = _ORDER.search(message[:_BEGINNING])
        if match is None:
            self._due = now + _AGAIN_SECONDS
            return
        self._due = now + EVERY_SECONDS
        try:
            recorded = datetime.fromisoformat(match[1].decode()).timestamp()
        except ValueError:
            return
        trace = _TRACE.search(message[:_BEGINNING])
        exemplar = {"trace_id": trace[1].decode()} if trace else None
        metrics.order_to_frame.observe(max(0.0, time.time() - recorded), exemplar)
