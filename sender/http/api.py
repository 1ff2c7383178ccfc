"""What each call does: parse the request, run one function of the domain in a transaction, answer.

Whose fault an error is, and what its caller is told, stands in `sender.http.app`.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec
import structlog
from starlette.responses import Response

from sender import dead_letters, erasure, history, idempotency, metrics, orders, outbox, seen
from sender.database.errors import DatabaseError
from sender.digest import digest
from sender.http import binding, bodies
from sender.http.bodies import JsonBody
from sender.http.paths import channel_in_path, name_in_path
from sender.idempotency import Answer, Asked
from sender.orders import OrderStatus
from sender.tombstones import Fault
from shared.channels import customer_channel, is_name, parse_channel
from shared.cursors import Cursor, parse_after, parse_cursor
from shared.events import InvalidEvent, is_traceparent, parse_event
from shared.json import canonical_json, parse_json
from shared.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection
    from starlette.requests import Request

    from sender.database.protocol import Database
    from sender.idempotency import Claim
    from sender.metrics import Metrics
    from sender.publishing.forgetting import Forgetting
    from sender.publishing.relay import Relay
    from sender.seen import SeenTeller

T = TypeVar("T")

logger = structlog.get_logger(__name__)

_random = random.Random()  # seeded by the kernel, once

METRICS_SECONDS = 1.0  # for the database to answer
READY_SECONDS = 2.0  # for the database to answer
ANSWERS_AT_ONCE = 500  # deleted in one transaction


class OrdersQuery(msgspec.Struct, forbid_unknown_fields=True):
    customer_id: bodies.Name | None = None
    status: OrderStatus | None = None
    before: bodies.Name | None = None
    limit: bodies.Limit = history.DEFAULT_LIMIT


class EventsQuery(msgspec.Struct, forbid_unknown_fields=True):
    after: bodies.CursorText | None = None
    limit: bodies.Limit = history.DEFAULT_LIMIT


class DeadLettersQuery(msgspec.Struct, forbid_unknown_fields=True):
    before: bodies.Position | None = None
    limit: bodies.Limit = history.DEFAULT_LIMIT


class Api:
    def __init__(
        self,
        database: Database,
        relay: Relay,
        teller: SeenTeller,
        metrics: Metrics,
        clock: Callable[[], datetime],
        forgetting: Forgetting,
    ) -> None:
        self._database = database
        self._forgetting = forgetting
        self._relay = relay
        self._teller = teller
        self._metrics = metrics
        self._clock = clock

    async def place_order(self, request: Request) -> Response:
        body = await bodies.read_json(request, bodies.MAX_BODY_BYTES)
        given = body.to(bodies.PlaceOrder)
        placing = orders.Placing(given.order_id, given.customer_id, given.data, self._clock())
        outcome = await self._database.write_together(_PLACE, self._asked(request, body, placing))
        return _response(outcome.answer, replayed=outcome.replayed)

    async def complete_order(self, request: Request) -> Response:
        order_id = name_in_path(request, "order_id")
        if order_id is None or not is_name(order_id):
            raise orders.UnknownOrder(f"no order {request.path_params['order_id'][:128]!r}")
        body = await bodies.read_json(request, bodies.MAX_BODY_BYTES, absent={})
        given = body.to(bodies.CompleteOrder)
        completion = orders.Completion(order_id, given.data, self._clock(), _traceparent(request))
        outcome = await self._database.write_together(_COMPLETE, self._asked(request, body, completion))
        if outcome.result is not None and outcome.result.new:
            self._metrics.completions.inc()
            self._relay.wake()
        return _response(outcome.answer, replayed=outcome.replayed)

    async def list_orders(self, request: Request) -> Response:
        query = bodies.parse_query(request, OrdersQuery)
        listed = await self._database.read(partial(orders.find, **msgspec.structs.asdict(query)))
        as_of = str(listed.as_of) if listed.as_of else None
        return _json(bodies.Orders(listed.orders, as_of, listed.before))

    async def post_events(self, request: Request) -> Response:
        # HTTP binding 3: the Content-Type decides first, `ce-` headers only where it is not one of these.
        kind = binding.media_type(request.headers)
        if kind.name == binding.BATCH:
            kind.require_utf_8()
            body = await bodies.read_body(request, bodies.MAX_BATCH_BYTES)
            return await self._post_batch(request, JsonBody(body, parse_json(body)))
        if kind.name == binding.STRUCTURED:
            kind.require_utf_8()
            body = await bodies.read_body(request, bodies.MAX_BODY_BYTES)
            return await self._post_event(request, JsonBody(body, parse_json(body)))
        if binding.is_binary(request.headers) and not kind.name.startswith("application/cloudevents"):
            body = await bodies.read_body(request, bodies.MAX_BODY_BYTES)
            event = binding.binary_event(request.headers, kind, body)
            return await self._post_event(request, JsonBody(msgspec.json.encode(event), event))
        raise Problem(
            415,
            "unsupported-media-type",
            f"Content-Type must be {binding.STRUCTURED} or {binding.BATCH}; or ce- headers the attributes",
        )

    async def _post_event(self, request: Request, body: JsonBody) -> Response:
        now = self._clock()
        arrival = _arrival(body.value, _traceparent(request), now)
        return await self._record(request, body, _Recording([arrival], now, alone=True))

    async def _post_batch(self, request: Request, body: JsonBody) -> Response:
        events = body.value
        if not isinstance(events, list):
            raise Problem(400, "invalid-body", "a batch is a JSON array of CloudEvents")
        if len(events) > bodies.MAX_BATCH:
            raise Problem(413, "content-too-large", f"a batch has at most {bodies.MAX_BATCH} events")
        now, traceparent = self._clock(), _traceparent(request)
        arrivals = [_arrival_or_result(event, traceparent, now) for event in events]
        return await self._record(request, body, _Recording(arrivals, now))

    async def _record(self, request: Request, body: JsonBody, recording: _Recording) -> Response:
        asked = self._asked(request, body, recording)
        outcome = await self._database.write_together(_RECORD, asked, size=len(recording.arrivals))
        if outcome.result is not None:
            self._relay.wake()
            for status, count in Counter(result.status for result in outcome.result).items():
                self._metrics.events.labels(status).inc(count)
        return _response(outcome.answer, replayed=outcome.replayed)

    async def channel_events(self, request: Request) -> Response:
        channel = channel_in_path(request, "channel")
        query = bodies.parse_query(request, EventsQuery)
        after = parse_after(request.url.query) if query.after is not None else None
        if after is not None and after.keys() != {channel}:
            raise Problem(400, "invalid-cursor", f"{query.after!r} is not one cursor of {channel}")

        def work(connection: Connection) -> history.ChannelHistory:
            place = after[channel] if after is not None else history.oldest(connection, channel)
            (found,) = history.read(connection, [history.Request(channel, place)], limit=query.limit)
            return found

        found = await self._database.read(work)
        as_of = str(Cursor(channel, found.as_of))
        if found.reset is not None:
            raise Problem(
                410,
                "cursor-gone",
                "this cursor cannot be honoured; load the state anew and go on at as_of",
                as_of=as_of,
                reset=found.reset.value,
            )
        last = found.entries[-1].place if found.entries else found.after
        return _json(bodies.ChannelEvents(_raw(found), str(Cursor(channel, last)), as_of))

    async def read_history(self, request: Request) -> Response:
        asked = await bodies.read_json(request, bodies.MAX_CURSORS_BYTES)
        given = asked.to(bodies.HistoryRequest)
        requests = [_history_request(text) for text in given.after]
        unseen: list[Cursor] = []
        installation = await self._relay.installation()

        def work(connection: Connection) -> Answer:
            nonlocal unseen
            found = history.read(connection, requests, limit=given.limit)
            unseen = [
                Cursor(answer.channel, answer.seen)
                for one, answer in zip(requests, found, strict=True)
                if one.after is None and answer.seen is not None
            ]
            newest = self._relay.newest
            body = bodies.HistoryBody(
                list(map(_history_body, found)), f"{newest.epoch}.{newest.position}", installation
            )
            return Answer(200, msgspec.json.encode(body))

        if "idempotency-key" in request.headers:
            response = await self._write(request, asked, work, keep=False)
        else:
            response = _response(await self._database.read(work))
        # The next gateway that asks for these customers finds their seen cursors in Redis.
        self._teller.tell_nowait(unseen, devices=False)
        return response

    async def post_seen(self, request: Request) -> Response:
        body = await bodies.read_json(request, bodies.MAX_CURSORS_BYTES)
        given = body.to(bodies.SeenRequest)
        cursors = [parse_cursor(text) for text in given.cursors]
        now_seen: list[Cursor] = []

        def work(connection: Connection) -> Answer:
            nonlocal now_seen
            now_seen = seen.see(connection, cursors)
            return Answer(200, msgspec.json.encode(bodies.SeenBody([str(cursor) for cursor in now_seen])))

        response = await self._write(request, body, work)
        self._teller.tell_nowait((cursor for cursor in now_seen if cursor.place.seq), devices=True)
        return response

    async def erase_customer(self, request: Request) -> Response:
        customer_id = name_in_path(request, "customer_id")
        if customer_id is None or not is_name(customer_id):
            raise Problem(400, "invalid-customer", "a customer id is 1 to 128 characters, none a control")
        erased = await self._database.write(
            partial(erasure.erase, customer_id=customer_id, now=self._clock())
        )
        answers = await self._delete_answers(customer_id)
        done = await self._forgetting.forget(customer_channel(customer_id))
        logger.info("a customer was erased", orders=erased.orders, events=erased.events, redis=done)
        return _json(bodies.ErasedCustomer(*erased, answers, "erased" if done else "pending"))

    async def _delete_answers(self, customer_id: str) -> int:
        """A look at all answers that are kept blocks nobody who writes; deleting some is short."""
        scopes = await self._database.read(partial(erasure.kept_answers, customer_id=customer_id))
        parts = [scopes[start : start + ANSWERS_AT_ONCE] for start in range(0, len(scopes), ANSWERS_AT_ONCE)]
        return sum(
            [await self._database.write(partial(erasure.delete_answers, scopes=part)) for part in parts]
        )

    async def list_dead_letters(self, request: Request) -> Response:
        query = bodies.parse_query(request, DeadLettersQuery)
        found = await self._database.read(partial(dead_letters.find, before=query.before, limit=query.limit))
        return _json(bodies.DeadLettersBody([_dead_letter(one) for one in found.dead_letters], found.before))

    async def livez(self, request: Request) -> Response:
        return _json({"live": True})

    async def readyz(self, request: Request) -> Response:
        """Redis is told about but does not count: orders must be completed while it is away."""
        database = await self._database_answers()
        contested = self._relay.contested
        ready = database and self._relay.alive and not contested
        redis = {True: "ok", False: "away", None: "unknown"}[self._relay.redis_up]
        if contested:
            redis = "another installation uses the same database number and prefix"
        parts = {"database": _word(database), "relay": _word(self._relay.alive), "redis": redis}
        return Response(
            msgspec.json.encode({"ready": ready, **parts}),
            200 if ready else 503,
            media_type="application/json",
        )

    async def metrics(self, request: Request) -> Response:
        """Answers while the database is away, too: that is when somebody looks."""
        try:
            async with asyncio.timeout(METRICS_SECONDS):
                backlog, kept = await self._database.read(_counts)
        except (DatabaseError, TimeoutError):
            self._metrics.database_up.set(0)
        else:
            self._metrics.database_up.set(1)
            self._metrics.note_backlog(backlog, now=self._clock())
            self._metrics.dead_letters_kept.set(kept)
        return Response(self._metrics.exposition(), media_type=metrics.CONTENT_TYPE)

    async def _database_answers(self) -> bool:
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._database.check()
        except (DatabaseError, TimeoutError):
            return False
        return True

    def _asked(self, request: Request, body: JsonBody, item: T) -> Asked[T]:
        return Asked(item, _claim(request, body), self._clock())

    async def _write(
        self,
        request: Request,
        body: JsonBody,
        work: Callable[[Connection], Answer],
        *,
        keep: bool = True,
    ) -> Response:
        """Run the work in a transaction, or find the answer that the same request got before."""
        claim = _claim(request, body)
        outcome = await self._database.write(
            partial(idempotency.once, claim=claim, work=work, now=self._clock(), keep=keep)
        )
        return _response(outcome.answer, replayed=outcome.replayed)


def _counts(connection: Connection) -> tuple[outbox.Backlog, int]:
    return outbox.backlog(connection), dead_letters.count(connection)


def _claim(request: Request, body: JsonBody) -> Claim | None:
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    who, what = request.state.api_key, canonical_json(body.value)
    return idempotency.claim(who, request.method, request.scope["path"], key, body.sent, what)


def _placed(placed: orders.Placed) -> Answer:
    return Answer(201 if placed.new else 200, msgspec.json.encode(placed.order))


def _completed(done: orders.Completed) -> Answer:
    event = msgspec.Raw(done.event) if done.event is not None else None
    return Answer(200, msgspec.json.encode(bodies.CompletedOrder(done.order, event)))


def _recorded(results: list[bodies.EventResult]) -> Answer:
    return Answer(202, msgspec.json.encode(bodies.EventResults(results)))


class _Recording(NamedTuple):
    """What came to our door in one request. What is no event has its result already."""

    arrivals: Sequence[outbox.Arrival | bodies.EventResult]
    now: datetime
    alone: bool = False  # an event that is no batch: refused, the request is


def _record_all(
    connection: Connection, recordings: Sequence[_Recording]
) -> list[list[bodies.EventResult] | Problem]:
    good = [one for recording in recordings for one in recording.arrivals if isinstance(one, outbox.Arrival)]
    results = map(_result, good, outbox.record_once(connection, good, now=recordings[0].now))
    return [_told(recording, results) for recording in recordings]


def _told(recording: _Recording, results: Iterator[bodies.EventResult]) -> list[bodies.EventResult] | Problem:
    """What one request is told; the results of its events are the next."""
    told = [next(results) if isinstance(one, outbox.Arrival) else one for one in recording.arrivals]
    refused = recording.alone and told[0].status == "refused"
    return Problem(409, "event-conflict", str(told[0].error)) if refused else told


# Made once: what waits for the same work is done together.
_PLACE = partial(idempotency.once_all, work=orders.place_all, answer=_placed)
_RECORD = partial(idempotency.once_all, work=_record_all, answer=_recorded)
_COMPLETE = partial(idempotency.once_all, work=orders.complete_all, answer=_completed)


def _response(answer: Answer, *, replayed: bool = False) -> Response:
    headers = {"Idempotency-Replayed": "true"} if replayed else None
    return Response(answer.body, answer.status, headers, media_type="application/json")


def _json(body: object) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")


def _word(good: bool) -> str:
    return "ok" if good else "failed"


def _traceparent(request: Request) -> str:
    """The caller's trace, or the start of a new one, so that every event can be followed."""
    given = request.headers.get("traceparent", "")
    if is_traceparent(given):
        return given
    # Ids only have to differ; asking the kernel for each would cost two system calls a request.
    return f"00-{_random.getrandbits(128) or 1:032x}-{_random.getrandbits(64) or 1:016x}-01"


