"""What became of an alert, for support: from the database, this sender's relay, and the gateways.

The database knows what is durable: whether there is such an order or event, whether it still waits, was given
up or deleted, and what the customer's devices have shown. Gateways know the rest (receiver/inquiries.py), in
bounded memory. `explain` combines them into one verdict, and the findings behind it, as sentences.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from sqlalchemy import bindparam, select

from sender import alerts, beginnings, history, outbox
from sender.database.tables import channels, dead_letters, events, orders
from sender.publishing import stops
from sender.publishing.stops import Cause
from shared.channels import Channel, customer_channel, is_private, name_in
from shared.cursors import Cursor, Place, parse_cursor
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from shared.redis.inquiries import GatewayReport

NEWEST = 5  # alerts of a customer


class Verdict(Enum):
    """What became of an alert."""

    NOT_PLACED = "not-placed"  # there is no such order
    NOT_COMPLETED = "not-completed"
    NOT_SENT = "not-sent"  # there is no such event, or none at all for this customer
    ERASED = "erased"
    DELETED = "deleted"  # older than the history is kept
    GIVEN_UP = "given-up"  # it could not be published
    WAITING = "waiting"  # recorded and not published yet
    RETRACTED = "retracted"
    REPLACED = "replaced"
    READ = "read"
    SHOWN = "shown"
    EXPIRED = "expired"
    DELIVERED = "delivered"  # handed to a device that is connected; not reported as shown
    NO_ANSWER = "no-answer"  # no gateway answers
    LATE = "late"  # the gateway of a connected device has not had it yet
    NOBODY = "nobody-connected"


class Relaying(NamedTuple):
    """How this sender's relay is doing."""

    redis_up: bool | None
    contested: bool
    sender: str = ""  # its name
    # When it published the event at a position; None for what another sender did, or what it has forgotten.
    published_at: Callable[[int], datetime | None] = lambda _: None


class Waited(msgspec.Struct, frozen=True):
    """A time in which the event could not be published, as one sender saw it."""

    began_at: str
    ended_at: str
    sender: str
    cause: str  # a sender.publishing.stops.Cause
    detail: str


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


class Explained(msgspec.Struct, frozen=True):
    verdict: Verdict
    findings: list[str]


class Subject(NamedTuple):
    """What was asked for and what the database has of it, from one snapshot."""

    asked: str  # in words
    channel: Channel | None
    lives: list[Life]  # the newest first
    missing: Explained | None = None  # why there is none


def of_order(connection: Connection, order_id: str, *, now: datetime) -> Subject:
    row = connection.execute(_ORDER, {"order_id": order_id}).one_or_none()
    asked = f"order {order_id}"
    if row is None:
        why = "No order with this id was ever placed here, or it was erased together with its customer."
        return Subject(asked, None, [], Explained(Verdict.NOT_PLACED, [why]))
    channel = customer_channel(row.customer_id)
    if row.seq is None:
        state = f"was cancelled at {row.cancelled_at}" if row.cancelled_at else "is still open"
        why = f"{row.customer_id}'s order was placed at {row.created_at} and {state}: nothing was sent."
        return Subject(asked, channel, [], Explained(Verdict.NOT_COMPLETED, [why]))
    return Subject(asked, channel, [_life(connection, channel, row.seq, now, recorded_at=row.completed_at)])


def of_event(connection: Connection, source: str, event_id: str, *, now: datetime) -> Subject:
    asked = f"event {event_id} of {source}"
    found = outbox.find(connection, source, event_id)
    if found is None:
        why = (
            "No event with this source and id is kept: it was never accepted here, is older than the history,"
            " or its customer was erased. Is the source right?"
        )
        return Subject(asked, None, [], Explained(Verdict.NOT_SENT, [why]))
    return Subject(asked, found.channel, [_life(connection, found.channel, found.place.seq, now)])


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
        shown=shown,
        state=became.value if became is not None else None,
    )


class _Attributes(msgspec.Struct):
    type: str = ""
    source: str = ""
    id: str = ""
    subject: str | None = None


def _attributes(text: bytes) -> _Attributes:
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Attributes()


