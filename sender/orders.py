"""Orders: placed once, completed once. Completing records the event in the same transaction."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
from sqlalchemy import bindparam, select, text, tuple_, union_all, update

from sender import alerts, history, recording, retractions
from sender.database.rows import is_among
from sender.database.tables import CANCELLED, COMPLETED, DIALECTS, OPEN, insert_into, orders
from shared.channels import customer_channel
from shared.cursors import MAX_NUMBER
from shared.errors import CallerError
from shared.events import order_completed
from shared.json import canonical_json
from shared.times import format_time

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Row, Select
    from sqlalchemy.sql.dml import ReturningInsert

    from shared.cursors import Cursor
    from shared.events import Draft

OrderStatus = Literal["open", "completed", "cancelled"]
_OVER: tuple[OrderStatus, ...] = ("completed", "cancelled")
ORDERS: dict[OrderStatus, ColumnElement[bool]] = {
    "open": OPEN,
    "completed": COMPLETED,
    "cancelled": CANCELLED,
}


class UnknownOrder(CallerError):
    """An order that was never placed here."""


class OrderConflict(CallerError):
    """An order id that is taken by an order with other content."""


class OrderCancelled(CallerError):
    """An order that can't be completed any more."""


class InvalidOrder(CallerError):
    """Data that a pop-up cannot show."""


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    order_id: str
    customer_id: str
    status: OrderStatus
    created_at: str
    completed_at: str | None
    data: msgspec.Raw
    cancelled_at: str | None = None
    alert: Literal["retracted"] | None = None  # of an order that was completed; on the board alone


class Placing(NamedTuple):
    """A request to place an order."""

    order_id: str
    customer_id: str
    data: dict[str, Any]
    now: datetime


class Placed(NamedTuple):
    order: Order
    new: bool


class Completion(NamedTuple):
    """A request to complete an order."""

    order_id: str
    data: dict[str, Any]
    now: datetime
    traceparent: str | None
    attributes: Mapping[str, str] | None = None  # of its event: when it expires
    accepted_by: str = ""  # the name of the API key it came with


class Completed(NamedTuple):
    order: Order
    event: bytes | None  # its JSON; None if the history no longer has it
    new: bool


class Cancelled(NamedTuple):
    """`event` is its alert's retraction; None if there was no alert, or the history no longer has it."""

    order: Order
    event: bytes | None


class OnBoard(NamedTuple):
    """The open orders and those that changed last, oldest first."""

    orders: list[Order]
    more: bool  # whether there are more open orders


class Listed(NamedTuple):
    """Orders, newest first, and the cursor from the same snapshot."""

    orders: list[Order]
    before: str | None  # the order id for the next page; None after the oldest
    as_of: Cursor | None  # the head of the customer's channel at that moment


def place_all(connection: Connection, placings: Sequence[Placing]) -> list[Placed | CallerError]:
    """Place all of them with two statements. If several name the same order, the first places it.

    Returned as outcomes: `OrderConflict`, `InvalidOrder`, and `EventTooLarge` for data that fits in no event.
    """
    refused = {number: fault for number, placing in enumerate(placings) if (fault := _fault(placing))}
    sound = [placing for number, placing in enumerate(placings) if number not in refused]
    first = {placing.order_id: placing for placing in reversed(sound)}
    new = _insert(connection, first)
    rows = new | _rows(connection, first.keys() - new)
    return [
        refused.get(number)
        or _placed(
            placing,
            rows[placing.order_id],
            new=placing.order_id in new and placing is first[placing.order_id],
        )
        for number, placing in enumerate(placings)
    ]


