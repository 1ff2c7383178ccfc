from __future__ import annotations

import asyncio
import math
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, event, func, select, update
from structlog.testing import capture_logs

from sender import outbox
from sender.database.sqlite_connect import driver_of
from sender.database.tables import events, idempotency, metadata
from sender.portions import Limits
from sender.retention import Pace, Retention, newest_time_before
from shared.times import format_time
from tests.large_databases import fill_sqlite
from tests.senders import postgres_is_long, run_sender
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.senders import RunningSender

pytestmark = pytest.mark.anyio

USUAL = Pace(doubt_seconds=0)
FAST = Limits(least=5_000, most=5_000, rest=0, short_rest=0, rate=math.inf)


async def complete_new(sender: RunningSender, *order_ids: str) -> None:
    """Alice's orders, and one of Bob's: the newest event of all is never pruned."""
    for order_id in order_ids:
        await sender.place(order_id)
        await sender.complete(order_id)
    await sender.place(f"bobs-{order_ids[-1]}", "bob")
    await sender.complete(f"bobs-{order_ids[-1]}")
    await await_until(lambda: outbox_is_empty(sender))


async def outbox_is_empty(sender: RunningSender) -> bool:
    return (await sender.database.read(outbox.backlog)).size == 0


def retention_of(sender: RunningSender, pace: Pace = USUAL) -> Retention:
    return Retention(sender.database, sender.clock, history_days=7, pace=pace)


async def test_old_events_are_gone_and_so_are_cursors_before_them(
    sender: RunningSender,
) -> None:
    await complete_new(sender, "1", "2")
    sender.clock.advance(days=6)
    await complete_new(sender, "3")
    await retention_of(sender).sweep()
    assert (await sender.client.get("/channels/customer:alice/events")).json()[
        "cursor"
    ] == "customer:alice=1.3"
    sender.clock.advance(days=1, seconds=1)
    await retention_of(sender).sweep()
    gone = await sender.client.get("/channels/customer:alice/events?after=customer:alice=1.1")
    assert (gone.status_code, gone.json()["as_of"]) == (410, "customer:alice=1.3")
    kept = await sender.client.get("/channels/customer:alice/events?after=customer:alice=1.2")
    assert [event["seq"] for event in kept.json()["events"]] == [3]
    assert sender.counted("orderbell_events_pruned_total") == 3


@postgres_is_long
async def test_channel_goes_on_counting_when_all_of_it_is_gone(sender: RunningSender) -> None:
    await complete_new(sender, "1", "2")
    sender.clock.advance(days=8)
    await retention_of(sender).sweep()
    await complete_new(sender, "3")
    answer = (await sender.client.get("/channels/customer:alice/events")).json()
    assert [event["seq"] for event in answer["events"]] == [3]


@postgres_is_long
async def test_completed_order_outlives_its_event(sender: RunningSender) -> None:
    await complete_new(sender, "1")
    sender.clock.advance(days=8)
    await retention_of(sender).sweep()
    again = await sender.complete("1")
    assert again.status_code == 200
    assert again.json()["order"]["status"] == "completed"
    assert again.json()["event"] is None


async def test_what_is_not_published_is_never_pruned(
    database_url: str, redis_url: str, key_prefix: str
) -> None:
    async with run_sender(database_url, redis_url, key_prefix, relaying=False) as sender:
        await sender.place("1")
        await sender.complete("1")
        sender.clock.advance(days=400)
        await retention_of(sender).sweep()
        answer = (await sender.client.get("/channels/customer:alice/events")).json()
        assert [event["seq"] for event in answer["events"]] == [1]


async def test_large_backlogs_are_pruned_in_small_transactions(sender: RunningSender) -> None:
    await complete_new(sender, *(str(number) for number in range(7)))
    sender.clock.advance(days=8)
    await retention_of(sender, Pace(portions=Limits(most=2), doubt_seconds=0)).sweep()
    assert (await sender.client.get("/channels/customer:alice/events")).json()["events"] == []


async def stamp(sender: RunningSender, moment: datetime, channel: str = "customer:alice") -> None:
    """Stamp it as a sender with a wrong clock would."""
    statement = update(events).where(events.c.channel == channel).values(recorded_at=format_time(moment))
    await sender.database.write(lambda connection: connection.execute(statement))


