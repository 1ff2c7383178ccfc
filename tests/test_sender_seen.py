from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from sender.seen import SeenNotifier
from shared.channels import Channel
from shared.cursors import Place
from shared.extents import Extent, Seen
from shared.redis.channel_log import LogWriter
from shared.redis.keys import Names
from shared.redis.wire import Pipelines
from tests.senders import one_database, postgres_is_long, run_sender
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from redis.asyncio import Redis

    from tests.senders import RunningSender

pytestmark = pytest.mark.anyio

ALICE = Channel("customer:alice")


@pytest.fixture
async def sender(
    database_url: str, redis_url: str, key_prefix: str, anyio_backend: object
) -> AsyncIterator[RunningSender]:
    """A sender with three events for Alice."""
    async with run_sender(database_url, redis_url, key_prefix, relaying=False) as sender:
        for order_id in ("1", "2", "3"):
            await sender.place(order_id)
            await sender.complete(order_id)
        yield sender


async def see(sender: RunningSender, *cursors: str) -> Any:
    response = await sender.client.post("/seen", json={"cursors": list(cursors)})
    assert response.status_code == 200, response.text
    return response.json()["seen"]


@postgres_is_long
async def test_seen_moves_forward_only(sender: RunningSender) -> None:
    assert await see(sender, "customer:alice=1.2") == ["customer:alice=1.2"]
    assert await see(sender, "customer:alice=1.1") == ["customer:alice=1.2"]
    assert await see(sender, "customer:alice=1.3") == ["customer:alice=1.3"]


@pytest.mark.parametrize("cursor", ["customer:alice=1.4", "customer:alice=2.1", "customer:alice=1.0"])
@postgres_is_long
async def test_what_was_never_there_cannot_be_seen(sender: RunningSender, cursor: str) -> None:
    assert await see(sender, cursor) == ["customer:alice=1.0"]


@postgres_is_long
async def test_customer_without_events_has_seen_nothing(sender: RunningSender) -> None:
    assert await see(sender, "customer:bob=1.1") == ["customer:bob=1.0"]


async def test_later_event_seen_before_an_earlier_one_is_kept_beside_it(sender: RunningSender) -> None:
    assert await see(sender, "customer:alice=1.0+2") == ["customer:alice=1.0+2"]
    assert await see(sender, "customer:alice=1.0+3") == ["customer:alice=1.0+2-3"]
    (alice,) = (await sender.client.post("/history", json={"after": ["customer:alice"]})).json()["channels"]
    assert (alice["after"], alice["seen"], len(alice["events"])) == (
        "customer:alice=1.0",
        "customer:alice=1.0+2-3",
        3,
    )
    assert await see(sender, "customer:alice=1.1") == ["customer:alice=1.3"]


@pytest.mark.parametrize("report", ["1.0+4", "1.0+2+9", "1.1+3-4", "2.0+2"])
@postgres_is_long
async def test_report_that_names_what_was_never_there_adds_nothing(
    sender: RunningSender, report: str
) -> None:
    assert await see(sender, f"customer:alice={report}") == ["customer:alice=1.0"]


async def test_racing_reports_of_devices_end_in_their_union(sender: RunningSender) -> None:
    reports = ["1.0+3", "1.1", "1.0+3", "1.0"]
    await asyncio.gather(*(see(sender, f"customer:alice={report}") for report in reports))
    assert await see(sender, "customer:alice=1.0") == ["customer:alice=1.1+3"]
    assert await see(sender, "customer:alice=1.0+2") == ["customer:alice=1.3"]


async def test_erased_customer_has_seen_all_that_was_and_nothing_beyond(sender: RunningSender) -> None:
    await see(sender, "customer:alice=1.0+2")
    await await_until(lambda: sender.redis.get(sender.names.seen(ALICE)))
    assert (await sender.client.delete("/customers/alice")).status_code == 200
    assert await see(sender, "customer:alice=1.0+3") == ["customer:alice=1.3"]
    await sender.place("after")
    await sender.complete("after")
    assert await see(sender, "customer:alice=1.0") == ["customer:alice=1.3"]


@postgres_is_long
async def test_seen_set_reaches_redis_and_the_other_devices(sender: RunningSender) -> None:
    subscriber = sender.redis.pubsub()
    await subscriber.subscribe(sender.names.live(ALICE))
    await see(sender, "customer:alice=1.0+2")
    heard: list[bytes] = []
    while b"seen 1 0+2" not in heard:
        message = await subscriber.get_message(timeout=5)
        assert message is not None
        heard += [message["data"]] if message["type"] == "message" else []
    assert await sender.redis.get(sender.names.seen(ALICE)) == b"1.0+2"
    await subscriber.aclose()  # type: ignore[no-untyped-call]


