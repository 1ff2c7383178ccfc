"""An event's life as the database knows it: recorded, waiting, given up, shown, read, retracted, deleted.

sender/trace.py adds what gateways know, and explains it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from sqlalchemy import bindparam, select

from sender import alerts, beginnings, history, outbox, recording
from sender.database.tables import alert_states, channels, dead_letters, events, orders
from sender.publishing import stops
from sender.verdicts import Explained, Verdict
from sender.webhooks import deliveries
from sender.webhooks.deliveries import Delivery
from shared.channels import Channel, customer_channel, is_private
from shared.cursors import Cursor, Place

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

NEWEST = 5  # alerts of a customer, or of those that have replaced one


class Waited(msgspec.Struct, frozen=True):
    """A time in which the event could not be published, as one sender saw it."""

    began_at: str
    ended_at: str
    sender: str
    cause: str  # a sender.publishing.stops.Cause
    detail: str


class Change(msgspec.Struct, frozen=True):
    """The event that retracted or replaced an alert."""

    cursor: str
    recorded_at: str
    type: str
    subject: str | None
    reason: str  # of a retraction, as its caller gave it


class Life(msgspec.Struct, frozen=True):
    """An event's life, as far as the database knows it."""

    cursor: str
    recorded_at: str
    position: int | None = None
    accepted_by: str = ""  # the name of the API key; empty if that has none
    waited: list[Waited] = []  # one after the other, before it was published
    published_at: str | None = (
        None  # by the sender that was asked; None where another did, or it has forgotten
    )
    published_by: str | None = None
    type: str = ""
    source: str = ""
    id: str = ""
    subject: str | None = None
    waiting: bool = False
    given_up: str | None = None  # why
    given_up_at: str | None = None
    deleted: bool = False
    shown: bool = False  # by a device of the customer; of topics that is not known
    state: str | None = None  # of the alert in its customer's list: unseen, seen, read, retracted …
    webhooks: list[Delivery] = []  # what was or is to be reported of it to the shop's own server
    expires_at: str | None = None
    changed: Change | None = None  # what retracted or replaced it


class Subject(NamedTuple):
    """What was asked for and what the database has of it, from one snapshot."""

    asked: str  # in words
    channel: Channel | None
    lives: list[Life]  # of a customer, the newest first; else an alert, then what has replaced it, in order
    missing: Explained | None = None  # why there is none


def of_order(connection: Connection, order_id: str, *, now: datetime) -> Subject:
    row = connection.execute(_ORDER, {"order_id": order_id}).one_or_none()
    asked = f"order {order_id}"
    if row is None:
        why = (
            "No order with this id is kept: it was never placed here, or the shop's call was refused (the"
            " answer gave the reason), or it was erased together with its customer, or is older than orders"
            " are kept (ORDERBELL_ORDERS_DAYS)."
        )
        return Subject(asked, None, [], Explained(Verdict.NOT_PLACED, [why]))
    channel = customer_channel(row.customer_id)
    if row.seq is None:
        state = f"was cancelled at {row.cancelled_at}" if row.cancelled_at else "is still open"
        why = f"{row.customer_id}'s order was placed at {row.created_at} and {state}: nothing was sent."
        return Subject(asked, channel, [], Explained(Verdict.NOT_COMPLETED, [why]))
    line = alerts.lineage_of_order(connection, channel, row.seq, order_id)
    if line[0] != row.seq:  # the first is no longer kept, one that was sent again is
        line.insert(0, row.seq)
    first = _life(connection, channel, row.seq, now, recorded_at=row.completed_at)
    return Subject(asked, channel, [first, *_newer(connection, channel, line, now)])


def of_event(connection: Connection, source: str, event_id: str, *, now: datetime) -> Subject:
    asked = f"event {event_id} of {source}"
    found = recording.find(connection, source, event_id)
    if found is None:
        why = (
            "No event with this source and id is kept: it was never accepted here, is older than the history,"
            " or its customer was erased. Is the source right?"
        )
        return Subject(asked, None, [], Explained(Verdict.NOT_SENT, [why]))
    line = alerts.lineage(connection, found.channel, found.place.seq)
    first = _life(connection, found.channel, found.place.seq, now)
    return Subject(asked, found.channel, [first, *_newer(connection, found.channel, line, now)])