async def kept(sender: RunningSender) -> int:
    statement = select(func.count()).select_from(events)
    return int(await sender.database.read(lambda connection: connection.execute(statement).scalar_one()))


async def test_rows_from_the_future_in_front_hold_up_nothing_behind_them(sender: RunningSender) -> None:
    """A clock was 400 days ahead for a while; there are more such rows than fit into one window."""
    await complete_new(sender, *(str(number) for number in range(8)))
    await stamp(sender, sender.clock() + timedelta(days=400))
    for number in range(4):
        await sender.place(f"carol-{number}", "carol")
        await sender.complete(f"carol-{number}")
    await complete_new(sender, "last")
    await await_until(lambda: outbox_is_empty(sender))
    before = await kept(sender)
    sender.clock.advance(days=8)
    await retention_of(sender, Pace(window=3, doubt_seconds=0)).sweep()
    assert before == 15
    # Alice's last event is old, so those before it go with it; the newest of all stays.
    assert await kept(sender) == 1


@postgres_is_long
async def test_rows_of_a_clock_that_was_behind_are_as_young_as_those_before_them(
    sender: RunningSender,
) -> None:
    """A machine that starts in 1970 until its clock is set must not lose what it has just recorded."""
    await complete_new(sender, "1", "2", "3")
    sender.clock.advance(days=8)
    await complete_new(sender, "4", "5", "6", "7")
    right = sender.clock()
    sender.clock.advance(days=-20_000)
    await complete_new(sender, "8", "9")
    sender.clock.advance(days=(right - sender.clock()).total_seconds() / 86_400)
    await retention_of(sender).sweep()
    events = (await sender.client.get("/channels/customer:alice/events")).json()["events"]
    assert [event["data"]["order_id"] for event in events] == [*"456789"]


@postgres_is_long
async def test_rows_of_a_clock_that_was_some_days_ahead_do_not_hold_up_those_behind_them(
    sender: RunningSender,
) -> None:
    await complete_new(sender, "1")
    await stamp(sender, sender.clock() + timedelta(days=3))
    await complete_new(sender, "2", "3", "4", "5")
    sender.clock.advance(days=8)
    await complete_new(sender, "6")
    await retention_of(sender).sweep()
    events = (await sender.client.get("/channels/customer:alice/events")).json()["events"]
    assert [event["data"]["order_id"] for event in events] == ["6"]


async def test_row_from_the_future_that_nothing_follows_stays(sender: RunningSender) -> None:
    await complete_new(sender, "1", "2")
    await stamp(sender, sender.clock() + timedelta(days=400))
    sender.clock.advance(days=8)
    await retention_of(sender).sweep()
    answer = (await sender.client.get("/channels/customer:alice/events")).json()
    assert [event["seq"] for event in answer["events"]] == [1, 2]


@postgres_is_long
async def test_clock_that_jumps_a_week_ahead_deletes_nothing_and_is_reported(sender: RunningSender) -> None:
    await complete_new(sender, "1", "2")
    retention = retention_of(sender, Pace())
    await retention.sweep()
    sender.clock.advance(days=8)
    with capture_logs() as logs:
        await retention.sweep()
        await retention.sweep()
    assert [log["event"] for log in logs if log["log_level"] == "error"] == [
        "the clock is far ahead of the newest event: nothing is deleted for now; check the clock"
    ]
    assert await kept(sender) == 3
    sender.clock.advance(days=-8)
    await retention.sweep()
    assert await kept(sender) == 3


@postgres_is_long
async def test_clock_that_jumps_ahead_in_a_busy_shop_deletes_nothing_either(sender: RunningSender) -> None:
    """Orders that are completed by the wrong clock look as if it were right."""
    await complete_new(sender, "1", "2")
    retention = retention_of(sender, Pace())
    await retention.sweep()
    sender.clock.advance(days=8)
    await complete_new(sender, "3")
    with capture_logs() as logs:
        await retention.sweep()
        await retention.sweep()
    assert [log["event"] for log in logs if log["log_level"] == "error"] == [
        "the clock is far ahead of the newest event: nothing is deleted for now; check the clock"
    ]
    assert await kept(sender) == 5
    sender.clock.advance(days=-8)
    await retention.sweep()
    assert await kept(sender) == 5


