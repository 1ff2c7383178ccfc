"""What becomes of alerts: retracting, reading, counting and listing them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import msgspec

from sender import alerts, orders, retractions
from sender.http import bodies, reading
from sender.http.paths import channel_in_path, name_in_path
from sender.http.requests import json_response, traceparent_of, write_once
from sender.http.requests import response as response_to
from sender.idempotency import Answer
from sender.lane import Lane, LaneFull
from shared.channels import customer_channel, is_name, parse_channel
from shared.cursors import Cursor, parse_after, parse_cursor
from shared.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from sqlalchemy import Connection
    from starlette.requests import Request
    from starlette.responses import Response

    from sender.board import Board
    from sender.database.protocol import Database
    from sender.publishing.relay import Relay
    from sender.webhooks.deliveries import Reports


class AlertsQuery(msgspec.Struct, forbid_unknown_fields=True):
    before: bodies.CursorText | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=alerts.MAX_LIST)] = 50


class Alerts:
    def __init__(
        self,
        database: Database,
        relay: Relay,
        clock: Callable[[], datetime],
        board: Board,
        webhooks: Reports | None = None,
    ) -> None:
        self._webhooks = webhooks
        self._database = database
        self._relay = relay
        self._clock = clock
        self._board = board
        self._lane = Lane()

    async def retract(self, request: Request) -> Response:
        body = await reading.read_json(request, reading.MAX_BODY_BYTES)
        given = body.to(bodies.RetractionRequest)
        now, traceparent = self._clock(), traceparent_of(request)
        by_event = given.source is not None and given.id is not None
        named = (given.order_id is not None, given.source is not None, given.id is not None)
        if named not in ((True, False, False), (False, True, True)):
            raise Problem(400, "invalid-body", "name either an order_id, or source and id")

        of_event = partial(retractions.of_event, source=given.source or "", event_id=given.id or "")
        of_order = partial(retractions.of_order, order_id=given.order_id or "")
        retract = of_event if by_event else of_order

        def work(connection: Connection) -> Answer:
            done = retract(connection, reason=given.reason, now=now, traceparent=traceparent)
            retracted = bodies.RetractionBody(str(done.alert), msgspec.Raw(done.event))
            return Answer(200, msgspec.json.encode(retracted))

        response = await write_once(self._database, request, body, work, now=now)
        self._relay.wake()
        self._board.wake()
        return response

    async def cancel(self, request: Request) -> Response:
        order_id = name_in_path(request, "order_id")
        if order_id is None or not is_name(order_id):
            raise orders.UnknownOrder(f"no order {request.path_params['order_id'][:128]!r}")
        body = await reading.read_json(request, reading.MAX_BODY_BYTES, absent={})
        given = body.to(bodies.CancelOrder)
        now, traceparent = self._clock(), traceparent_of(request)

        def work(connection: Connection) -> Answer:
            order, event = orders.cancel(
                connection, order_id, reason=given.reason, now=now, traceparent=traceparent
            )
            cancelled = bodies.CancelledOrder(order, msgspec.Raw(event) if event is not None else None)
            return Answer(200, msgspec.json.encode(cancelled))

        response = await write_once(self._database, request, body, work, now=now)
        self._relay.wake()
        self._board.wake()
        return response

    async def mark_read(self, request: Request) -> Response:
        body = await reading.read_json(request, reading.MAX_CURSORS_BYTES)
        given = body.to(bodies.ReadRequest)
        cursors = sorted(map(parse_cursor, given.cursors))  # by name, the order in which channels are locked
        if given.ids and given.customer_id is None:
            raise Problem(400, "invalid-body", "ids need the customer_id whose events they are")
        now, webhooks = self._clock(), self._webhooks
        on_read = partial(webhooks.read, now=now) if webhooks is not None else None
        changed = False

        def work(connection: Connection) -> Answer:
            nonlocal changed
            counts, changed = [], False
            for channel, place in cursors:
                count, moved = alerts.read(connection, channel, up_to=place, now=now, on_read=on_read)
                counts.append(count)
                changed = changed or moved
            if given.ids:
                channel = customer_channel(given.customer_id or "")
                count, moved = alerts.read(connection, channel, ids=given.ids, now=now, on_read=on_read)
                counts.append(count)
                changed = changed or moved
            return Answer(200, _encode(counts))

        response = await write_once(self._database, request, body, work, now=now)
        if changed:
            self._relay.wake()
        if webhooks is not None:
            webhooks.wake()
        return response

    async def unread(self, request: Request) -> Response:
        body = await reading.read_json(request, reading.MAX_CURSORS_BYTES)
        names = [parse_channel(text) for text in body.to(bodies.UnreadRequest).channels]
        count = partial(alerts.count, names=names, now=self._clock())
        if "idempotency-key" in request.headers:
            return await write_once(
                self._database,
                request,
                body,
                lambda connection: Answer(200, _encode(count(connection))),
                now=self._clock(),
                keep=False,
            )
        return response_to(Answer(200, _encode(await self._database.read(count))))

    async def list_some(self, request: Request) -> Response:
        channel = channel_in_path(request, "channel")
        query = reading.parse_query(request, AlertsQuery)
        before = None
        if query.before is not None:
            before = parse_after(request.url.query, name="before").get(channel)
            if before is None:
                raise Problem(400, "invalid-cursor", f"{query.before!r} is not a cursor of {channel}")
        read = partial(alerts.page, channel=channel, before=before, limit=query.limit, now=self._clock())
        try:
            page = await self._lane.run(lambda: self._database.read(read))
        except LaneFull as error:
            raise Problem(503, "overloaded", str(error), {"retry-after": "2"}) from None
        return json_response(
            bodies.AlertsBody(
                [
                    bodies.AlertBody(str(Cursor(channel, one.place)), one.state, msgspec.Raw(one.text))
                    for one in page.alerts
                ],
                page.unread.unread,
                str(Cursor(channel, page.unread.as_of)),
                str(page.before) if page.before is not None else None,
            )
        )


def _encode(counts: Iterable[alerts.Unread]) -> bytes:
    unread = [
        bodies.UnreadCount(one.channel, one.unread, str(Cursor(one.channel, one.as_of))) for one in counts
    ]
    return msgspec.json.encode(bodies.UnreadBody(unread))
