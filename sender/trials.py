"""A trial: an event of the system that goes the whole way to a customer's devices and changes nothing there.

It is not an alert: it does not pop up, and is in no list and no count. Pages report it like any other event,
so that `orderbell trace` answers whether it came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sender import alerts, history, recording
from sender.alerts import Mark
from shared.channels import customer_channel
from shared.cursors import Cursor
from shared.events import SOURCE, TRIAL, system_event

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection


class Trial(NamedTuple):
    cursor: Cursor
    source: str
    id: str


def record(
    connection: Connection, customer_id: str, *, now: datetime, traceparent: str, accepted_by: str = ""
) -> Trial:
    """Raises `InvalidChannel`."""
    channel = customer_channel(customer_id)
    alerts.lock(connection, channel)
    draft = system_event(TRIAL, channel, {}, now=now, traceparent=traceparent)
    (recorded,) = recording.record(connection, [draft], now=now, accepted_by=[accepted_by])
    # The row is locked by now, also if the channel has only just begun.
    assert history.head(connection, channel).place == recorded.place
    alerts.mark(connection, channel, recorded.place.seq, Mark.SYSTEM)
    return Trial(Cursor(channel, recorded.place), SOURCE, draft.id)
