"""Customers: what they have seen, and erasing them."""

from __future__ import annotations

import random
import time
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import structlog

from sender import erasure, metrics, seen
from sender.http import bodies, reading
from sender.http.paths import name_in_path
from sender.http.requests import json_response, write_once
from sender.idempotency import Answer
from shared.channels import customer_channel, is_name
from shared.extents import Seen, parse_seen
from shared.problems import Problem
from shared.process.caller import go_on_without_caller

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from sqlalchemy import Connection
    from starlette.requests import Request
    from starlette.responses import Response

    from sender.database.protocol import Database
    from sender.publishing.forgetting import Forgetting
    from sender.seen import SeenNotifier
    from sender.webhooks.deliveries import Reports

ANSWERS_AT_ONCE = 500  # deleted in one transaction
SAMPLE_SECONDS = 1.0

logger = structlog.get_logger(__name__)


class Customers:
    def __init__(
        self,
        database: Database,
        notifier: SeenNotifier,
        forgetting: Forgetting,
        clock: Callable[[], datetime],
        webhooks: Reports | None = None,
    ) -> None:
        self._webhooks = webhooks
        self._sample_at = 0.0
        self._database = database
        self._notifier = notifier
        self._forgetting = forgetting
        self._clock = clock

    async def move_seen(self, request: Request) -> Response:
        body = await reading.read_json(request, reading.MAX_CURSORS_BYTES)
        given = body.to(bodies.SeenRequest)
        reports = [parse_seen(text) for text in given.cursors]
        now_seen: list[Seen] = []
        new: tuple[str, str] | None = None
        sampled, now, webhooks = self._sample(reports), self._clock(), self._webhooks
        on_shown = partial(webhooks.shown, now=now) if webhooks is not None else None

        def work(connection: Connection) -> Answer:
            nonlocal now_seen, new
            new = seen.new_in(connection, sampled) if sampled is not None else None
            now_seen = seen.see(connection, reports, on_shown=on_shown)
            return Answer(200, msgspec.json.encode(bodies.SeenBody([str(one) for one in now_seen])))

        response = await write_once(self._database, request, body, work, now=now)
        if webhooks is not None:
            webhooks.wake()
        if new is not None and new[0]:
            recorded_at, text = new
            metrics.note_shown(recorded_at, text.encode(), now=self._clock())
        self._notifier.pass_on((one for one in now_seen if one.extent.last.seq), devices=True)
        return response

    def _sample(self, reports: Sequence[Seen]) -> Seen | None:
        """One report in a second, of those that may name something new."""
        now = time.monotonic()
        if not reports or now < self._sample_at:
            return None
        self._sample_at = now + SAMPLE_SECONDS
        return random.choice(reports)

    async def erase(self, request: Request) -> Response:
        customer_id = name_in_path(request, "customer_id")
        if customer_id is None or not is_name(customer_id):
            raise Problem(
                400, "invalid-customer", "a customer id has 1 to 128 characters and no control characters"
            )
        erased = await self._database.write(partial(erasure.erase, customer_id=customer_id))
        go_on_without_caller()
        answers = await self._delete_answers(customer_id)
        done = await self._forgetting.forget(customer_channel(customer_id))
        logger.info("a customer was erased", orders=erased.orders, events=erased.events, redis=done)
        return json_response(bodies.ErasedCustomer(*erased, answers, "erased" if done else "pending"))

    async def _delete_answers(self, customer_id: str) -> int:
        """All kept answers are read, some at a time, which blocks no writer; each deletion is short."""
        count, after = 0, ""
        while True:
            looked = await self._database.read(
                partial(erasure.kept_answers, customer_id=customer_id, after=after)
            )
            for start in range(0, len(looked.naming), ANSWERS_AT_ONCE):
                some = looked.naming[start : start + ANSWERS_AT_ONCE]
                count += await self._database.write(partial(erasure.delete_answers, scopes=some))
            if looked.last is None:
                return count
            after = looked.last
