"""`GET /alerts` and `POST /read`: the customer's own list, and marking alerts in it as read.

    GET /alerts?before=customer:alice=1.40&limit=20
    {"alerts": [{"cursor", "state", "event"}, …], "unread": 3, "as_of": "customer:alice=1.42", "before": null}

    POST /read   {"cursor": "customer:alice=1.42"}, {"ids": ["019…"]} or {"all": true}
    {"unread": 0, "as_of": "customer:alice=1.43"}

The sender answers both from the database; nothing is kept here. So a customer's requests are limited: a
client that asks without end would slow the sender down for all others. Of all customers' requests, only a few
are asked at a time: a list can wait, an alert can't.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import JSONResponse, Response

from receiver import metrics
from receiver.connections.messages import ReadReport
from receiver.feeds.history import HistoryRefused, HistoryUnavailable
from shared.channels import Channel, InvalidChannel, as_in_a_channel, customer_channel, parse_channel
from shared.cursors import Cursor, InvalidCursor, parse_after, parse_cursors
from shared.problems import Problem
from shared.quota import Quota

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from receiver.access.doorkeeper import Doorkeeper
    from receiver.access.identity import Identity
    from receiver.feeds.history import History

MAX_LIMIT = 200
DEFAULT_LIMIT = 50
_PARAMETERS = frozenset({"before", "limit", "channel", "ticket"})
_HEADERS = {"cache-control": "no-store"}

_decode = msgspec.json.Decoder(ReadReport).decode


@dataclass(frozen=True)
class Limits:
    """Of the requests that are under way at one gateway."""

    lists_at_once: int = 2  # questions to the sender
    lists_waiting: int = 200
    lists_of_customer: int = 8  # that wait or are asked


LIMITS = Limits()


class AlertsOverHttp:
    def __init__(
        self, history: History, doorkeeper: Doorkeeper, limits: Limits = LIMITS, *, per_minute: int = 600
    ) -> None:
        """`per_minute`: requests of each customer at one gateway; a tenth of them may come at once."""
        self._limits = limits
        self._turns = asyncio.Semaphore(limits.lists_at_once)
        self._under_way: Counter[str] = Counter()  # by customer, those that wait included
        at_once = max(1, per_minute // 10)
        self._quota = Quota(at_once, window_seconds=60 * at_once / per_minute)
        self._history = history
        self._doorkeeper = doorkeeper

    async def list_some(self, request: Request) -> Response:
        """Raises `Problem`."""
        identity = await self._identify(request)
        if unknown := request.query_params.keys() - _PARAMETERS:
            raise Problem(400, "invalid-query", f"unknown parameter {min(unknown)[:40]!r}")
        channel = _channel(request, identity)
        before, limit = _before(request, channel), _limit(request)
        try:
            async with self._turn(identity):
                body = await self._history.list_alerts(channel, before, limit)
        except HistoryUnavailable as error:
            raise _unavailable(error) from None
        return Response(body, media_type="application/json", headers=_HEADERS)

    async def mark_read(self, request: Request) -> Response:
        """Answers once the change is in the database. Raises `Problem`."""
        identity = await self._identify(request)
        channel = customer_channel(identity.customer)
        try:
            report = _decode(await request.body())
            places = parse_cursors(report.cursor)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidCursor) as error:
            raise Problem(
                400, "bad-message", f'expected {{"cursor": …}}, {{"ids": …}} or {{"all": true}}: {error}'
            ) from None
        if not (places or report.ids or report.all):
            raise Problem(400, "bad-message", "name a cursor, ids, or all")
        if others := places.keys() - {channel, *identity.channels}:
            raise Problem(403, "forbidden", f"the token does not name {min(others)}")
        cursors = [Cursor(channel, place) for of, place in places.items() if of == channel]
        try:
            async with self._turn(identity):
                if report.all:
                    [(_, as_of)] = await self._history.count_unread([channel])
                    cursors = list(map(Cursor, *zip(*parse_cursors(as_of).items(), strict=True)))
                [*_, (unread, as_of)] = await self._history.mark_read(
                    cursors, report.ids, customer=identity.customer
                ) or await self._history.count_unread([channel])
        except HistoryUnavailable as error:
            raise _unavailable(error) from None
        return JSONResponse({"unread": unread, "as_of": as_of}, headers=_HEADERS)

    @asynccontextmanager
    async def _turn(self, identity: Identity) -> AsyncIterator[None]:
        """While it lasts, the sender may be asked. Raises `Problem` where too many wait already."""
        customer, under_way = identity.customer, self._under_way
        if under_way[customer] >= self._limits.lists_of_customer:
            metrics.requests_refused.labels("too-many-lists").inc()
            raise Problem(429, "too-many-lists", "Ask for one list after the other.", {"retry-after": "1"})
        if under_way.total() >= self._limits.lists_at_once + self._limits.lists_waiting:
            metrics.requests_refused.labels("overloaded").inc()
            raise Problem(503, "overloaded", "Try again in a moment.", {"retry-after": "2"})
        under_way[customer] += 1
        try:
            async with self._turns:
                yield
        finally:
            under_way[customer] -= 1
            if not under_way[customer]:
                del under_way[customer]

    async def _identify(self, request: Request) -> Identity:
        """Raises `Problem`, also after too many requests."""
        identity = await self._doorkeeper.identify(request)
        if later := self._quota.spend(identity.customer):
            metrics.requests_refused.labels("too-many-lists").inc()
            headers = {"retry-after": str(math.ceil(later))}
            raise Problem(429, "too-many-lists", "Ask for the list less often.", headers)
        return identity


def _channel(request: Request, identity: Identity) -> Channel:
    """The customer's own channel, or a topic that the token names."""
    given = request.query_params.get("channel")
    if given is None:
        return customer_channel(identity.customer)
    try:
        channel = parse_channel(as_in_a_channel(given))
    except InvalidChannel as error:
        raise Problem(400, "invalid-channel", str(error)) from None
    if channel not in identity.channels:
        raise Problem(403, "forbidden", f"the token does not name {channel}")
    return channel


def _before(request: Request, channel: Channel) -> Cursor | None:
    try:
        places = parse_after(request.scope["query_string"].decode("latin-1"), name="before")
    except InvalidCursor as error:
        raise Problem(400, "invalid-cursor", str(error)) from None
    if not places:
        return None
    if places.keys() != {channel}:
        raise Problem(400, "invalid-cursor", f"before must be one cursor of {channel}")
    return Cursor(channel, places[channel])


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MAX_LIMIT and len(text) < 6):
        raise Problem(400, "invalid-query", f"limit must be a number from 1 to {MAX_LIMIT}")
    return int(text)


def _unavailable(error: HistoryUnavailable) -> Problem:
    if isinstance(error, HistoryRefused):
        return Problem(400, "bad-message", "the sender refuses this request")
    return Problem(503, "unavailable", "Alerts can't be read now.", {"retry-after": "2"})