def explain(
    life: Life,
    relaying: Relaying,
    gateways: Sequence[GatewayReport] | None,
    *,
    customer_id: str | None = None,
) -> Explained:
    """Why the event was or was not shown. `gateways` is None if they could not be asked.

    `customer_id` is the customer who should have had it; by default the one whose channel it is.
    """
    cursor = parse_cursor(life.cursor)
    findings = [_recorded(life), *_published(life)]
    if life.given_up is not None:
        findings.append(f"It could not be published and was given up at {life.given_up_at}: {life.given_up}.")
        return Explained(Verdict.GIVEN_UP, findings)
    if life.state in _BECAME:
        verdict, says = _BECAME[life.state]
        return Explained(verdict, [*findings, says])
    if life.shown:
        findings.append("One of the customer's devices has shown it; others then show no pop-up for it.")
        return Explained(Verdict.SHOWN, findings)
    if life.waiting and not any(_has_reached(report, cursor.place) for report in gateways or ()):
        return Explained(Verdict.WAITING, [*findings, _why_it_waits(relaying)])
    if life.deleted:
        findings.append(
            "It is no longer kept: it is older than the history (ORDERBELL_HISTORY_DAYS), or the database was"
            " restored since."
        )
        return Explained(Verdict.DELETED, findings)
    if gateways is None:
        findings.append("The gateways could not be asked: this sender does not reach Redis.")
        return Explained(Verdict.NO_ANSWER, findings)
    if not gateways:
        findings.append("No gateway answers: none is running, or none hears Redis.")
        return Explained(Verdict.NO_ANSWER, findings)
    return _at_gateways(cursor, findings, gateways, customer_id)


def _recorded(life: Life) -> str:
    what = life.type or "An event"
    about = f" for {life.subject}" if life.subject else ""
    at = f" at {life.recorded_at}" if life.recorded_at else ""
    key = f", accepted with the API key {life.accepted_by}" if life.accepted_by else ""
    return f"{what}{about} was recorded{at} as {life.cursor}{key}."


def with_publication(life: Life, relaying: Relaying) -> Life:
    """With what this sender remembers of publishing it."""
    at = relaying.published_at(life.position) if life.position is not None else None
    if at is None:
        return life
    published_at = format_time(at)
    return msgspec.structs.replace(
        life,
        published_at=published_at,
        published_by=relaying.sender,
        waited=[one for one in life.waited if one.ended_at <= published_at],
    )


def _published(life: Life) -> list[str]:
    """How long it waited, and why, as far as that was noted."""
    findings = [
        f"It waited from {life.recorded_at} to {one.ended_at}: {_CAUSES[one.cause](one)}."
        for one in life.waited
    ]
    if life.published_at is not None:
        at, recorded_at = map(datetime.fromisoformat, (life.published_at, life.recorded_at))
        waited = max(0.0, (at - recorded_at).total_seconds())
        findings.append(
            f"{life.published_by} published it to Redis at {life.published_at},"
            f" {waited:,.3f} s after it was recorded."
        )
    return findings


def _because(one: Waited) -> str:
    return f" ({one.detail})" if one.detail else ""


def _why_it_waits(relaying: Relaying) -> str:
    if relaying.contested:
        return "It waits to be published: another installation uses the same names in Redis (see /readyz)."
    if relaying.redis_up is False:
        return (
            "It waits to be published: Redis is away or takes no events. Gateways meanwhile pull it from the"
            " sender, about a second late."
        )
    return "It waits to be published; usually that takes milliseconds. If it lasts, see the sender's log."


def _at_gateways(
    cursor: Cursor, findings: list[str], gateways: Sequence[GatewayReport], customer_id: str | None
) -> Explained:
    channel, place = cursor
    for report in gateways:
        findings += _of_gateway(report, place)
    listening = [
        (report, one)
        for report in gateways
        for one in report.listening
        if customer_id is None or one.customer == customer_id
    ]
    if not listening:
        findings += _nobody(channel, gateways, customer_id)
        return Explained(Verdict.NOBODY, findings)
    verdict = Verdict.LATE
    for report, one in listening:
        reached = _has_reached(report, place)
        handed = reached and one.live
        state = "was handed over to this connection" if handed else "was not handed over to it yet"
        if handed:
            verdict = Verdict.DELIVERED
        waits = f"; it has {one.waiting_bytes:,} bytes still to read" if one.waiting_bytes else ""
        spoke = f"last sent a message at {one.spoke_at}" if one.spoke_at else "has sent no message yet"
        findings.append(
            f"{one.customer} has been connected to {report.gateway} by {one.transport} since {one.since};"
            f" its page {spoke}. The event {state}{waits}."
        )
    if verdict is Verdict.DELIVERED:
        findings.append(
            "It was not reported as shown: the page is hidden, shows other pop-ups first, or does not report."
        )
    return Explained(verdict, findings)


