"""For operators and their machines: health, metrics, dead letters."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from redis.exceptions import RedisError
from starlette.responses import Response

from sender import dead_letters, history, metrics, outbox
from sender.database.errors import DatabaseError
from sender.http import bodies, reading
from sender.http.requests import json_response
from sender.tombstones import Fault
from sender.webhooks import deliveries
from shared.agreement import ALL, show
from shared.cursors import Cursor
from shared.process.exposition import expose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection
    from starlette.requests import Request

    from sender.database.protocol import Database
    from sender.publishing.relay import Relay
    from shared.agreement import Agreement
    from shared.process.exposition import Exposition

METRICS_SECONDS = 1.0  # for the database to answer
MEMORY_SECONDS = 0.5  # for Redis to answer
READY_SECONDS = 2.0  # for the database to answer


class DeadLettersQuery(msgspec.Struct, forbid_unknown_fields=True):
    before: bodies.Position | None = None
    limit: bodies.Limit = history.DEFAULT_LIMIT


class Operations:
    def __init__(
        self,
        database: Database,
        relay: Relay,
        clock: Callable[[], datetime],
        agreements: Sequence[Agreement],
        *,
        webhooks: bool = False,
    ) -> None:
        self._agreements = agreements
        self._webhooks = webhooks
        self._database = database
        self._relay = relay
        self._clock = clock

    async def dead_letters(self, request: Request) -> Response:
        query = reading.parse_query(request, DeadLettersQuery)
        found = await self._database.read(partial(dead_letters.find, before=query.before, limit=query.limit))
        return json_response(
            bodies.DeadLettersBody([_dead_letter(one) for one in found.dead_letters], found.before)
        )

    async def livez(self, request: Request) -> Response:
        return json_response({"live": True})

    async def readyz(self, request: Request) -> Response:
        """Redis is reported but does not count: orders must be completed while it is away."""
        fault = await self._database_fault()
        contested = self._relay.contested
        ready = fault is None and self._relay.alive and not contested
        redis = {True: "ok", False: "away", None: "unknown"}[self._relay.redis_up]
        if contested:
            redis = "another installation uses the same database number and prefix"
        parts = {"database": _word(fault is None), "relay": _word(self._relay.alive), "redis": redis}
        reasons = {"reasons": {"database": fault}} if fault is not None else {}
        return Response(
            msgspec.json.encode({"ready": ready, **parts, **reasons}),
            200 if ready else 503,
            media_type="application/json",
        )

    async def metrics(self, request: Request) -> Response:
        found = await self.exposition(request.headers.get("accept", ""))
        return Response(found.text, media_type=found.media_type)

    async def exposition(self, accept: str) -> Exposition:
        """Answers even while the database is away, when metrics are needed most."""
        try:
            async with asyncio.timeout(METRICS_SECONDS):
                backlog, kept, webhooks = await self._database.read(
                    partial(_counts, floor=self._relay.floor.now, webhooks=self._webhooks)
                )
        except (DatabaseError, TimeoutError):
            metrics.database_up.set(0)
        else:
            # Reading is not enough: a file that was moved away, or a standby, can still be read.
            metrics.database_up.set(await self._database_fault(METRICS_SECONDS) is None)
            metrics.note_backlog(backlog, now=self._clock())
            metrics.dead_letters_kept.set(kept)
            metrics.webhooks_waiting.set(webhooks)
        metrics.note_pool(self._database.pool)
        show(metrics.settings_differ, ALL, *self._agreements)
        if self._relay.redis_up:
            await self._note_memory()
        return expose(metrics.registry, accept)

    async def _note_memory(self) -> None:
        """If Redis does not say it in time, the figures are the previous ones."""
        try:
            async with asyncio.timeout(MEMORY_SECONDS):
                memory = await self._relay.log.used_memory()
        except (RedisError, OSError, TimeoutError):
            return
        if memory is not None:
            metrics.redis_memory.set(memory.used)
            metrics.redis_memory_limit.set(memory.limit)

    async def _database_fault(self, seconds: float = READY_SECONDS) -> str | None:
        """Why requests would fail now; None if they would not."""
        try:
            async with asyncio.timeout(seconds):
                await self._database.check()
        except DatabaseError as error:
            return str(error)
        except TimeoutError:
            return f"the database does not answer within {seconds:g} s"
        return None


def _counts(
    connection: Connection, *, floor: outbox.Floor, webhooks: bool
) -> tuple[outbox.Backlog, int, int]:
    waiting = deliveries.count(connection) if webhooks else 0
    return outbox.backlog(connection, floor=floor), dead_letters.count(connection), waiting


def _word(good: bool) -> str:
    return "ok" if good else "failed"


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
