"""A whole sender in the test's process: real database, real Redis, real app; only the socket is spared."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine

import sender
from sender import metrics
from sender.database.open import open_database
from sender.http.api import Api
from sender.http.api_keys import ApiKeys
from sender.http.app import create_app
from sender.http.pages import OfficePage
from sender.publishing.forgetting import Forgetting
from sender.publishing.forgetting import Pace as ForgettingPace
from sender.publishing.pace import USUAL, Pace
from sender.publishing.relay import Relay
from sender.seen import SeenNotifier
from shared.redis.channel_log import LogWriter
from shared.redis.connect import AnyPipelines, connect, pipelines_to
from shared.redis.inquiries import Inquirer
from shared.redis.keys import Names
from shared.redis.signatures import NO_SIGNATURES, Signatures
from tests import sqlite_databases
from tests.counted import Counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from redis.asyncio import Redis

    from sender.database.protocol import Database
    from sender.webhooks.parts import Webhooks

API_KEY = "a-key-for-tests-only"
PAGE = Path(sender.__file__).parent / "http" / "page"

# For tests of what is refused or read before any database is asked.
one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
# For tests of code, and of SQL, that is the same for both, or that others here run on PostgreSQL.
postgres_is_long = pytest.mark.parametrize(
    "database_url",
    ["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.long])],
    indirect=True,
)


@dataclass
class Clock:
    """Time that only tests move."""

    now: datetime = field(default_factory=lambda: datetime(2026, 11, 23, 14, 25, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **duration: float) -> None:
        self.now += timedelta(**duration)


@dataclass
class RunningSender:
    client: httpx2.AsyncClient
    database: Database
    relay: Relay
    counted: Counted
    clock: Clock
    redis: Redis
    pipelines: AnyPipelines
    names: Names
    api: Api

    async def place(self, order_id: str, customer_id: str = "alice", **data: object) -> httpx2.Response:
        body = {"order_id": order_id, "customer_id": customer_id, "data": data}
        return await self.client.post("/orders", json=body)

    async def complete(self, order_id: str, **arguments: Any) -> httpx2.Response:
        return await self.client.post(f"/orders/{order_id}/complete", **arguments)


@asynccontextmanager
async def run_sender(
    database_url: str,
    redis_url: str,
    key_prefix: str,
    *,
    relaying: bool = True,
    pace: Pace = USUAL,
    signatures: Signatures = NO_SIGNATURES,
    api_keys: Sequence[SecretStr] = (SecretStr(API_KEY),),
    clock: Clock | None = None,
    writer: type[LogWriter] = LogWriter,
    webhook: Callable[[Database, Clock], Webhooks] | None = None,
) -> AsyncIterator[RunningSender]:
    """Without `relaying` events stay in the outbox."""
    sqlite_databases.prepare(database_url)
    clock, names = clock or Clock(), Names.of(redis_url, key_prefix)
    counted = Counted(metrics.registry)
    async with (
        open_database(database_url) as database,
        connect(redis_url, retries=0) as redis,
        pipelines_to(redis) as pipelines,
    ):
        log = writer(pipelines, names, signatures)
        relay, notifier = Relay(database, log, clock, pace), SeenNotifier(log)
        forgetting = Forgetting(log, ForgettingPace(again_seconds=0.3, retry_seconds=0.05))
        inquirer = Inquirer(pipelines, names, signatures)
        webhooks = webhook(database, clock) if webhook is not None else None
        reports = webhooks.reports if webhooks is not None else None
        api = Api(database, relay, notifier, clock, forgetting, inquirer, webhooks=reports)
        app = create_app(
            api,
            OfficePage(PAGE, SecretStr(API_KEY)),
            ApiKeys(api_keys),
        )
        transport = httpx2.ASGITransport(app)
        headers = {"Authorization": f"Bearer {API_KEY}"}
        client = httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)
        async with client, asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(part.run()) for part in (notifier, forgetting, api.board)]
            if webhooks is not None:
                running += [tasks.create_task(part.run()) for part in webhooks.running]
            if relaying:
                running.append(tasks.create_task(relay.run()))
            yield RunningSender(
                client, database, relay, counted, clock, cast("Redis", redis), pipelines, names, api
            )
            for task in running:
                task.cancel()


@contextmanager
def counted_transactions() -> Iterator[list[Connection]]:
    """The transactions that begin meanwhile, in any database."""
    begun: list[Connection] = []

    def note(connection: Connection) -> None:
        begun.append(connection)

    event.listen(Engine, "begin", note)
    try:
        yield begun
    finally:
        event.remove(Engine, "begin", note)