def _has_reached(report: GatewayReport, place: Place) -> bool:
    return report.place is not None and parse_cursor(report.place).place >= place


def _of_gateway(report: GatewayReport, place: Place) -> list[str]:
    findings = []
    if not report.redis:
        findings.append(
            f"{report.gateway} does not hear Redis and pulls events from the sender, about a second late."
        )
    findings += [f"{report.gateway} is not ready: {why}." for why in report.not_ready]
    if report.place is not None and parse_cursor(report.place).place < place:
        findings.append(f"{report.gateway} has this channel's events only up to {report.place}.")
    return findings


def _nobody(channel: Channel, gateways: Sequence[GatewayReport], customer_id: str | None) -> list[str]:
    findings = []
    if not is_private(channel):
        others = sum(report.listening_count for report in gateways)
        if customer_id is None:
            findings.append(f"No connection may read {channel}: its token must name the topic.")
        else:
            findings.append(
                f"No connection of {customer_id} may read {channel}: they are not connected, or their token"
                f" does not name the topic ({others} other connections read it)."
            )
        return findings
    name = customer_id or name_in(channel)
    findings.append(f"Nobody is connected as {name}. The event is kept, and comes when they return.")
    ended = sorted((one.ended_at, one, report) for report in gateways for one in report.ended)
    for _, one, report in ended[-3:]:
        findings.append(
            f"A connection to {report.gateway} by {one.transport} ended at {one.ended_at} with {one.code}:"
            f" {one.reason or 'no reason given'} (it had begun at {one.since})."
        )
    if not ended:
        since = max(report.remembers_since for report in gateways)
        findings.append(f"The gateways remember no connection of this customer since {since}.")
    similar = sorted({other for report in gateways for other in report.similar})
    if similar:
        findings.append(f"Connected customers whose names differ only in case: {', '.join(similar)}.")
    refused = sorted((one.ended_at, one, report) for report in gateways for one in report.refused)
    if refused:
        _, one, report = refused[-1]
        findings.append(
            f"{len(refused)} connections of unknown customers were refused lately; the last one by"
            f" {report.gateway} at {one.ended_at} with {one.code}: {one.reason}."
        )
    if any(report.connections for report in gateways):
        findings.append(
            "If their page is open, its token names somebody else, or it connects to another installation."
        )
    return findings


_CAUSES: dict[str, Callable[[Waited], str]] = {
    Cause.REDIS: lambda one: f"{one.sender} found that Redis was away or took no events{_because(one)}",
    Cause.DATABASE: lambda one: f"{one.sender} could not use the database",
    Cause.RESTART: lambda one: f"no sender published it before {one.sender} started",
    Cause.POISON: lambda one: f"Redis refused an earlier event of this channel{_because(one)}",
}
_BECAME = {
    alerts.State.RETRACTED.value: (
        Verdict.RETRACTED,
        "It was taken back: it no longer pops up, and has left every screen.",
    ),
    alerts.State.REPLACED.value: (Verdict.REPLACED, "A newer alert has replaced it, and is shown instead."),
    alerts.State.READ.value: (Verdict.READ, "The customer has read it."),
    alerts.State.EXPIRED.value: (Verdict.EXPIRED, "It has expired: nothing pops up after its `expirytime`."),
}
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
_CHANNEL = select(channels.c.channel).where(channels.c.channel == bindparam("channel"))
_DEAD = select(dead_letters.c.reason, dead_letters.c.detail, dead_letters.c.given_up_at).where(
    dead_letters.c.position == bindparam("position")
)