def _arrival(event: object, traceparent: str, now: datetime) -> outbox.Arrival:
    """Raises `InvalidEvent`."""
    if not isinstance(event, dict):
        raise InvalidEvent("a CloudEvent is a JSON object")
    # A repetition may come in another trace, and a `time` that is missing would be another one.
    content = digest(canonical_json(event))
    return outbox.arrival(parse_event({"traceparent": traceparent} | event, now=now), content)


def _arrival_or_result(event: object, traceparent: str, now: datetime) -> outbox.Arrival | bodies.EventResult:
    try:
        return _arrival(event, traceparent, now)
    except InvalidEvent as error:
        return bodies.EventResult("refused", *_identity(event), error=str(error))


def _identity(event: object) -> tuple[str | None, str | None]:
    """What a refused event says of itself, where it is a text."""
    members: dict[str, Any] = event if isinstance(event, dict) else {}
    source, event_id = members.get("source"), members.get("id")
    return source if isinstance(source, str) else None, event_id if isinstance(event_id, str) else None


def _result(arrival: outbox.Arrival, receipt: outbox.Receipt) -> bodies.EventResult:
    draft = arrival.draft
    if receipt.cursor is None:
        error = "an event with this source and id, and other content, was recorded before"
        return bodies.EventResult("refused", draft.source, draft.id, error=error)
    return bodies.EventResult(receipt.status.value, draft.source, draft.id, cursor=str(receipt.cursor))


