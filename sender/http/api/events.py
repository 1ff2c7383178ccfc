"""`POST /events`: events of callers, one or many, in three modes (sender/http/binding.py)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from sender import alerts, idempotency, metrics, recording
from sender.digest import digest
from sender.http import binding, bodies, reading
from sender.http.reading import JsonBody
from sender.http.requests import answered, asked, key_name_of, note_recorded, traceparent_of, write_together
from sender.idempotency import Answer, Answered, Asked
from shared.cursors import parse_cursor
from shared.events import InvalidEvent, parse_event
from shared.json import canonical_json, parse_json
from shared.problems import Problem
from shared.process.ways import ways

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection
    from starlette.requests import Request
    from starlette.responses import Response

    from sender.database.protocol import Database
    from sender.lifetimes import Lifetimes
    from sender.publishing.relay import Relay
    from shared.cursors import Place


class Events:
    def __init__(
        self,
        database: Database,
        relay: Relay,
        clock: Callable[[], datetime],
        lifetimes: Lifetimes,
    ) -> None:
        self._lifetimes = lifetimes
        self._database = database
        self._relay = relay
        self._clock = clock

    async def post(self, request: Request) -> Response:
        # HTTP binding 3: the Content-Type decides first; `ce-` headers count only if it is neither of these.
        kind = binding.media_type(request.headers)
        if kind.name == binding.BATCH:
            kind.require_utf_8()
            body = await reading.read_body(request, reading.MAX_BATCH_BYTES)
            return await self._post_batch(request, JsonBody(body, parse_json(body)))
        if kind.name == binding.STRUCTURED:
            kind.require_utf_8()
            body = await reading.read_body(request, reading.MAX_BODY_BYTES)
            return await self._post_event(request, JsonBody(body, parse_json(body)))
        if binding.is_binary(request.headers) and not kind.name.startswith("application/cloudevents"):
            body = await reading.read_body(request, reading.MAX_BODY_BYTES)
            event = binding.binary_event(request.headers, kind, body)
            return await self._post_event(request, JsonBody(msgspec.json.encode(event), event))
        raise Problem(
            415,
            "unsupported-media-type",
            f"Content-Type must be {binding.STRUCTURED} or {binding.BATCH}, or the attributes ce- headers",
        )

    async def _post_event(self, request: Request, body: JsonBody) -> Response:
        now = self._clock()
        arrival = self._arrival(body.value, _Caller.of(request), now)
        return await self.record(request, body, Posted([arrival], now, alone=True))

    async def _post_batch(self, request: Request, body: JsonBody) -> Response:
        events = body.value
        if not isinstance(events, list):
            raise Problem(400, "invalid-body", "a batch is a JSON array of CloudEvents")
        if len(events) > bodies.MAX_BATCH:
            raise Problem(413, "content-too-large", f"a batch has at most {bodies.MAX_BATCH} events")
        now, caller = self._clock(), _Caller.of(request)
        arrivals = [self._arrival_or_result(event, caller, now) for event in events]
        return await self.record(request, body, Posted(arrivals, now))

    def _arrival(self, event: object, caller: _Caller, now: datetime) -> recording.Arrival:
        """Raises `InvalidEvent`."""
        if not isinstance(event, dict):
            raise InvalidEvent("a CloudEvent is a JSON object")
        # Before defaults are added: a repetition may belong to another trace, and default times would differ.
        content = digest(canonical_json(event))
        defaults = {"traceparent": caller.traceparent, **self._lifetimes.attributes(event.get("type"), now)}
        return recording.arrival(parse_event(defaults | event, now=now), content, caller.key_name)

    def _arrival_or_result(
        self, event: object, caller: _Caller, now: datetime
    ) -> recording.Arrival | bodies.EventResult:
        try:
            return self._arrival(event, caller, now)
        except InvalidEvent as error:
            return bodies.EventResult("refused", *_identity(event), error=str(error))

    async def record(self, request: Request, body: JsonBody, posted: Posted) -> Response:
        waiting = asked(request, body, posted, posted.now)
        size = len(posted.arrivals)
        done = await write_together(self._database, request, _record_all_once, waiting, size=size)
        if done.result is not None:
            self._relay.wake()
            for status, count in Counter(result.status for result in done.result).items():
                metrics.events.labels(status).inc(count)
            _note_recorded(request, posted, done.result)
        return answered(done)


def _note_recorded(request: Request, posted: Posted, results: Sequence[bodies.EventResult]) -> None:
    if ways.noted:
        for one, result in zip(posted.arrivals, results, strict=True):
            if isinstance(one, recording.Arrival) and result.status == "accepted" and result.cursor:
                note_recorded(request, one.draft.text(parse_cursor(result.cursor).place))


class _Caller(NamedTuple):
    traceparent: str
    key_name: str

    @classmethod
    def of(cls, request: Request) -> _Caller:
        return cls(traceparent_of(request), key_name_of(request))


class Posted(NamedTuple):
    """What one request posted. Entries that are not events have their results already."""

    arrivals: Sequence[recording.Arrival | bodies.EventResult]
    now: datetime
    alone: bool = False  # a single event: if it is refused, the request is


def _record_all_once(
    connection: Connection, requests: Sequence[Asked[Posted]]
) -> list[Answered[list[bodies.EventResult]] | Exception]:
    """One transaction for all waiting requests, see sender/http/api/orders.py."""
    return idempotency.once_all(connection, requests, _record_all, _recorded)


def _record_all(
    connection: Connection, requests: Sequence[Posted]
) -> list[list[bodies.EventResult] | Problem]:
    good = [one for posted in requests for one in posted.arrivals if isinstance(one, recording.Arrival)]
    receipts = recording.record_once(connection, good, now=requests[0].now)
    alerts.note(connection, [(one.draft, place) for one, place in _living(good, receipts)])
    results = map(_result, good, receipts)
    return [_of_request(posted, results) for posted in requests]


def _living(
    arrivals: Sequence[recording.Arrival], receipts: Sequence[recording.Receipt]
) -> Iterator[tuple[recording.Arrival, Place]]:
    """The new events that replace others or expire."""
    for arrival, (status, cursor) in zip(arrivals, receipts, strict=True):
        draft = arrival.draft
        if (draft.replaces or draft.expires) and status is recording.Status.ACCEPTED and cursor is not None:
            yield arrival, cursor.place


def _of_request(posted: Posted, results: Iterator[bodies.EventResult]) -> list[bodies.EventResult] | Problem:
    """The results for one request; those of its events are the next of `results`."""
    own = [next(results) if isinstance(one, recording.Arrival) else one for one in posted.arrivals]
    refused = posted.alone and own[0].status == "refused"
    return Problem(409, "event-conflict", str(own[0].error)) if refused else own


def _recorded(results: list[bodies.EventResult]) -> Answer:
    return Answer(202, msgspec.json.encode(bodies.EventResults(results)))


def _identity(event: object) -> tuple[str | None, str | None]:
    """Source and id of a refused event, if they are strings."""
    members: dict[str, Any] = event if isinstance(event, dict) else {}
    source, event_id = members.get("source"), members.get("id")
    return source if isinstance(source, str) else None, event_id if isinstance(event_id, str) else None


def _result(arrival: recording.Arrival, receipt: recording.Receipt) -> bodies.EventResult:
    draft = arrival.draft
    if receipt.cursor is None:
        error = "an event with this source and id but other content was recorded before"
        return bodies.EventResult("refused", draft.source, draft.id, error=error)
    return bodies.EventResult(receipt.status.value, draft.source, draft.id, cursor=str(receipt.cursor))