async def test_sender_that_starts_after_the_clock_has_jumped_deletes_nothing_either(
    sender: RunningSender,
) -> None:
    """The same clock has stamped the newest events."""
    await complete_new(sender, *(str(number) for number in range(9)))
    sender.clock.advance(days=8)
    await complete_new(sender, "after-1", "after-2", "after-3")
    restarted = retention_of(sender, Pace())
    with capture_logs() as logs:
        await restarted.sweep()
    assert [log["event"] for log in logs if log["log_level"] == "error"] == [
        "the clock is far ahead of the newest event: nothing is deleted for now; check the clock"
    ]
    assert await kept(sender) == 14
    sender.clock.advance(days=-8)
    await restarted.sweep()
    assert await kept(sender) == 14


async def test_sender_that_starts_in_a_busy_shop_trusts_its_clock(sender: RunningSender) -> None:
    await complete_new(sender, "1")
    sender.clock.advance(days=6)
    await complete_new(sender, "2")
    sender.clock.advance(hours=23)
    await complete_new(sender, "3")
    sender.clock.advance(hours=2)
    await complete_new(sender, "4")
    await retention_of(sender, Pace()).sweep()
    assert await kept(sender) == 6  # the first two are gone


def test_times_before_a_moment_are_found_without_reading_all_events(tmp_path: Path) -> None:
    """On SQLite, one query for both the first and the last position would."""
    plans: list[str] = []
    engine = create_engine(f"sqlite:///{tmp_path}/orderbell.db")
    with engine.begin() as connection:
        metadata.create_all(connection)

        def note_plan(_: object, __: object, statement: str, given: Sequence[object], *___: object) -> None:
            rows = driver_of(connection).execute(f"EXPLAIN QUERY PLAN {statement}", given)
            plans.extend(row[-1] for row in rows.fetchall())

        event.listen(engine, "before_cursor_execute", note_plan)
        newest_time_before(connection, datetime(2026, 11, 30, tzinfo=UTC))
    engine.dispose()
    assert any(plan.startswith("SEARCH events") for plan in plans)
    assert not [plan for plan in plans if plan.startswith("SCAN events")]


@postgres_is_long
async def test_idle_shops_history_goes_when_the_doubt_is_over(sender: RunningSender) -> None:
    await complete_new(sender, "1", "2")
    sender.clock.advance(days=8)
    retention = retention_of(sender, Pace(doubt_seconds=0.2))
    await retention.sweep()
    assert await kept(sender) == 3
    await asyncio.sleep(0.25)
    await retention.sweep()
    assert await kept(sender) == 1


async def test_sweep_goes_on_where_young_rows_began(sender: RunningSender) -> None:
    await complete_new(sender, "1", "2", "3", "4")
    sender.clock.advance(days=6)
    await complete_new(sender, "5")
    sender.clock.advance(days=2)
    retention = retention_of(sender, Pace(window=2, doubt_seconds=0))
    await retention.sweep()
    began = retention._events.began_after
    assert began > 0
    sender.clock.advance(days=6)
    await retention.sweep()
    assert await kept(sender) == 1
    assert retention._events.began_after >= began


@postgres_is_long
async def test_sweeps_are_repeated(sender: RunningSender) -> None:
    running = asyncio.create_task(retention_of(sender, Pace(every_seconds=0.01, doubt_seconds=0)).run())
    await complete_new(sender, "1")
    sender.clock.advance(days=8)
    await await_until(lambda: sender.counted("orderbell_events_pruned_total"))
    running.cancel()


@postgres_is_long
async def test_orders_stay_unless_a_setting_says_for_how_long(sender: RunningSender) -> None:
    await complete_new(sender, "1")
    await sender.place("open")
    sender.clock.advance(days=400)
    await retention_of(sender).sweep()
    assert await order_ids(sender) == ["open", "bobs-1", "1"]
    await complete_new(sender, "2")
    sender.clock.advance(days=9)
    await complete_new(sender, "3")
    await pruning_orders(sender, days=10).sweep()
    assert await order_ids(sender) == ["bobs-3", "3", "bobs-2", "2", "open"]
    await pruning_orders(sender, days=8).sweep()
    assert await order_ids(sender) == ["bobs-3", "3", "open"]
    assert sender.counted("orderbell_orders_pruned_total") == 4


