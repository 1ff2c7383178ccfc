"""How old events are when they leave a gateway: a sample of one a second, at any load.

It counts once for each transport of the connections that got it. The sender's clock gave the event its time,
so a difference between the clocks is part of the age. Only events of completed orders count; others carry the
time that their caller gave.
"""

from __future__ import annotations

import itertools
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING

from receiver import metrics
from shared.events import SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from receiver.connections.connection import Connection
    from receiver.feeds.feed import Feed

EVERY_SECONDS = 1.0
_AGAIN_SECONDS = 0.05  # after events that are not the sender's own
_EXAMINED = 10  # messages of a read, of which there may be hundreds
_SHORTEST = 100  # bytes; a probe or a notice is shorter, an event is not
_BEGINNING = 1024  # bytes of a message in which its attributes are
_TRACE = re.compile(rb'"traceparent":"00-([0-9a-f]{32})-')
_SOURCE = b'"source":"%b"' % SOURCE.encode()
_ORDER = re.compile(re.escape(_SOURCE) + rb'.*?"time":"([0-9TZ:.+-]{20,32})"')


class Ages:
    def __init__(self) -> None:
        self.due = 0.0  # loop time, when the next event is to be looked at

    def look(self, messages: Iterable[tuple[bytes, bytes]], feeds: Mapping[bytes, Feed], now: float) -> None:
        """Look for the first event of an order in one read: after a stall, the last one is young.

        `messages` are names in Redis and what came there; `feeds` are by the same names. `now` is loop time.
        Does nothing before it is due.
        """
        if now < self.due:
            return
        for name, message in itertools.islice(messages, _EXAMINED):
            if len(message) < _SHORTEST or not (live := _live(feeds.get(name))):
                continue
            self.due = now + _AGAIN_SECONDS
            if message.find(_SOURCE, 0, _BEGINNING) < 0:
                continue
            if (match := _ORDER.search(message[:_BEGINNING])) is None:
                continue
            self.due = now + EVERY_SECONDS
            try:
                recorded = datetime.fromisoformat(match[1].decode()).timestamp()
            except ValueError:
                return
            trace = _TRACE.search(message[:_BEGINNING])
            exemplar = {"trace_id": trace[1].decode()} if trace else None
            for transport in {connection.transport for connection in live}:
                metrics.order_to_frame_of(transport).observe(max(0.0, time.time() - recorded), exemplar)
            return


def _live(feed: Feed | None) -> tuple[Connection, ...]:
    return feed.live if feed is not None else ()
