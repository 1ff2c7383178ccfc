"""Sending an alert again, for a customer who says that they never saw it.

No device shows an event twice, so it is recorded anew, as an event that replaces the first: it pops
up on every device, and the customer's list has one of the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import uuid_utils
from sqlalchemy import bindparam, select

from sender import alerts, history, outbox
from sender.alerts import State
from sender.database.tables import alert_states, orders
from sender.retractions import UnknownAlert
from shared.channels import customer_channel
from shared.cursors import Cursor
from shared.errors import CallerError
from shared.events import InvalidEvent, parse_event

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from shared.channels import Channel

_MOST_REPLACED = 1_000  # alerts, each replaced by the next
# What the new event gets anew: its place, and its times. One that had expired would pop up nowhere.
_ANEW = ("epoch", "seq", "time", "expirytime", "popuntil", "traceparent", "replaces")


class NotResendable(CallerError):
    """Raised for an alert that was taken back."""


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
    return _resend(connection, customer_channel(row.customer_id), row.seq, caller)


def of_event(connection: Connection, source: str, event_id: str, caller: Caller) -> Resent:
    """The event with this source and id. Raises `UnknownAlert` and `NotResendable`."""
    found = outbox.find(connection, source, event_id)
    if found is None:
        raise UnknownAlert(f"no event {event_id[:128]!r} of {source[:128]!r}")
    return _resend(connection, found.channel, found.place.seq, caller)


def _resend(connection: Connection, channel: Channel, seq: int, caller: Caller) -> Resent:
    alerts.lock(connection, channel)
    for _ in range(_MOST_REPLACED):  # what has replaced it is what counts now
        state = alerts.state_of(connection, channel, seq, now=caller.now)
        row = connection.execute(_MARK, {"of": channel, "at": seq}).one_or_none()
        if state is not State.REPLACED or row is None or row.by_seq is None:
            break
        seq = row.by_seq
    if state is State.RETRACTED:
        raise NotResendable("the alert was taken back; send another one")
    entry = history.find(connection, channel, seq)
    if state is None or entry is None:
        raise UnknownAlert("the event is no longer kept, or is no alert")
    event: dict[str, Any] = msgspec.json.decode(entry.text)
    before = event["id"]
    anew = {name: value for name, value in event.items() if name not in _ANEW}
    anew |= {"id": str(uuid_utils.uuid7()), "replaces": before, "traceparent": caller.traceparent}
    try:
        draft = parse_event(anew, now=caller.now)
    except InvalidEvent as error:  # such as one of 64 KiB, which the new attributes make too large
        raise NotResendable(f"it can't be sent again: {error}") from None
    (recorded,) = outbox.record(connection, [draft], now=caller.now, accepted_by=[caller.key_name])
    alerts.note(connection, [(draft, recorded.place)])
    return Resent(Cursor(channel, recorded.place), recorded.text)


_ORDER = select(orders.c.customer_id, orders.c.seq).where(orders.c.order_id == bindparam("order_id"))
_MARK = select(alert_states.c.by_seq).where(
    alert_states.c.channel == bindparam("of"), alert_states.c.seq == bindparam("at")
)
