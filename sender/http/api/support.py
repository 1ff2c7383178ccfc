"""For support and operators: what became of an alert, and who is connected."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import msgspec
from redis.exceptions import RedisError

from sender import lives, resending, trace, trials
from sender.http import bodies, reading
from sender.http.requests import json_response, key_name_of, note_recorded, traceparent_of, write_once
from sender.idempotency import Answer
from shared.channels import customer_channel
from shared.events import SOURCE
from shared.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection
    from starlette.requests import Request
    from starlette.responses import Response

    from sender.database.protocol import Database
    from sender.publishing.relay import Relay
    from sender.roll import Caller, Roll
    from shared.channels import Channel
    from shared.redis.inquiries import GatewayReport, Inquirer

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class TraceQuery(msgspec.Struct, forbid_unknown_fields=True):
    """One order, one event, or a customer's newest events. With a customer: whether they had it."""

    order_id: bodies.OrderId | None = None
    event_id: _Id | None = None
    source: _Id | None = None  # of the event; by default our own orders'
    customer_id: bodies.Name | None = None


class ConnectionsQuery(msgspec.Struct, forbid_unknown_fields=True):
    customer_id: bodies.Name | None = None


class Support:
    def __init__(
        self,
        database: Database,
        relay: Relay,
        inquirer: Inquirer,
        clock: Callable[[], datetime],
        roll: Roll,
    ) -> None:
        self._database = database
        self._relay = relay
        self._inquirer = inquirer
        self._clock = clock
        self._roll = roll

    async def trace(self, request: Request) -> Response:
        query = reading.parse_query(request, TraceQuery)
        subject = await self._database.read(_work(query, self._clock()))
        asked_at = self._clock()
        gateways = await self._ask(subject.channel) if subject.channel is not None else None
        if subject.missing is not None:
            # An order that was refused for the database's sake is missing, too.
            await self._database.check()
            explained = [bodies.TracedAlert(None, subject.missing.verdict.value, subject.missing.findings)]
        else:
            relay = self._relay
            relaying = trace.Relaying(relay.redis_up, relay.contested, relay.stops.sender, relay.published_at)
            known = trace.Known(gateways, self._silent(gateways), asked_at)
            explained = [
                bodies.TracedAlert(life, given.verdict.value, given.findings)
                for life in (trace.with_publication(one, relaying) for one in subject.lives)
                for given in [trace.explain(life, relaying, known, customer_id=query.customer_id)]
            ]
        return json_response(bodies.TraceBody(subject.asked, subject.channel, explained, gateways))

    async def connections(self, request: Request) -> Response:
        query = reading.parse_query(request, ConnectionsQuery)
        channel = customer_channel(query.customer_id) if query.customer_id is not None else None
        gateways = await self._ask(channel)
        silent = [one.name for one in self._silent(gateways)]
        count = sum(one.listening_count for one in gateways or ())
        return json_response(bodies.ConnectionsBody(count, gateways, silent))

    async def resend(self, request: Request) -> Response:
        body = await reading.read_json(request, reading.MAX_BODY_BYTES)
        given = body.to(bodies.ResendRequest)
        named = (given.order_id is not None, given.source is not None, given.id is not None)
        if named not in ((True, False, False), (False, True, True)):
            raise Problem(400, "invalid-body", "name either an order_id, or source and id")
        caller = resending.Caller(self._clock(), traceparent_of(request), key_name_of(request))
        recorded: bytes | None = None

        def work(connection: Connection) -> Answer:
            nonlocal recorded
            if given.order_id is not None:
                done = resending.of_order(connection, given.order_id, caller)
            else:
                done = resending.of_event(connection, given.source or "", given.id or "", caller)
            recorded = done.event
            return Answer(
                200, msgspec.json.encode(bodies.ResentBody(str(done.cursor), msgspec.Raw(done.event)))
            )

        response = await write_once(self._database, request, body, work, now=caller.now)
        note_recorded(request, recorded)
        self._relay.wake()
        return response

    async def try_out(self, request: Request) -> Response:
        body = await reading.read_json(request, reading.MAX_BODY_BYTES)
        customer_id, now = body.to(bodies.TrialRequest).customer_id, self._clock()
        traceparent, accepted_by = traceparent_of(request), key_name_of(request)

        def work(connection: Connection) -> Answer:
            done = trials.record(
                connection, customer_id, now=now, traceparent=traceparent, accepted_by=accepted_by
            )
            return Answer(200, msgspec.json.encode(bodies.TrialBody(str(done.cursor), done.source, done.id)))

        response = await write_once(self._database, request, body, work, now=now)
        self._relay.wake()
        return response

    def _silent(self, gateways: list[GatewayReport] | None) -> list[Caller]:
        """Those that have asked this sender lately and do not answer."""
        answered = {report.gateway for report in gateways or ()}
        return [one for one in self._roll.lately() if one.name not in answered]

    async def _ask(self, channel: Channel | None) -> list[GatewayReport] | None:
        try:
            return await self._inquirer.ask(channel)
        except (RedisError, OSError, TimeoutError):
            return None


def _work(query: TraceQuery, now: datetime) -> partial[lives.Subject]:
    """What to read. Raises `Problem` unless exactly one thing is asked for."""
    if query.order_id is not None and query.event_id is None:
        return partial(lives.of_order, order_id=query.order_id, now=now)
    if query.event_id is not None and query.order_id is None:
        return partial(lives.of_event, source=query.source or SOURCE, event_id=query.event_id, now=now)
    if query.customer_id is not None and query.order_id is None:
        return partial(lives.of_customer, customer_id=query.customer_id, now=now)
    raise Problem(400, "invalid-query", "give one of order_id, event_id and customer_id")
