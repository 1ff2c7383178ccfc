"""Erasing a customer: a person's right to be forgotten (GDPR, article 17).

Nothing that names the customer stays: orders, texts of events, seen places, dead letters, webhooks that wait
or are remembered, and the answers kept for repeated requests are deleted here, Redis' keys by
sender/publishing/forgetting.py. Only callers can know what they wrote about the customer into topics or other
customers' events.

Places are never used twice. A device may come back years later with its cursor `=1.42`. If the channel began
again with seq 1, that cursor would be accepted as soon as there are 42 new events, and those would be missed
in silence. So the channel's row stays, with its seq, under a name made of a digest. A channel that begins
again continues there (sender/beginnings.py), and each older cursor gets a reset.

Rows of events stay too, emptied: the newest event's row proves that the database did not go back
(sender/generation.py). Retention deletes them when their time is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
from sqlalchemy import bindparam, delete, func, or_, select, update

from sender.database.rows import is_among
from sender.database.tables import (
    CANCELLED,
    COMPLETED,
    DIALECTS,
    OPEN,
    alert_states,
    channels,
    dead_letters,
    events,
    idempotency,
    insert_into,
    orders,
    outbox,
    webhook_deliveries,
)
from sender.digest import digest
from shared.channels import customer_channel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Insert

    from shared.channels import Channel

PREFIX = "erased:"  # of the names of rows that keep an erased channel's seq
ANSWERS_LOOKED_AT = 2_000  # together: there may be millions, too many for one statement
_NO_EPOCH = 0  # of an emptied event: relay and sweep ignore it


class Erased(NamedTuple):
    """How many rows named the customer."""

    orders: int
    events: int
    dead_letters: int


class Answers(NamedTuple):
    """The scopes of kept answers that name a customer, among some consecutive ones."""

    naming: list[str]
    last: str | None  # the last one looked at; None if no others follow


def erase(connection: Connection, customer_id: str) -> Erased:
    """Repeating is harmless. Raises `InvalidChannel`."""
    channel = customer_channel(customer_id)
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON")  # overwrites what is deleted with zeros
    # Orders first, then the channel, as completions lock them.
    whose = {"customer": customer_id}
    erased_orders = sum(connection.execute(statement, whose).rowcount for statement in _DELETE_ORDERS)
    given = {"erased": channel, "name": name_of(channel)}
    seq = connection.execute(_SEQ, {"erased": channel}).scalar()
    connection.execute(_LEAVE_OUTBOX, given)
    emptied = connection.execute(_EMPTY_EVENTS, given).rowcount
    buried = connection.execute(_DELETE_DEAD_LETTERS, {"erased": channel}).rowcount
    connection.execute(_DELETE_STATES, {"erased": channel})
    connection.execute(_DELETE_DELIVERIES, {"erased": channel})
    if seq is None:
        # The customer never had an event, or none since the last erasure. The row is kept all the same: while
        # Redis is away, it shows gateways that this customer's connections must end.
        seq = connection.execute(_SEQ, {"erased": name_of(channel)}).scalar() or 0
    else:
        connection.execute(_DELETE_CHANNEL, {"erased": channel})
    connection.execute(_KEEP_SEQ[connection.dialect.name], {"name": name_of(channel), "last": seq})
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = OFF")
    return Erased(erased_orders, emptied, buried)


def kept_answers(connection: Connection, customer_id: str, *, after: str = "") -> Answers:
    """Which of some answers kept for repeated requests name the customer."""
    channel = customer_channel(customer_id)
    named = msgspec.json.encode({"customer_id": customer_id}).decode()[1:-1]
    # As a member of an order or an event, as a channel, as a cursor.
    texts = {"named": named, "channel": f'"{channel}"', "cursor": f"{channel}="}
    given = {**texts, "after": after, "limit": ANSWERS_LOOKED_AT}
    rows = connection.execute(_NAMING[connection.dialect.name], given).all()
    last = rows[-1].scope if len(rows) == ANSWERS_LOOKED_AT else None
    return Answers([row.scope for row in rows if row.naming], last)


def delete_answers(connection: Connection, scopes: Sequence[str]) -> int:
    return connection.execute(_DELETE_ANSWERS[connection.dialect.name], {"scopes": list(scopes)}).rowcount


def name_of(channel: Channel) -> str:
    """A name that belongs to no customer and does not reveal the erased one."""
    return f"{PREFIX}{digest(channel.encode())}"


def _keep_seq(dialect: str) -> Insert:
    insert = insert_into(dialect, channels).values(
        channel=bindparam("name"), seq=bindparam("last"), pruned_seq=bindparam("last")
    )
    changed = {"seq": insert.excluded.seq, "pruned_seq": insert.excluded.pruned_seq}
    return insert.on_conflict_do_update(index_elements=[channels.c.channel], set_=changed)


# Each has an index of its own, in which the customer's are found.
_DELETE_ORDERS = [
    delete(orders).where(orders.c.customer_id == bindparam("customer"), which)
    for which in (OPEN, COMPLETED, CANCELLED)
]
_SEQ = select(channels.c.seq).where(channels.c.channel == bindparam("erased")).with_for_update()
_EMPTY_EVENTS = (
    update(events)
    .where(events.c.channel == bindparam("erased"))
    .values(
        channel=bindparam("name"),
        epoch=_NO_EPOCH,
        content_digest="",
        text="{}",
    )
)
_LEAVE_OUTBOX = delete(outbox).where(
    outbox.c.position.in_(select(events.c.position).where(events.c.channel == bindparam("erased")))
)
_DELETE_DEAD_LETTERS = delete(dead_letters).where(dead_letters.c.channel == bindparam("erased"))
_DELETE_STATES = delete(alert_states).where(alert_states.c.channel == bindparam("erased"))
_DELETE_DELIVERIES = delete(webhook_deliveries).where(webhook_deliveries.c.channel == bindparam("erased"))
_DELETE_CHANNEL = delete(channels).where(channels.c.channel == bindparam("erased"))
_KEEP_SEQ = {dialect: _keep_seq(dialect) for dialect in DIALECTS}
# Not LIKE: on SQLite it ignores case, and would match Alice for alice.
_POSITION = {"sqlite": func.instr, "postgresql": func.strpos}
_NAMING = {
    dialect: select(
        idempotency.c.scope,
        or_(
            *(position(idempotency.c.answer, bindparam(text)) > 0 for text in ("named", "channel", "cursor"))
        ).label("naming"),
    )
    .where(idempotency.c.scope > bindparam("after"))
    .order_by(idempotency.c.scope)
    .limit(bindparam("limit"))
    for dialect, position in _POSITION.items()
}
_DELETE_ANSWERS = {
    dialect: delete(idempotency).where(is_among(dialect, idempotency.c.scope, "scopes"))
    for dialect in DIALECTS
}
