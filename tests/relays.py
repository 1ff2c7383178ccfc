"""A relay between a database and a Redis, observed from both sides."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import pytest

from sender import metrics, outbox, recording
from sender.database.errors import DatabaseUnavailable
from sender.database.open import open_database
from sender.generation import mint_installation
from sender.publishing.pace import Pace
from sender.publishing.relay import Relay
from sender.recording import arrival
from shared.cursors import Place
from shared.events import parse_event
from shared.redis.channel_log import LogWriter
from shared.redis.keys import Names
from shared.redis.server import REPLY_SECONDS
from shared.redis.wire import Pipelines
from tests import sqlite_databases
from tests.counted import Counted
from tests.senders import Clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis.asyncio import Redis
    from sqlalchemy import Connection

    from sender.database.protocol import Database
    from shared.channels import Channel

T = TypeVar("T")


class Bench:
    """A database, a Redis and as many relays between them as a test starts."""

    def __init__(self, database: Database, redis: Redis, pipelines: Pipelines, names: Names) -> None:
        self.database = database
        self.pipelines = pipelines
        self.names = names
        self.redis = redis
        self.counted = Counted(metrics.registry)
        self.clock = Clock()
        self.pace = Pace()  # of the relays made from now on
        self.writer: LogWriter | None = None  # likewise; usually one for each
        self._count = 0

    def relay(self, database: Database | None = None, pace: Pace | None = None) -> Relay:
        writer = self.writer or LogWriter(self.pipelines, self.names)
        return Relay(database or self.database, writer, self.clock, pace or self.pace)

    async def record(self, *channels: Channel) -> None:
        def work(connection: Connection) -> None:
            for channel in channels:
                self._count += 1
                event = {"specversion": "1.0", "id": str(self._count), "source": "/test", "type": "t"}
                draft = parse_event(event | {"channel": channel}, now=self.clock())
                recording.record_once(connection, [arrival(draft, content="")], now=self.clock())

        await self.database.write(work)

    async def relay_once(self) -> None:
        """One relay's life: until it finds nothing more to do."""
        relay = self.relay()
        relay.stop()
        await relay.run()

    async def waiting(self) -> int:
        return (await self.database.read(outbox.backlog)).size

    async def logged(self, channel: Channel) -> list[int]:
        """Seqs in the channel's log; head and texts must agree with them."""
        async with self.redis.pipeline(transaction=True) as both:
            both.xrange(self.names.log(channel))
            both.hmget(self.names.head(channel), ["epoch", "seq"])
            entries, head = await both.execute()
        events = [json.loads(fields[b"e"]) for _, fields in entries]
        places = [Place(event["epoch"], event["seq"]) for event in events]
        assert {event["channel"] for event in events} <= {channel}
        assert [id for id, _ in entries] == [f"{place.seq}-0".encode() for place in places]
        assert head == ([str(number).encode() for number in places[-1]] if places else [None, None])
        return [place.seq for place in places]

    async def head(self, channel: Channel) -> Place | None:
        epoch, seq = await self.redis.hmget(self.names.head(channel), ["epoch", "seq"])
        return Place(int(epoch), int(seq)) if epoch and seq else None

    async def forget(self, *channels: Channel) -> None:
        """Make Redis lose these channels."""
        for channel in channels:
            await self.redis.delete(self.names.log(channel), self.names.head(channel))

    def count(self, answer: str) -> float:
        return self.counted("orderbell_relay_published_total", answer=answer)


@asynccontextmanager
async def open_bench(
    database_url: str, redis: Redis, key_prefix: str, *, reply_seconds: float = REPLY_SECONDS
) -> AsyncIterator[Bench]:
    sqlite_databases.prepare(database_url)
    async with (
        open_database(database_url) as database,
        Pipelines(redis, reply_seconds=reply_seconds) as pipelines,
    ):
        await database.write(mint_installation)
        yield Bench(database, redis, pipelines, Names(key_prefix))


@asynccontextmanager
async def running(relay: Relay) -> AsyncIterator[Relay]:
    task = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def nothing_waits(bench: Bench) -> bool:
    return await bench.waiting() == 0


async def seqs_are(bench: Bench, channel: Channel, seqs: list[int]) -> bool:
    return await bench.logged(channel) == seqs


class MarkFails:
    """A relay's database that fails between publishing and noting it, as after kill -9."""

    def __init__(self, database: Database) -> None:
        self.read = database.read

    async def write(self, work: Callable[[Connection], T]) -> T:
        raise DatabaseUnavailable("killed")
