"""Events that can't be published: those with a fault, and those that only Redis refuses."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text as sql

from sender import dead_letters
from sender.database.sqlite import SqliteDatabase
from sender.publishing.pace import Pace
from shared.channels import Channel
from shared.cursors import Cursor
from shared.redis.channel_log import PUBLISH, LogWriter
from shared.redis.scripts import Script
from shared.redis.server import connect_server
from tests.claims import claim
from tests.relays import Bench, MarkFails, nothing_waits, open_bench, running, seqs_are
from tests.senders import postgres_is_long
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from shared.commands.embedded import EmbeddedServer
    from shared.redis.wire import Command

pytestmark = pytest.mark.anyio

ALICE = Channel("customer:alice")
BOB = Channel("customer:bob")
CAROL = Channel("customer:carol")


async def spoil(bench: Bench, channel: Channel, seq: int, text: str = "CAST(x'7bff7d' AS TEXT)") -> None:
    """Change a text past the API, as a repair by hand may do; `text` is SQL."""
    where = {"channel": channel, "seq": seq}
    statement = sql(f"UPDATE events SET text = {text} WHERE channel = :channel AND seq = :seq")
    await bench.database.write(lambda connection: connection.execute(statement, where))


async def types(bench: Bench, channel: Channel) -> list[str]:
    entries: list[Any] = await bench.redis.xrange(bench.names.log(channel))  # type: ignore[assignment]
    return [json.loads(fields[b"e"])["type"] for _, fields in entries]


async def given_up(bench: Bench) -> list[tuple[str, str]]:
    found = await bench.database.read(partial(dead_letters.find, before=None, limit=100))
    return [(str(Cursor(dead.row.channel, dead.row.place)), dead.reason) for dead in found.dead_letters]


@pytest.mark.parametrize("text", ["'lunch'", "'[1]'", "'{}'", "'{\"x\":\"' || REPEAT || '\"}'"])
async def test_event_with_a_fault_becomes_a_tombstone_and_what_follows_is_published(
    bench: Bench, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    large = "replace(hex(zeroblob(1000000)), '0', 'x')" if is_sqlite(bench) else "repeat('x', 2000000)"
    await bench.record(ALICE, BOB, ALICE, ALICE)
    await spoil(bench, ALICE, 2, text.replace("REPEAT", large))
    await bench.relay_once()
    assert await bench.logged(ALICE) == [1, 2, 3]
    assert await types(bench, ALICE) == ["t", "orderbell.tombstone", "t"]
    assert await bench.logged(BOB) == [1]
    assert await bench.waiting() == 0
    reason = "too-large" if "REPEAT" in text else "not-an-event"
    assert await given_up(bench) == [("customer:alice=1.2", reason)]
    assert bench.counted("orderbell_dead_letters_total", reason=reason) == 1


def is_sqlite(bench: Bench) -> bool:
    return isinstance(bench.database, SqliteDatabase)


async def test_text_that_is_not_utf_8_blocks_nothing(sqlite_bench: Bench) -> None:
    """Python's driver fails on it, and so does everything that is read together with it."""
    await sqlite_bench.record(ALICE, BOB, ALICE)
    await spoil(sqlite_bench, ALICE, 1)
    await sqlite_bench.relay_once()
    assert await sqlite_bench.logged(ALICE) == [1, 2]
    assert await sqlite_bench.logged(BOB) == [1]
    assert await given_up(sqlite_bench) == [("customer:alice=1.1", "not-an-event")]


async def test_event_with_a_fault_is_given_up_while_redis_is_away(
    tmp_path: Path, redis_server: EmbeddedServer, key_prefix: str
) -> None:
    redis_server.kill()
    async with (
        connect_server(redis_server.url, retries=0) as redis,
        open_bench(f"sqlite:///{tmp_path / 'orderbell.db'}", redis, key_prefix) as bench,
    ):
        await bench.record(ALICE)
        await spoil(bench, ALICE, 1)
        await bench.relay_once()
        assert await given_up(bench) == [("customer:alice=1.1", "not-an-event")]
        assert await bench.waiting() == 1


async def test_events_of_other_channels_go_on_where_no_dead_letter_can_be_written(
    sqlite_bench: Bench,
) -> None:
    await sqlite_bench.record(ALICE, BOB, ALICE, BOB)
    await spoil(sqlite_bench, ALICE, 2)
    relay = sqlite_bench.relay(MarkFails(sqlite_bench.database))  # type: ignore[arg-type]
    relay.stop()
    await relay.run()
    assert await sqlite_bench.logged(BOB) == [1, 2]
    assert await sqlite_bench.logged(ALICE) == [1]


class Refusing(LogWriter):
    """The publish script refuses half-way if a Lua condition holds."""

    refusal = ""

    async def _run(self, script: Script, calls: Sequence[Command]) -> list[Any]:
        if script is PUBLISH and self.refusal:
            before = "redis.call('XADD'"
            script = Script(script.text.replace(before, f"{self.refusal} {before}"))
        return await super()._run(script, calls)


def refuse(bench: Bench, condition: str, error: str) -> Refusing:
    """Refuse, in the relays made from now on."""
    bench.writer = writer = Refusing(bench.pipelines, bench.names)
    writer.refusal = f"if {condition} then return redis.error_reply('{error}') end"
    return writer


IN_HASTE = Pace(first_backoff_seconds=0.02, max_backoff_seconds=0.02)
POISON = """string.find(ARGV[i + 1], '"id":"5"', 1, true) and not string.find(ARGV[i + 1], 'tombstone')"""


