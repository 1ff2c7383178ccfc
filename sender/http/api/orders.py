"""`/orders`: placing, completing and listing them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import StreamingResponse

from sender import history, idempotency, metrics, orders
from sender.http import bodies, reading
from sender.http.paths import name_in_path
from sender.http.problems import RETRY_AFTER_SECONDS
from sender.http.requests import (
    answered,
    asked,
    json_response,
    key_name_of,
    note_recorded,
    traceparent_of,
    write_together,
)
from sender.idempotency import Answer, Answered, Asked
from sender.orders import OrderStatus
from shared.channels import is_name
from shared.events import ORDER_COMPLETED
from shared.problems import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection
    from starlette.requests import Request
    from starlette.responses import Response

    from sender.board import Board
    from sender.database.protocol import Database
    from sender.lifetimes import Lifetimes
    from sender.publishing.relay import Relay


BEAT_SECONDS = 15.0  # below the idle timeout of common proxies
_STREAM_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class OrdersQuery(msgspec.Struct, forbid_unknown_fields=True):
    customer_id: bodies.Name | None = None
    status: OrderStatus | None = None
    before: bodies.Name | None = None
    limit: bodies.Limit = history.DEFAULT_LIMIT


class Orders:
    def __init__(
        self,
        database: Database,
        relay: Relay,
        clock: Callable[[], datetime],
        lifetimes: Lifetimes,
        board: Board,
    ) -> None:
        self._lifetimes = lifetimes
        self._board = board
        self._database = database
        self._relay = relay
        self._clock = clock

    async def place(self, request: Request) -> Response:
        body = await reading.read_json(request, reading.MAX_BODY_BYTES)
        given = body.to(bodies.PlaceOrder)
        placing = orders.Placing(given.order_id, given.customer_id, given.data, self._clock())
        waiting = asked(request, body, placing, placing.now)
        done = await write_together(self._database, request, _place_all, waiting)
        self._board.wake()
        return answered(done)

    async def complete(self, request: Request) -> Response:
        order_id = name_in_path(request, "order_id")
        if order_id is None or not is_name(order_id):
            raise orders.UnknownOrder(f"no order {request.path_params['order_id'][:128]!r}")
        body = await reading.read_json(request, reading.MAX_BODY_BYTES, absent={})
        given = body.to(bodies.CompleteOrder)
        now, own = self._clock(), given.attributes()
        attributes = self._lifetimes.attributes(ORDER_COMPLETED, now) | own
        completion = orders.Completion(
            order_id, given.data, now, traceparent_of(request), attributes, key_name_of(request)
        )
        waiting = asked(request, body, completion, completion.now)
        done = await write_together(self._database, request, _complete_all, waiting)
        if done.result is not None and done.result.new:
            metrics.completions.inc()
            note_recorded(request, done.result.event)
            self._relay.wake()
            self._board.wake()
        return answered(done)

    async def list_some(self, request: Request) -> Response:
        query = reading.parse_query(request, OrdersQuery)
        listed = await self._database.read(partial(orders.find, **msgspec.structs.asdict(query)))
        as_of = str(listed.as_of) if listed.as_of else None
        return json_response(bodies.Orders(listed.orders, as_of, listed.before))

    async def changes(self, request: Request) -> Response:
        """Server-Sent Events. The first has all orders of the board; comments keep a quiet stream open."""
        if request.url.query:
            raise Problem(400, "invalid-query", "this call takes no parameters")
        if self._board.is_full:
            later = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            raise Problem(503, "overloaded", "too many callers already listen to this sender's orders", later)
        stream = _stream(self._board, request.state.key_is_good)
        return StreamingResponse(stream, headers=_STREAM_HEADERS, media_type="text/event-stream")


async def _stream(board: Board, key_is_good: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Until the sender leaves or the caller's key is no longer one."""
    with board.watch() as watcher:
        while key_is_good():
            try:
                changes = await watcher.next(BEAT_SECONDS)
            except TimeoutError:
                yield b":\n\n"
                continue
            if changes is None:
                return
            shown = bodies.OrderChanges(changes.orders, changes.gone, changes.more)
            yield b"data: %b\n\n" % msgspec.json.encode(shown)  # JSON has no line ends


# Which function wraps which, from the outside in: `Database.write_together` calls one of these in a
# transaction for all waiting requests. `once_all` answers repetitions. The domain gets the others, together;
# each result becomes an answer, which is stored in the same transaction. `complete_all` locks the orders, and
# `recording.record` in it their customers' channels.


def _place_all(
    connection: Connection, requests: Sequence[Asked[orders.Placing]]
) -> list[Answered[orders.Placed] | Exception]:
    return idempotency.once_all(connection, requests, orders.place_all, _placed)


def _complete_all(
    connection: Connection, requests: Sequence[Asked[orders.Completion]]
) -> list[Answered[orders.Completed] | Exception]:
    return idempotency.once_all(connection, requests, orders.complete_all, _completed)


def _placed(placed: orders.Placed) -> Answer:
    return Answer(201 if placed.new else 200, msgspec.json.encode(placed.order))


def _completed(done: orders.Completed) -> Answer:
    event = msgspec.Raw(done.event) if done.event is not None else None
    return Answer(200, msgspec.json.encode(bodies.CompletedOrder(done.order, event)))
