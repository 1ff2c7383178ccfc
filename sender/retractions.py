"""Taking an alert back: an order was cancelled, or an event was sent by mistake.

A retraction is an event of the same channel, so devices that are away catch up with both, in order. The alert
and its retraction stay in the history.

Where a newer alert has replaced the one that is named, as after a resend, the newest one is retracted: it
alone is on screens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from sqlalchemy import bindparam, select

from sender import alerts, history, recording
from sender.alerts import Mark
from sender.database.tables import alert_states, orders
from shared.channels import Channel, customer_channel
from shared.cursors import Cursor, Place
from shared.errors import CallerError
from shared.events import RETRACTED, SYSTEM

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from shared.events import Entry

MAX_REASON = 500  # characters
_MAX_NAMES = 2_000  # characters of id and source, or of a subject; longer ones are left out


class UnknownAlert(CallerError):
    """An event that was never recorded here, is no longer kept, or is not an alert."""


class Retraction(NamedTuple):
    """`event` is the retraction's JSON, the same for each repetition."""

    alert: Cursor
    event: bytes
    new: bool


def of_event(
    connection: Connection,
    source: str,
    event_id: str,
    *,
    reason: str,
    now: datetime,
    traceparent: str | None = None,
) -> Retraction:
    """Retract the event with this source and id. Raises `UnknownAlert`."""
    found = recording.find(connection, source, event_id)
    if found is None:
        raise UnknownAlert(f"no event {event_id[:128]!r} of {source[:128]!r}")
    alerts.lock(connection, found.channel)
    line = alerts.lineage(connection, found.channel, found.place.seq)
    return _retract_last(connection, found.channel, line, reason=reason, now=now, traceparent=traceparent)


def of_order(
    connection: Connection, order_id: str, *, reason: str, now: datetime, traceparent: str | None = None
) -> Retraction:
    """Retract the alert of an order's completion, or what has replaced it. Raises `UnknownAlert`."""
    row = connection.execute(_ORDER, {"order_id": order_id}).one_or_none()
    if row is None:
        raise UnknownAlert(f"no order {order_id}")
    if row.seq is None:
        raise UnknownAlert(f"order {order_id} was not completed, so it has no alert; cancel it instead")
    channel = customer_channel(row.customer_id)
    alerts.lock(connection, channel)
    line = alerts.lineage_of_order(connection, channel, row.seq, order_id)
    return _retract_last(connection, channel, line, reason=reason, now=now, traceparent=traceparent)


def _retract_last(
    connection: Connection,
    channel: Channel,
    line: list[int],
    *,
    reason: str,
    now: datetime,
    traceparent: str | None,
) -> Retraction:
    """Retract the last alert of a line of which each has replaced the one before. Raises `UnknownAlert`."""
    for seq in reversed(line[1:]):
        try:
            return _retract(connection, channel, seq, reason=reason, now=now, traceparent=traceparent)
        except UnknownAlert:
            continue  # it could not be published, so that devices still show the one before
    return _retract(connection, channel, line[0], reason=reason, now=now, traceparent=traceparent)


def _retract(
    connection: Connection,
    channel: Channel,
    seq: int,
    *,
    reason: str,
    now: datetime,
    traceparent: str | None,
) -> Retraction:
    """Retract the alert at a seq of a locked channel. Raises `UnknownAlert`."""
    state = history.states(connection, [channel])[channel]
    alert = Cursor(channel, Place(state.head.epoch, seq))
    entry = history.find(connection, channel, seq) if seq > state.pruned_seq else None
    head = _head(entry)
    if entry is None or head is None or entry.place.epoch != state.head.epoch:
        raise UnknownAlert("the event is no longer kept")
    if head.type.startswith(SYSTEM):
        raise UnknownAlert(f"an event of the type {head.type} is not an alert")
    if (event := _before(connection, channel, seq)) is not None:
        return Retraction(alert, event, new=False)
    alerts.mark(connection, channel, seq, Mark.RETRACTED, by_seq=state.head.seq + 1)
    data: dict[str, Any] = {"cursor": str(alert)}
    if len(head.id) + len(head.source) <= _MAX_NAMES:  # or the retraction might be too large for an event
        data |= {"id": head.id, "source": head.source}
    if reason:
        data["reason"] = reason
    subject = head.subject if len(head.subject) <= _MAX_NAMES else ""
    made = alerts.record_change(
        connection, channel, RETRACTED, data, now=now, subject=subject, traceparent=traceparent
    )
    event = _text(connection, channel, made.as_of.seq)
    assert event is not None, "it was recorded in this transaction"
    return Retraction(alert, event, new=True)


def _before(connection: Connection, channel: Channel, seq: int) -> bytes | None:
    """The earlier retraction's event, if there is one."""
    row = connection.execute(_MARK, {"of": channel, "at": seq}).one_or_none()
    if row is None or row.state != Mark.RETRACTED:
        return None
    return _text(connection, channel, row.by_seq)


def _text(connection: Connection, channel: Channel, seq: int) -> bytes | None:
    found = history.find(connection, channel, seq)
    return found.text if found is not None else None


def _head(entry: Entry | None) -> alerts.Head | None:
    try:
        return alerts.read_head(entry.text) if entry is not None else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


_ORDER = select(orders.c.customer_id, orders.c.seq).where(orders.c.order_id == bindparam("order_id"))
_MARK = select(alert_states.c.state, alert_states.c.by_seq).where(
    alert_states.c.channel == bindparam("of"), alert_states.c.seq == bindparam("at")
)