@postgres_is_long
async def test_event_that_only_redis_refuses_is_given_up_after_some_attempts_alone(
    bench: Bench,
) -> None:
    refuse(bench, POISON, "ERR this one never")
    await bench.record(*[ALICE, BOB] * 5, CAROL)  # the fifth is Alice's third
    async with running(bench.relay(pace=IN_HASTE)):
        with claim("one refused event holds up no other"):
            await await_until(lambda: nothing_waits(bench))
    assert await types(bench, ALICE) == ["t", "t", "orderbell.tombstone", "t", "t"]
    assert await bench.logged(BOB) == [1, 2, 3, 4, 5]
    assert await bench.logged(CAROL) == [1]
    assert await given_up(bench) == [("customer:alice=1.3", "refused")]


async def test_other_channels_are_published_while_a_refused_event_waits_for_its_next_attempt(
    sqlite_bench: Bench,
) -> None:
    refuse(sqlite_bench, POISON, "ERR this one never")
    await sqlite_bench.record(*[ALICE] * 20)
    # Fewer at a time than wait behind it.
    pace = Pace(batch=4, first_backoff_seconds=60, max_backoff_seconds=60)
    async with running(sqlite_bench.relay(pace=pace)) as relay:
        await await_until(lambda: seqs_are(sqlite_bench, ALICE, [1, 2, 3, 4]))
        for count in range(1, 4):
            await sqlite_bench.record(BOB)
            relay.wake()
            await await_until(lambda count=count: has_logged(sqlite_bench, BOB, count))  # type: ignore[misc]
        assert await given_up(sqlite_bench) == []


async def has_logged(bench: Bench, channel: Channel, count: int) -> bool:
    return len(await bench.logged(channel)) == count


@postgres_is_long
async def test_refusal_that_ends_costs_nothing(
    bench: Bench,
) -> None:
    writer = refuse(bench, POISON, "ERR not now")
    await bench.record(*[ALICE, BOB] * 5)
    async with running(bench.relay(pace=IN_HASTE)):
        await await_until(lambda: seqs_are(bench, ALICE, [1, 2]))
        writer.refusal = ""
        await await_until(lambda: nothing_waits(bench))
    assert await types(bench, ALICE) == ["t"] * 5
    assert await given_up(bench) == []


STATES = [
    "OOM command not allowed when used memory > maxmemory.",
    "MISCONF Redis is configured to save RDB snapshots, but it is currently not able to persist on disk.",
    "READONLY You can not write against a read only replica.",
    "LOADING Redis is loading the dataset in memory",
    "BUSY Redis is busy running a script.",
    "NOSCRIPT No matching script.",
    "NOPERM this user has no permissions",
    "NOAUTH Authentication required.",
    "CLUSTERDOWN The cluster is down",
    "MOVED 3999 127.0.0.1:6381",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "MASTERDOWN Link with MASTER is down",
    "NOREPLICAS Not enough good replicas to write.",
    "UNHEARDOF of",
    "ERR Error running script (call to f_a): @user_script:18: @user_script: 18: -OOM command not allowed",
]


@pytest.mark.parametrize("error", STATES)
async def test_state_of_the_server_makes_no_dead_letter(sqlite_bench: Bench, error: str) -> None:
    """Not even if the error comes for a single event."""
    refuse(sqlite_bench, POISON, error)
    await sqlite_bench.record(*[ALICE, BOB] * 5)
    async with running(sqlite_bench.relay(pace=IN_HASTE)) as relay:
        await await_until(lambda: relay._failures > 2 * IN_HASTE.attempts)
    assert await given_up(sqlite_bench) == []


async def test_redis_that_refuses_everything_makes_no_dead_letter(
    sqlite_bench: Bench,
) -> None:
    """Whatever the error: no event is to blame."""
    refuse(sqlite_bench, "true", "ERR unknown command")
    await sqlite_bench.record(*[ALICE, BOB] * 5)
    async with running(sqlite_bench.relay(pace=IN_HASTE)) as relay:
        with claim("a Redis that refuses everything is waited for"):
            await await_until(lambda: relay._failures > 2 * IN_HASTE.attempts)
    assert await given_up(sqlite_bench) == []


@pytest.mark.parametrize("key", ["log", "head"])
@postgres_is_long
async def test_key_that_somebody_else_wrote_is_forgotten_and_no_event_blamed(bench: Bench, key: str) -> None:
    await bench.record(ALICE, BOB)
    await bench.relay_once()
    await bench.redis.set(getattr(bench.names, key)(ALICE), "somebody else's")
    await bench.record(ALICE, BOB, ALICE)
    async with running(bench.relay(pace=IN_HASTE)):
        await await_until(lambda: nothing_waits(bench))
    assert await bench.logged(ALICE) == [2, 3]
    assert await bench.logged(BOB) == [1, 2]
    assert await given_up(bench) == []


async def test_newest_that_somebody_else_wrote_holds_up_nothing_and_is_noted_anew(
    sqlite_bench: Bench,
) -> None:
    await sqlite_bench.record(ALICE)
    await sqlite_bench.redis.set(sqlite_bench.names.newest(), "text")
    await sqlite_bench.relay_once()
    assert await sqlite_bench.logged(ALICE) == [1]
    position = await sqlite_bench.redis.hget(sqlite_bench.names.newest(), "position")
    assert position == b"1"