def of_customer(connection: Connection, customer_id: str, *, now: datetime) -> Subject:
    """The newest alerts of the customer's own channel."""
    channel = customer_channel(customer_id)
    asked = f"customer {customer_id}"
    if connection.execute(_CHANNEL, {"channel": channel}).one_or_none() is None:
        if beginnings.beginnings(connection, [channel])[channel].erased:
            return Subject(asked, channel, [], Explained(Verdict.ERASED, ["This customer was erased."]))
        why = (
            "No order of this customer was completed and no event was sent to them, or the history no"
            " longer has any. Is the id right?"
        )
        return Subject(asked, channel, [], Explained(Verdict.NOT_SENT, [why]))
    newest = alerts.page(connection, channel, before=None, limit=NEWEST, now=now).alerts
    seqs = [alert.place.seq for alert in newest] or [history.head(connection, channel).place.seq]
    return Subject(asked, channel, [_life(connection, channel, seq, now) for seq in seqs])


def _newer(connection: Connection, channel: Channel, line: list[int], now: datetime) -> list[Life]:
    """What has replaced the line's first, such as one that was sent again; of many, the newest."""
    return [_life(connection, channel, seq, now) for seq in line[1:][-NEWEST:]]


def _life(
    connection: Connection, channel: Channel, seq: int, now: datetime, *, recorded_at: str = ""
) -> Life:
    state = history.states(connection, [channel])[channel]
    shown = is_private(channel) and Place(state.head.epoch, seq) in state.seen
    row = connection.execute(_ROW, {"channel": channel, "seq": seq}).one_or_none()
    if row is None:
        cursor = str(Cursor(channel, Place(state.head.epoch, seq)))
        # With a removed channel went what was seen of it.
        known = seq > state.pruned_seq or not beginnings.is_beginning(state.pruned_seq)
        return Life(cursor, recorded_at, deleted=True, shown=shown and known)
    dead = connection.execute(_DEAD, {"position": row.position}).one_or_none()
    entry = history.find(connection, channel, seq)
    attributes = _attributes(entry.text if entry is not None else b"")
    became = alerts.state_of(connection, channel, seq, now=now) if is_private(channel) else None
    by_seq = connection.execute(_CHANGED_BY, {"channel": channel, "seq": seq}).scalar()
    waits = outbox.waits(connection, row.position)
    return Life(
        str(Cursor(channel, Place(row.epoch, seq))),
        row.recorded_at,
        position=row.position,
        accepted_by=row.accepted_by,
        waited=[
            Waited(stop.began_at, stop.ended_at, stop.sender, stop.cause.value, stop.detail)
            for stop in stops.waited_in(connection, channel, row.recorded_at)
        ],
        type=attributes.type,
        source=attributes.source,
        id=attributes.id,
        subject=attributes.subject,
        waiting=waits,
        given_up=f"{dead.reason} {dead.detail}".strip() if dead is not None else None,
        given_up_at=dead.given_up_at if dead is not None else None,
        deleted=seq <= state.pruned_seq,
        shown=shown and row.epoch == state.head.epoch,
        state=became.value if became is not None else None,
        webhooks=deliveries.of_alert(connection, channel, seq),
        expires_at=attributes.expirytime or None,
        changed=_change(connection, channel, by_seq) if by_seq is not None else None,
    )


def _change(connection: Connection, channel: Channel, seq: int) -> Change | None:
    row = connection.execute(_ROW, {"channel": channel, "seq": seq}).one_or_none()
    entry = history.find(connection, channel, seq)
    if row is None or entry is None:
        return None
    given = _attributes(entry.text)
    reason = given.data.get("reason", "") if isinstance(given.data, dict) else ""
    place = str(Cursor(channel, Place(row.epoch, seq)))
    return Change(place, row.recorded_at, given.type, given.subject, str(reason))


class _Attributes(msgspec.Struct):
    type: str = ""
    source: str = ""
    id: str = ""
    subject: str | None = None
    expirytime: str = ""
    data: Any = None


def _attributes(text: bytes) -> _Attributes:
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Attributes()


_decode = msgspec.json.Decoder(_Attributes).decode
_ORDER = select(
    orders.c.customer_id,
    orders.c.status,
    orders.c.created_at,
    orders.c.completed_at,
    orders.c.cancelled_at,
    orders.c.seq,
).where(orders.c.order_id == bindparam("order_id"))
_ROW = select(events.c.position, events.c.epoch, events.c.recorded_at, events.c.accepted_by).where(
    events.c.channel == bindparam("channel"), events.c.seq == bindparam("seq")
)
_CHANGED_BY = select(alert_states.c.by_seq).where(
    alert_states.c.channel == bindparam("channel"), alert_states.c.seq == bindparam("seq")
)
_CHANNEL = select(channels.c.channel).where(channels.c.channel == bindparam("channel"))
_DEAD = select(dead_letters.c.reason, dead_letters.c.detail, dead_letters.c.given_up_at).where(
    dead_letters.c.position == bindparam("position")
)
