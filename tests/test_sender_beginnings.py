"""Channels are removed when nothing of them is left: no place is used twice, nothing is missed silently."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select, text, update

from sender import beginnings, outbox
from sender.beginnings import STEP
from sender.database.tables import alert_states, channels, generation
from sender.generation import begin_epoch
from sender.retention import Pace, Retention
from shared.channels import customer_channel
from tests.senders import postgres_is_long
from tests.waiting import await_until

if TYPE_CHECKING:
    from tests.senders import RunningSender

pytestmark = pytest.mark.anyio

ALICE = customer_channel("alice")
AT_ONCE = Pace(channels=2, doubt_seconds=0, channels_after_seconds=0, channels_again_seconds=0)


async def complete(sender: RunningSender, customer: str, *order_ids: str) -> list[Any]:
    """Complete orders; returns their events once they are published."""
    made = []
    for order_id in order_ids:
        await sender.place(order_id, customer)
        made.append((await sender.complete(order_id)).json()["event"])
    await await_until(lambda: published(sender))
    return made


async def published(sender: RunningSender) -> bool:
    return (await sender.database.read(outbox.backlog)).size == 0


async def a_week_later(sender: RunningSender, pace: Pace = AT_ONCE) -> None:
    """The newest event of all is kept, so it must be another customer's."""
    sender.clock.advance(days=8)
    await complete(sender, "somebody", f"somebody-{sender.clock().isoformat()}")
    await Retention(sender.database, sender.clock, history_days=7, pace=pace).sweep()


async def names(sender: RunningSender) -> list[str]:
    found = select(channels.c.channel).order_by(channels.c.channel)
    return await sender.database.read(lambda connection: list(connection.execute(found).scalars()))


async def history(sender: RunningSender, after: str) -> dict[str, Any]:
    answer = await sender.client.post("/history", json={"after": [after]})
    [channel] = answer.json()["channels"]
    return channel  # type: ignore[no-any-return]


async def test_channel_without_events_is_removed_and_others_stay(sender: RunningSender) -> None:
    await complete(sender, "alice", "1", "2")
    await complete(sender, "bob", "3")
    await a_week_later(sender)
    assert await names(sender) == ["customer:somebody"]
    assert sender.counted("orderbell_channels_removed_total") == 2
    await complete(sender, "alice", "4")
    sender.clock.advance(days=1)
    await a_week_later(sender, Pace(doubt_seconds=0))
    assert await names(sender) == ["customer:alice", "customer:somebody"]


@postgres_is_long
async def test_every_old_cursor_of_a_removed_channel_gets_a_reset_and_all_new_events_after_it(
    sender: RunningSender,
) -> None:
    await complete(sender, "alice", "1", "2", "3")
    await a_week_later(sender)
    for old in range(4):
        gone = await sender.client.get(f"/channels/customer:alice/events?after=customer:alice=1.{old}")
        assert (gone.status_code, gone.json()["as_of"]) == (410, f"customer:alice=1.{STEP}")
    # More events than before, so each old seq would exist again.
    new = await complete(sender, "alice", *(f"new-{n}" for n in range(5)))
    assert [event["seq"] for event in new] == [STEP + 1 + n for n in range(5)]
    for old in range(4):
        reset = await history(sender, f"customer:alice=1.{old}")
        assert (reset["reset"], reset["events"], reset["as_of"]) == ("pruned", [], f"customer:alice=1.{STEP}")
        assert (await history(sender, reset["as_of"]))["events"] == new


@postgres_is_long
async def test_customer_who_never_had_an_event_begins_without_a_reset(sender: RunningSender) -> None:
    await complete(sender, "alice", "1")
    await a_week_later(sender)
    before = await history(sender, "customer:new")
    assert (before["as_of"], before["reset"]) == (f"customer:new=1.{STEP}", None)
    [event] = await complete(sender, "new", "2")
    for after in ("customer:new", before["as_of"]):
        answer = await history(sender, after)
        assert (answer["reset"], answer["events"]) == (None, [event])


@postgres_is_long
async def test_customer_who_is_connected_while_the_mark_moves_misses_nothing(sender: RunningSender) -> None:
    connected = (await history(sender, "customer:new"))["as_of"]
    await complete(sender, "alice", "1")
    await a_week_later(sender)
    [event] = await complete(sender, "new", "2")
    answer = await history(sender, connected)
    assert answer["reset"] == "pruned"
    assert (await history(sender, answer["as_of"]))["events"] == [event]


@postgres_is_long
async def test_mark_moves_once_for_all_that_began_behind_it(sender: RunningSender) -> None:
    for n in range(3):
        await complete(sender, "alice", f"a-{n}")
        await complete(sender, "bob", *(f"b-{n}-{m}" for m in range(n)))
        await a_week_later(sender)
    mark = select(generation.c.begin_after)
    # The second and third time, Alice's channel had begun after the mark.
    assert await sender.database.read(lambda connection: connection.execute(mark).scalar_one()) == 3 * STEP