async def test_several_are_answered_in_order(sender: RunningSender) -> None:
    cursors = ["customer:bob=1.1", "customer:alice=1.2", "customer:alice=1.1"]
    assert await see(sender, *cursors) == ["customer:bob=1.0", "customer:alice=1.2", "customer:alice=1.2"]
    assert await see(sender) == []


async def test_racing_reports_end_at_the_highest(sender: RunningSender) -> None:
    await asyncio.gather(*(see(sender, f"customer:alice=1.{seq}") for seq in (3, 1, 2, 3, 1)))
    assert await see(sender, "customer:alice=1.0") == ["customer:alice=1.3"]


@one_database
@pytest.mark.parametrize("cursor", ["topic:menu=1.1", "customer:alice", "alice=1.1", "customer:alice=1.-1"])
async def test_what_has_no_seen_cursor_is_refused(sender: RunningSender, cursor: str) -> None:
    response = await sender.client.post("/seen", json={"cursors": ["customer:alice=1.1", cursor]})
    assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")
    assert await see(sender, "customer:alice=1.0") == ["customer:alice=1.0"]


@postgres_is_long
async def test_reports_reach_the_other_devices_through_redis(sender: RunningSender) -> None:
    subscriber = sender.redis.pubsub()
    await subscriber.subscribe(sender.names.live(ALICE))
    await see(sender, "customer:alice=1.2")
    heard: list[bytes] = []
    while not heard:
        message = await subscriber.get_message(timeout=5)
        assert message is not None
        heard += [message["data"]] if message["type"] == "message" else []
    assert heard == [b"seen 1 2"]
    assert await sender.redis.get(sender.names.seen(ALICE)) == b"1.2"
    await subscriber.aclose()  # type: ignore[no-untyped-call]


@postgres_is_long
async def test_history_of_a_bare_channel_brings_its_seen_cursor_back_to_redis(sender: RunningSender) -> None:
    await see(sender, "customer:alice=1.2")
    key = sender.names.seen(ALICE)
    await await_until(lambda: sender.redis.get(key))
    await sender.redis.delete(key)
    await sender.client.post("/history", json={"after": ["customer:alice", "topic:menu"]})
    assert await await_until(lambda: sender.redis.get(key)) == b"1.2"


@postgres_is_long
async def test_reports_are_answered_while_redis_is_away(database_url: str, key_prefix: str) -> None:
    async with run_sender(database_url, "redis://127.0.0.1:1/0", key_prefix, relaying=False) as sender:
        await sender.place("1")
        await sender.complete("1")
        assert await see(sender, "customer:alice=1.1") == ["customer:alice=1.1"]


class SlowLog(LogWriter):
    """The first call waits, the second finds Redis away; notes what was passed on."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(Pipelines(redis), Names("ob-unused"))
        self.passed_on: list[tuple[dict[Channel, Extent], bool]] = []
        self.go = asyncio.Event()

    async def see(self, seen: Sequence[Seen], *, notify: bool = True) -> None:
        await self.go.wait()
        self.passed_on.append((dict(seen), notify))
        if len(self.passed_on) == 2:
            raise RedisConnectionError


async def test_a_burst_of_reports_is_sent_once_and_a_failure_ends_nothing(redis: Redis) -> None:
    log = SlowLog(redis)
    notifier = SeenNotifier(log)
    running = asyncio.create_task(notifier.run())
    notifier.pass_on([Seen(ALICE, Extent(Place(1, 1)))], devices=True)
    await asyncio.sleep(0)  # the first is on its way
    for seq in (2, 4, 3):
        notifier.pass_on([Seen(ALICE, Extent(Place(1, seq)))], devices=True)
    notifier.pass_on([Seen(ALICE, Extent(Place(1, 4)))], devices=False)
    log.go.set()
    await await_until(lambda: len(log.passed_on) == 3)
    assert log.passed_on == [
        ({ALICE: Extent(Place(1, 1))}, True),
        ({ALICE: Extent(Place(1, 4))}, True),
        ({ALICE: Extent(Place(1, 4))}, False),
    ]
    running.cancel()


@one_database
async def test_time_from_order_to_shown_is_measured_once_for_what_is_new(sender: RunningSender) -> None:
    name = "orderbell_order_to_shown_seconds"
    count, seconds = (sender.counted.value(f"{name}_{part}") for part in ("count", "sum"))

    def measured() -> tuple[float, float]:
        now_count, now_seconds = (sender.counted.value(f"{name}_{part}") for part in ("count", "sum"))
        return now_count - count, round(now_seconds - seconds, 6)

    sender.clock.advance(seconds=4)
    for _ in range(2):  # the second says nothing new
        await sender.client.post("/seen", json={"cursors": [f"{ALICE}=1.2"]})
    assert measured() == (1, 4)
    await sender.client.post("/seen", json={"cursors": [f"{ALICE}=1.3"]})  # of one report a second
    assert measured() == (1, 4)
