"""How old events are when they leave a gateway: one a second is looked at, whatever the load.

The time is that of the event, as its sender's clock had it: clocks that differ by a second show. Only events
of completed orders count; others carry the time that their caller gave.
"""

from __future__ import annotations

import re
import time
from datetime import datetime

from receiver import metrics
from shared.events import SOURCE

EVERY_SECONDS = 1.0
_BEGINNING = 1024  # bytes of a message in which its attributes are
_ORDER = re.compile(rb'"source":"%b".*?"time":"([0-9TZ:.+-]{20,32})"' % re.escape(SOURCE.encode()))


class Ages:
    def __init__(self) -> None:
        self._due = 0.0

    def look(self, message: bytes, now: float) -> None:
        """`now` is the loop's time. Nothing is done but once a second."""
        if now < self._due:
            return
        match = _ORDER.search(message[:_BEGINNING])
        if match is None:
            return
        self._due = now + EVERY_SECONDS
        try:
            recorded = datetime.fromisoformat(match[1].decode()).timestamp()
        except ValueError:
            return
        metrics.order_to_frame.observe(max(0.0, time.time() - recorded))