async def test_orders_are_found_behind_open_ones_and_behind_those_from_the_future(
    sender: RunningSender,
) -> None:
    for number in range(7):
        await sender.place(f"open-{number}")
    sender.clock.advance(days=400)
    await complete_new(sender, "future-1", "future-2", "future-3")
    sender.clock.advance(days=-400)
    await complete_new(sender, "old")
    sender.clock.advance(days=20)
    await complete_new(sender, "young")
    await pruning_orders(sender, days=10, window=2).sweep()
    assert await order_ids(sender) == [
        "bobs-young",
        "young",
        "bobs-future-3",
        "future-3",
        "future-2",
        "future-1",
        *(f"open-{number}" for number in reversed(range(7))),
    ]


@postgres_is_long
async def test_pruned_order_is_unknown_and_its_event_stays_in_the_history(sender: RunningSender) -> None:
    await complete_new(sender, "1")
    sender.clock.advance(days=2)
    await complete_new(sender, "2")
    await pruning_orders(sender, days=1).sweep()
    assert (await sender.complete("1")).status_code == 404
    answer = (await sender.client.get("/channels/customer:alice/events")).json()
    assert [event["seq"] for event in answer["events"]] == [1, 2]


async def test_key_stored_by_a_clock_that_was_ahead_goes_with_those_of_today(sender: RunningSender) -> None:
    sender.clock.advance(days=400)
    await sender.client.post("/orders", json=ORDER, headers={"Idempotency-Key": "k"})
    sender.clock.advance(days=-400)
    retention = retention_of(sender, Pace(portions=Limits(most=1), doubt_seconds=0))
    await retention.sweep()
    again = await sender.client.post("/orders", json=ORDER, headers={"Idempotency-Key": "k"})
    assert again.headers["Idempotency-Replayed"] == "true"
    sender.clock.advance(hours=49)
    await retention.sweep()
    count = select(func.count()).select_from(idempotency)
    assert await sender.database.read(lambda connection: connection.execute(count).scalar_one()) == 0


@postgres_is_long
async def test_doubt_about_the_clock_is_a_metric(sender: RunningSender) -> None:
    await complete_new(sender, "1")
    retention = retention_of(sender, Pace())
    await retention.sweep()
    assert sender.counted.value("orderbell_retention_doubts_clock") == 0
    sender.clock.advance(days=8)
    await retention.sweep()
    assert sender.counted.value("orderbell_retention_doubts_clock") == 1
    sender.clock.advance(days=-8)
    await retention.sweep()
    assert sender.counted.value("orderbell_retention_doubts_clock") == 0


ORDER = {"order_id": "1", "customer_id": "alice"}


def pruning_orders(sender: RunningSender, *, days: float, window: int = 500) -> Retention:
    return Retention(
        sender.database,
        sender.clock,
        history_days=1_000,
        orders_days=days,
        pace=Pace(window=window, doubt_seconds=0),
    )


async def order_ids(sender: RunningSender) -> list[str]:
    orders = (await sender.client.get("/orders")).json()["orders"]
    return [order["order_id"] for order in orders]


@pytest.mark.long
async def test_file_of_sqlite_shrinks_when_its_history_is_pruned(
    tmp_path: Path, redis_url: str, key_prefix: str
) -> None:
    path = tmp_path / "orderbell.db"
    async with run_sender(f"sqlite:///{path}", redis_url, key_prefix, relaying=False) as sender:
        fill_sqlite(path, channels=100, events=30_000, orders=False)
        full = pages(path)
        await retention_of(sender, Pace(window=5_000, portions=FAST, doubt_seconds=0)).sweep()
        assert await kept(sender) == 1
        left = pages(path)
    assert left < full / 3


async def test_file_that_earlier_versions_made_shrinks_too(
    tmp_path: Path, redis_url: str, key_prefix: str
) -> None:
    path = tmp_path / "orderbell.db"
    async with run_sender(f"sqlite:///{path}", redis_url, key_prefix, relaying=False):
        fill_sqlite(path, channels=10, events=100)
    with closing(sqlite3.connect(path)) as before:
        before.execute("PRAGMA auto_vacuum = 0")
        before.execute("VACUUM")
        assert before.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    async with run_sender(f"sqlite:///{path}", redis_url, key_prefix, relaying=False):
        with closing(sqlite3.connect(path)) as after:
            assert after.execute("PRAGMA auto_vacuum").fetchone() == (2,)
            assert after.execute("SELECT count(*) FROM events").fetchone() == (100,)
            assert after.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def pages(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA page_count").fetchone()[0])