def _history_request(text: str) -> history.Request:
    if "=" not in text:
        return history.Request(parse_channel(text), None)
    cursor = parse_cursor(text)
    return history.Request(cursor.channel, cursor.place)


def _history_body(found: history.ChannelHistory) -> bodies.ChannelHistoryBody:
    channel = found.channel
    return bodies.ChannelHistoryBody(
        channel=channel,
        after=str(Cursor(channel, found.after)),
        as_of=str(Cursor(channel, found.as_of)),
        seen=str(Cursor(channel, found.seen)) if found.seen is not None else None,
        reset=found.reset.value if found.reset is not None else None,
        events=_raw(found),
    )


def _dead_letter(dead: dead_letters.DeadLetter) -> bodies.DeadLetterBody:
    origin = dead.row.origin()
    return bodies.DeadLetterBody(
        cursor=str(Cursor(dead.row.channel, dead.row.place)),
        source=origin.source,
        id=origin.id,
        reason=Fault(dead.reason),
        detail=dead.detail,
        recorded_at=dead.row.recorded_at,
        given_up_at=dead.given_up_at,
        size=dead.size,
        beginning=dead.beginning,
    )


def _raw(found: history.ChannelHistory) -> list[msgspec.Raw]:
    """The stored texts, embedded as they are."""
    return [msgspec.Raw(entry.text) for entry in found.entries]
