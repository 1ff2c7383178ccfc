"""Sending an alert again, for a customer who says that they never saw it.

No device shows an event twice, so a new event is recorded that replaces the first: it pops up on every
device, and the customer's list has it alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import uuid_utils
from sqlalchemy import bindparam, select

from sender import alerts, history, recording
from sender.alerts import State
from sender.database.tables import orders
from sender.retractions import UnknownAlert
from shared.channels import customer_channel
from shared.cursors import Cursor
from shared.errors import CallerError
from shared.events import InvalidEvent, parse_event

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from shared.channels import Channel

# What the new event gets anew: its place, and its times. One that had expired would pop up nowhere.
_ANEW = ("epoch", "seq", "time", "expirytime", "popuntil", "traceparent", "replaces")


class NotResendable(CallerError):
    """Raised for an alert that was taken back, or is too large for the new attributes."""


class Resent(NamedTuple):
    """Where the new event is, and its JSON."""

    cursor: Cursor
    event: bytes


class Caller(NamedTuple):
    now: datetime
    traceparent: str
    key_name: str = ""


def of_order(connection: Connection, order_id: str, caller: Caller) -> Resent:
    """The alert of an order's completion. Raises `UnknownAlert` and `NotResendable`."""
    row = connection.execute(_ORDER, {"order_id": order_id}).one_or_none()
    if row is None:
        raise UnknownAlert(f"no order {order_id}")
    if row.seq is None:
        raise UnknownAlert(f"order {order_id} was not completed, so it has no alert")
    if row.cancelled_at is not None:
        raise NotResendable(f"order {order_id} was cancelled: its alert was taken back and is not sent again")
    channel = customer_channel(row.customer_id)
    alerts.lock(connection, channel)
    line = alerts.lineage_of_order(connection, channel, row.seq, order_id)
    return _resend(connection, channel, line, caller)


def of_event(connection: Connection, source: str, event_id: str, caller: Caller) -> Resent:
    """The event with this source and id. Raises `UnknownAlert` and `NotResendable`."""
    found = recording.find(connection, source, event_id)
    if found is None:
        raise UnknownAlert(f"no event {event_id[:128]!r} of {source[:128]!r}")
    alerts.lock(connection, found.channel)
    line = alerts.lineage(connection, found.channel, found.place.seq)
    return _resend(connection, found.channel, line, caller)


def _resend(connection: Connection, channel: Channel, line: list[int], caller: Caller) -> Resent:
    seq = line[-1]  # what has replaced the others is what counts now
    state = alerts.state_of(connection, channel, seq, now=caller.now)
    if state is State.RETRACTED:
        raise NotResendable(
            "the alert was taken back, and what was taken back is not sent again; send a new event instead"
        )
    entry = history.find(connection, channel, seq)
    if state is None or entry is None:
        raise UnknownAlert("the event is no longer kept, or is not an alert")
    event: dict[str, Any] = msgspec.json.decode(entry.text)
    before = event["id"]
    anew = {name: value for name, value in event.items() if name not in _ANEW}
    anew |= {"id": str(uuid_utils.uuid7()), "replaces": before, "traceparent": caller.traceparent}
    try:
        draft = parse_event(anew, now=caller.now)
    except InvalidEvent as error:  # such as one of 64 KiB, which the new attributes make too large
        raise NotResendable(f"it can't be sent again: {error}") from None
    (recorded,) = recording.record(connection, [draft], now=caller.now, accepted_by=[caller.key_name])
    alerts.note(connection, [(draft, recorded.place)])
    return Resent(Cursor(channel, recorded.place), recorded.text)


_ORDER = select(orders.c.customer_id, orders.c.seq, orders.c.cancelled_at).where(
    orders.c.order_id == bindparam("order_id")
)