def complete_all(connection: Connection, completions: Sequence[Completion]) -> list[Completed | CallerError]:
    """Complete many at a time, with the same four statements as for one.

    The first completion of an order counts: later ones get its event, whatever their data.
    Returned as outcomes: `UnknownOrder`, `InvalidOrder` and `EventTooLarge`.
    """
    asked = {"order_ids": [completion.order_id for completion in completions]}
    rows = {row.order_id: row for row in connection.execute(_FIND_LOCKED[connection.dialect.name], asked)}
    drafts: dict[str, Draft] = {}
    accepted_by: dict[str, str] = {}
    refused: dict[int, CallerError] = {}
    for number, completion in enumerate(completions):
        row = rows.get(completion.order_id)
        if row is not None and row.status == "open" and completion.order_id not in drafts:
            try:
                drafts[completion.order_id] = _completion_draft(row, completion)
                accepted_by[completion.order_id] = completion.accepted_by
            except CallerError as error:
                refused[number] = error
    done = _record_completions(connection, rows, drafts, accepted_by, now=completions[0].now)
    return [
        refused.get(number) or _outcome(connection, completion.order_id, rows, done)
        for number, completion in enumerate(completions)
    ]


def find(
    connection: Connection,
    *,
    customer_id: str | None,
    status: OrderStatus | None,
    before: str | None,
    limit: int,
) -> Listed:
    """The newest matching orders, and the customer's cursor from the same snapshot.

    `before` is an order id: only orders placed before that one. Raises `UnknownOrder` if there is none.
    """
    given = {
        "customer": customer_id,
        "before": _position(connection, before) if before is not None else MAX_NUMBER,
        "some": limit + 1,
    }
    statement = _list(connection.dialect.name, status, customer_id is not None)
    if customer_id is not None and connection.dialect.name == "postgresql":
        connection.execute(_IN_ORDER)
    rows = connection.execute(statement, given).all()
    return Listed(
        [_order(row, row.status, row.completed_at) for row in rows[:limit]],
        rows[limit - 1].order_id if len(rows) > limit else None,
        history.head(connection, customer_channel(customer_id)) if customer_id is not None else None,
    )


def board(connection: Connection, *, known: Sequence[str], open_most: int, recent_most: int) -> OnBoard:
    """The newest open orders, and of the others those that were completed or cancelled last.

    They are looked for among the `known` ones, which may have been open, and among the newest.
    """
    still_open = find(connection, customer_id=None, status="open", before=None, limit=open_most)
    found = {order.order_id: order for order in still_open.orders}
    for status in _OVER:
        newest = find(connection, customer_id=None, status=status, before=None, limit=recent_most)
        found |= {order.order_id: order for order in newest.orders}
    rows = _rows(connection, [order_id for order_id in known if order_id not in found])
    found |= {row.order_id: _order(row, row.status, row.completed_at) for row in rows.values()}
    # An order that was open before, and is not among the newest open ones any more, leaves the board.
    over = [order for order in found.values() if order.status != "open"]
    recent = _with_alerts(connection, sorted(over, key=_changed_at)[-recent_most:])
    return OnBoard([*recent, *reversed(still_open.orders)], still_open.before is not None)


def _with_alerts(connection: Connection, found: Sequence[Order]) -> list[Order]:
    """The same, with what became of each alert: it may be taken back without its order."""
    rows = _rows(connection, [order.order_id for order in found if order.status == "completed"])
    places = {
        order_id: (customer_channel(row.customer_id), row.seq)
        for order_id, row in rows.items()
        if row.seq is not None
    }
    gone = alerts.retracted(connection, places.values())
    return [
        msgspec.structs.replace(order, alert="retracted") if places.get(order.order_id) in gone else order
        for order in found
    ]


def _changed_at(order: Order) -> str:
    return max(order.completed_at or "", order.cancelled_at or "")