@postgres_is_long
async def test_what_redis_still_knows_of_a_removed_channel_does_not_swallow_its_events(
    sender: RunningSender,
) -> None:
    await complete(sender, "alice", "1", "2")
    head = await sender.redis.hgetall(sender.names.head(ALICE))
    assert head == {b"epoch": b"1", b"seq": b"2"}
    await a_week_later(sender)
    await complete(sender, "alice", "3")
    head = await sender.redis.hgetall(sender.names.head(ALICE))
    assert head == {b"epoch": b"1", b"seq": b"%d" % (STEP + 1)}
    log = await sender.redis.xrange(sender.names.log(ALICE))
    assert [id for id, _ in log or ()] == [b"%d-0" % (STEP + 1)]


@postgres_is_long
async def test_channel_of_a_past_epoch_goes_when_its_events_are_gone(sender: RunningSender) -> None:
    await complete(sender, "alice", "1")
    await sender.database.write(partial(begin_epoch, after=1))
    await complete(sender, "somebody", "2")
    await Retention(sender.database, sender.clock, history_days=7, pace=AT_ONCE).sweep()
    assert "customer:alice" in await names(sender)  # its event is still there
    await a_week_later(sender)
    assert await names(sender) == ["customer:somebody"]
    assert (await history(sender, "customer:alice=1.1"))["reset"] == "epoch"


async def test_states_of_alerts_go_with_their_channel(sender: RunningSender) -> None:
    [event] = await complete(sender, "alice", "1")
    await sender.client.post("/retractions", json={"order_id": "1"})
    await a_week_later(sender)
    count = select(func.count()).select_from(alert_states)
    assert await names(sender) == ["customer:somebody"]
    assert await sender.database.read(lambda connection: connection.execute(count).scalar_one()) == 0
    assert event["seq"] == 1


async def test_erased_customers_row_stays_and_says_so(sender: RunningSender) -> None:
    await complete(sender, "alice", "1", "2")
    await sender.client.delete("/customers/alice")
    await complete(sender, "bob", "3")
    await a_week_later(sender)
    answer = await history(sender, "customer:alice")
    assert (answer["erased"], answer["as_of"]) == (True, f"customer:alice=1.{STEP}")
    [event] = await complete(sender, "alice", "4")
    assert event["seq"] == STEP + 1


@postgres_is_long
async def test_none_is_removed_in_the_first_hour_nor_again_on_the_same_day(sender: RunningSender) -> None:
    await complete(sender, "alice", "1")
    await a_week_later(sender, Pace(doubt_seconds=0))
    assert "customer:alice" in await names(sender)
    once = Pace(doubt_seconds=0, channels_after_seconds=0)
    retention = Retention(sender.database, sender.clock, history_days=7, pace=once)
    await retention.sweep()
    assert await names(sender) == ["customer:somebody"]
    await sender.database.write(
        lambda connection: connection.execute(
            text("INSERT INTO channels (channel, seq, pruned_seq) VALUES ('customer:x', 1, 1)")
        )
    )
    await retention.sweep()
    assert "customer:x" in await names(sender)


async def test_channel_whose_event_came_since_it_was_looked_at_stays(sender: RunningSender) -> None:
    await complete(sender, "alice", "1")
    await a_week_later(sender, Pace(doubt_seconds=0))
    looked = await sender.database.read(partial(beginnings.look, after="", limit=10))
    assert looked.empty == ["customer:alice"]
    await complete(sender, "alice", "2")
    await sender.database.write(partial(beginnings.raise_mark, seq=5))
    assert await sender.database.write(partial(beginnings.remove, names=looked.empty)) == 0


async def test_channel_beyond_the_mark_stays(sender: RunningSender) -> None:
    await complete(sender, "alice", "1")
    await a_week_later(sender, Pace(doubt_seconds=0))
    assert await sender.database.write(partial(beginnings.remove, names=["customer:alice"])) == 0
    await sender.database.write(partial(beginnings.raise_mark, seq=1))
    assert await sender.database.write(partial(beginnings.remove, names=["customer:alice"])) == 1


@pytest.mark.parametrize("seed", range(3))
async def test_events_that_race_with_removals_have_each_place_once(sender: RunningSender, seed: int) -> None:
    """Channels are emptied and removed again and again while events are recorded in them."""
    empty = update(channels).values(pruned_seq=channels.c.seq)
    places: list[tuple[str, int]] = []

    async def record(number: int) -> None:
        for n in range(8):
            order_id = f"{number}-{n}"
            await sender.place(order_id, f"c{(number + n + seed) % 3}")
            event = (await sender.complete(order_id)).json()["event"]
            places.append((event["channel"], event["seq"]))

    def drop_all(connection: Any) -> None:
        connection.execute(text("DELETE FROM outbox"))
        connection.execute(text("DELETE FROM events"))
        connection.execute(empty)

    async with asyncio.TaskGroup() as tasks:
        recording = [tasks.create_task(record(number)) for number in range(4)]
        while not all(task.done() for task in recording):
            await sender.database.write(drop_all)
            looked = await sender.database.read(partial(beginnings.look, after="", limit=10))
            await sender.database.write(partial(beginnings.raise_mark, seq=looked.highest))
            await sender.database.write(partial(beginnings.remove, names=looked.empty))
    assert len(places) == 32
    assert len(set(places)) == len(places)
    removed = await sender.database.read(
        lambda connection: connection.execute(select(generation.c.begin_after)).scalar_one()
    )
    assert removed > 0