def cancel(
    connection: Connection, order_id: str, *, reason: str, now: datetime, traceparent: str | None
) -> Cancelled:
    """Cancel an order, and retract its alert if it has one. Repeating is harmless. Raises `UnknownOrder`."""
    row = connection.execute(_FIND_LOCKED[connection.dialect.name], {"order_ids": [order_id]}).one_or_none()
    if row is None:
        raise UnknownOrder(f"no order {order_id}")
    if row.cancelled_at is None:
        # `completed` takes it out of the indexes of open orders; the API reports it as cancelled.
        change = {"completed_order": order_id, "status": "completed", "cancelled_at": format_time(now)}
        connection.execute(_CANCEL, change)
    order = _order(row, "cancelled", row.completed_at, row.cancelled_at or format_time(now))
    if row.seq is None:
        return Cancelled(order, None)
    try:
        retraction = retractions.of_order(
            connection, order_id, reason=reason, now=now, traceparent=traceparent
        )
    except retractions.UnknownAlert:  # its alert is older than the history
        return Cancelled(order, None)
    return Cancelled(order, retraction.event)


def _fault(placing: Placing) -> CallerError | None:
    try:
        _draft(placing.order_id, placing.customer_id, placing.data, now=placing.now, traceparent=None)
    except CallerError as error:
        return error
    return None


def _insert(connection: Connection, placings: Mapping[str, Placing]) -> dict[str, Row[Any]]:
    """Insert the orders that are new; their rows."""
    # Sorted by id, so that two batches that share orders wait for each other instead of deadlocking.
    given = [
        {
            "order_id": placing.order_id,
            "customer_id": placing.customer_id,
            "data": msgspec.json.encode(placing.data).decode(),
            "created_at": format_time(placing.now),
            "status": "open",
        }
        for _, placing in sorted(placings.items())
    ]
    if not given:
        return {}
    rows = connection.execute(_PLACE[connection.dialect.name], given if len(given) > 1 else given[0])
    return {row.order_id: row for row in rows}


def _rows(connection: Connection, order_ids: Collection[str]) -> dict[str, Row[Any]]:
    if not order_ids:
        return {}
    rows = connection.execute(_FIND[connection.dialect.name], {"order_ids": list(order_ids)})
    return {row.order_id: row for row in rows}


def _placed(placing: Placing, row: Row[Any], *, new: bool) -> Placed | OrderConflict:
    if row.customer_id != placing.customer_id or not _same(row.data, placing.data):
        return OrderConflict(f"order {placing.order_id} was placed with other content")
    return Placed(_order(row, row.status, row.completed_at), new)


def _draft(
    order_id: str,
    customer_id: str,
    data: dict[str, Any],
    *,
    now: datetime,
    traceparent: str | None,
    attributes: Mapping[str, str] | None = None,
) -> Draft:
    if not isinstance(data.get("message", ""), str):
        raise InvalidOrder("data.message must be a text: the customer reads it")
    order = {"order_id": order_id, "customer_id": customer_id}
    content = {**order, "message": f"Order {order_id} is complete", **data, **order}
    channel = customer_channel(customer_id)
    return order_completed(
        order_id, channel, content, now=now, traceparent=traceparent, attributes=attributes
    )


def _completion_draft(row: Row[Any], completion: Completion) -> Draft:
    data = msgspec.json.decode(row.data) | completion.data
    return _draft(
        row.order_id,
        row.customer_id,
        data,
        now=completion.now,
        traceparent=completion.traceparent,
        attributes=completion.attributes,
    )


def _record_completions(
    connection: Connection,
    rows: Mapping[str, Row[Any]],
    drafts: Mapping[str, Draft],
    accepted_by: Mapping[str, str],
    *,
    now: datetime,
) -> dict[str, Completed]:
    completed_at = format_time(now)
    names = [accepted_by[order_id] for order_id in drafts]
    receipts = recording.record(connection, list(drafts.values()), now=now, accepted_by=names)
    recorded = dict(zip(drafts, receipts, strict=True))
    alerts.note(
        connection, [(draft, recorded[order_id].place) for order_id, draft in drafts.items() if draft.expires]
    )
    changes = [
        {"completed_order": order_id, "status": "completed", "completed_at": completed_at, "seq": place.seq}
        for order_id, (place, _) in recorded.items()
    ]
    if changes:
        connection.execute(_COMPLETE, changes)
    return {
        order_id: Completed(_order(rows[order_id], "completed", completed_at), event, new=True)
        for order_id, (_, event) in recorded.items()
    }


def _outcome(
    connection: Connection, order_id: str, rows: Mapping[str, Row[Any]], done: dict[str, Completed]
) -> Completed | UnknownOrder | OrderCancelled:
    if completed := done.get(order_id):
        done[order_id] = completed._replace(new=False)  # for repetitions in the same batch
        return completed
    if row := rows.get(order_id):
        if row.seq is None:
            return OrderCancelled(f"order {order_id} was cancelled")
        return Completed(_order(row, row.status, row.completed_at), _event(connection, row), new=False)
    return UnknownOrder(f"no order {order_id}")


def _order(
    row: Row[Any], status: OrderStatus, completed_at: str | None, cancelled_at: str | None = None
) -> Order:
    data = msgspec.Raw(row.data.encode())
    cancelled_at = cancelled_at or row.cancelled_at
    if cancelled_at is not None:
        status = "cancelled"
    return Order(row.order_id, row.customer_id, status, row.created_at, completed_at, data, cancelled_at)


def _event(connection: Connection, row: Row[Any]) -> bytes | None:
    entry = history.find(connection, customer_channel(row.customer_id), row.seq)
    return entry.text if entry else None


def _position(connection: Connection, order_id: str) -> int:
    row = _rows(connection, [order_id]).get(order_id)
    if row is None:
        raise UnknownOrder(f"no order {order_id}")
    return int(row.position)


# For this transaction. PostgreSQL believes that any customer has few orders, and would read and sort all.
_IN_ORDER = text(
    "SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true)"
)


@cache
def _list(dialect: str, status: OrderStatus | None, of_customer: bool) -> Select[Any]:
    """The newest orders before a position: those with that status, of one customer or of all."""
    if status is None and of_customer:  # the newest of the newest of each, since each has an index of its own
        parts = [_list(dialect, each, of_customer).subquery() for each in ORDERS]
        rows = union_all(*(select(part) for part in parts)).subquery()
        return select(rows).order_by(rows.c.position.desc()).limit(bindparam("some"))
    statement = select(orders).limit(bindparam("some"))
    if status is not None:
        statement = statement.where(ORDERS[status])
    if of_customer and dialect == "postgresql":
        # With "equals" PostgreSQL would see that the positions' own index has this order too, and for a
        # customer with many orders, all of them long ago, walk through all that others have placed since.
        place = tuple_(orders.c.customer_id, orders.c.position)
        return (
            statement.where(place < tuple_(bindparam("customer"), bindparam("before")))
            .where(orders.c.customer_id >= bindparam("customer"))
            .order_by(orders.c.customer_id.desc(), orders.c.position.desc())
        )
    if of_customer:
        statement = statement.where(orders.c.customer_id == bindparam("customer"))
    return statement.where(orders.c.position < bindparam("before")).order_by(orders.c.position.desc())


def _same(stored: str, data: dict[str, Any]) -> bool:
    """Whether both have the same content; the order of an object's members does not matter."""
    return canonical_json(msgspec.json.decode(stored)) == canonical_json(data)


def _place(dialect: str) -> ReturningInsert[Any]:
    statement = insert_into(dialect, orders).on_conflict_do_nothing(index_elements=[orders.c.order_id])
    return statement.returning(*orders.c)


_PLACE = {dialect: _place(dialect) for dialect in DIALECTS}
_FIND = {
    dialect: select(orders).where(is_among(dialect, orders.c.order_id, "order_ids")) for dialect in DIALECTS
}
# Sorted, so that two batches lock shared orders in the same sequence.
_FIND_LOCKED = {
    dialect: find.order_by(orders.c.order_id).with_for_update() for dialect, find in _FIND.items()
}
_CANCEL = (
    update(orders)
    .where(orders.c.order_id == bindparam("completed_order"))
    .values(status=bindparam("status"), cancelled_at=bindparam("cancelled_at"))
)
_COMPLETE = update(orders).where(orders.c.order_id == bindparam("completed_order"))
