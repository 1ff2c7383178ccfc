"""Signatures on what Redis carries: write access to Redis alone can't show a customer anything."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from receiver import metrics
from receiver.access.identity import Identity, InvalidToken
from receiver.access.tickets import Tickets
from shared.channels import customer_channel
from shared.cursors import Place
from shared.events import Entry
from shared.extents import Extent, Range, Seen
from shared.redis.channel_log import Known, LogRead, LogReader, LogWriter
from shared.redis.inquiries import GatewayReport
from shared.redis.keys import Names
from shared.redis.signatures import InvalidLiveKey, Kind, LiveKey, Signatures
from shared.redis.wire import Pipelines
from tests.gateways import run_gateway
from tests.senders import run_sender
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis

    from tests.gateways import RunningGateway
    from tests.senders import RunningSender

pytestmark = pytest.mark.anyio

OLD, NEW = LiveKey("old", b"o" * 32), LiveKey("new", b"n" * 32)
ALICE, BOB = customer_channel("alice"), customer_channel("bob")
FORGED = b'{"specversion":"1.0","id":"forged","channel":"customer:alice","epoch":1,"seq":%d}'


# --- signing


def test_a_sealed_value_opens_under_its_own_name_and_kind_alone() -> None:
    ours = Signatures([NEW])
    sealed = ours.seal(Kind.LIVE, b"ob:live:{customer:alice}", b"1 1 {}")
    assert ours.open(Kind.LIVE, b"ob:live:{customer:alice}", sealed) == b"1 1 {}"
    assert ours.open(Kind.LIVE, b"ob:live:{customer:bob}", sealed) is None
    assert ours.open(Kind.LIVE, b"ob:db3:live:{customer:alice}", sealed) is None
    assert ours.open(Kind.TICKET, b"ob:live:{customer:alice}", sealed) is None
    assert ours.open(Kind.LIVE, b"ob:live:{customer:alice}", sealed[:-1] + b" ") is None
    assert ours.open(Kind.LIVE, b"ob:live:{customer:alice}", sealed.replace(b" 1 1", b" 1 2")) is None


@pytest.mark.parametrize(
    "value",
    [
        b"1 1 {}",
        b"",
        b"~new~ 1 1 {}",
        b"~new~" + b"0" * 32 + b" 1 1 {}",
        b"~old~" + b"0" * 32 + b" 1 1 {}",
        b"~new~\xff 1 1 {}",
        b"~~ 1 1 {}",
    ],
)
def test_what_is_not_signed_by_a_known_key_does_not_open_and_is_counted(value: bytes) -> None:
    kinds: list[str] = []
    assert Signatures([NEW], kinds.append).open(Kind.LIVE, b"x", value) is None
    assert kinds == ["live"]


def test_while_a_key_is_replaced_both_verify_and_the_first_signs() -> None:
    before, between, after = Signatures([OLD]), Signatures([NEW, OLD]), Signatures([NEW])
    old, new = before.seal(Kind.SEEN, b"x", b"1.1"), between.seal(Kind.SEEN, b"x", b"1.1")
    assert (old[:5], new[:5]) == (b"~old~", b"~new~")
    assert between.open(Kind.SEEN, b"x", old) == between.open(Kind.SEEN, b"x", new) == b"1.1"
    assert after.open(Kind.SEEN, b"x", new) == b"1.1"
    assert after.open(Kind.SEEN, b"x", old) is None


def test_without_keys_nothing_is_signed_and_signatures_are_passed_over() -> None:
    none = Signatures()
    assert none.seal(Kind.LIVE, b"x", b"1 1 {}") == b"1 1 {}"
    assert none.open(Kind.LIVE, b"x", Signatures([NEW]).seal(Kind.LIVE, b"x", b"1 1 {}")) == b"1 1 {}"


@pytest.mark.parametrize(
    "text", ["", "x", ":" + "s" * 32, "a b:" + "s" * 32, "i" * 17 + ":" + "s" * 32, "id:s"]
)
def test_what_is_no_key_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(InvalidLiveKey) as caught:
        LiveKey.parse(text)
    assert "s" * 32 not in str(caught.value)


# --- the log, seen places and tickets


@pytest.fixture
async def pipelines(redis: Redis) -> AsyncIterator[Pipelines]:
    async with Pipelines(redis) as pipelines:
        yield pipelines


@pytest.fixture
def names(key_prefix: str) -> Names:
    return Names(key_prefix)


async def test_signed_events_and_seen_places_are_read_back(pipelines: Pipelines, names: Names) -> None:
    ours = Signatures([NEW, OLD])
    writer, reader = LogWriter(pipelines, names, ours), LogReader(pipelines, names, ours)
    events = [Entry(Place(1, seq), b"{}") for seq in (1, 2)]
    await writer.publish([(ALICE, events)])
    for extent in (Extent(Place(1, 0), (Range(2, 2),)), Extent(Place(1, 2)), Extent(Place(1, 1))):
        await writer.see([Seen(ALICE, extent)])  # never back
    assert await reader.read([(ALICE, 0)], limit=10) == [LogRead(Place(1, 2), tuple(events))]
    assert await reader.known([ALICE]) == [Known(Place(1, 2), Extent(Place(1, 2)))]
    assert await reader.seen([ALICE]) == [Extent(Place(1, 2))]


async def test_gateway_without_keys_reads_what_is_signed(pipelines: Pipelines, names: Names) -> None:
    writer, reader = LogWriter(pipelines, names, Signatures([NEW])), LogReader(pipelines, names)
    await writer.publish([(ALICE, [Entry(Place(1, 1), b"{}")])])
    await writer.see([Seen(ALICE, Extent(Place(1, 1)))])
    assert await reader.read([(ALICE, 0)], limit=10) == [LogRead(Place(1, 1), (Entry(Place(1, 1), b"{}"),))]
    assert await reader.seen([ALICE]) == [Extent(Place(1, 1))]


async def test_event_put_into_a_log_by_another_makes_the_log_count_for_nothing(
    pipelines: Pipelines, names: Names, redis: Redis
) -> None:
    ours = Signatures([NEW])
    writer, reader = LogWriter(pipelines, names, ours), LogReader(pipelines, names, ours)
    await writer.publish([(ALICE, [Entry(Place(1, 1), b"{}")]), (BOB, [Entry(Place(1, 1), b"{}")])])
    entries: Any = await redis.xrange(names.log(BOB))
    [(_, fields)] = entries
    of_bob = fields[b"s"]
    forgeries: list[Any] = [{"e": FORGED % 2}, {"e": FORGED % 2, "s": of_bob}, {"e": b"{}", "s": of_bob}]
    for forged in forgeries:
        await redis.delete(names.log(ALICE))
        await redis.xadd(names.log(ALICE), forged, id="2-0")
        await redis.hset(names.head(ALICE), mapping={"seq": 2})
        assert await reader.read([(ALICE, 1)], limit=10) == [LogRead(None, ())]


async def test_what_was_seen_before_there_were_keys_is_signed_when_it_is_reported_again(
    pipelines: Pipelines, names: Names
) -> None:
    ours, seen = Signatures([NEW]), Seen(ALICE, Extent(Place(1, 3), (Range(5, 6),)))
    await LogWriter(pipelines, names).see([seen])
    reader = LogReader(pipelines, names, ours)
    assert await reader.seen([ALICE]) == [None]
    await LogWriter(pipelines, names, ours).see([seen])
    assert await reader.seen([ALICE]) == [seen.extent]


async def test_sum_that_nobody_has_signed_is_forgotten(pipelines: Pipelines, names: Names) -> None:
    writer = LogWriter(pipelines, names, Signatures([NEW]))
    for first in (3, 5):
        await writer.see([Seen(ALICE, Extent(Place(1, 0), (Range(first, first),)))])
    assert await LogReader(pipelines, names, Signatures([NEW])).seen([ALICE]) == [None]


async def test_seen_place_of_another_is_unknown(pipelines: Pipelines, names: Names, redis: Redis) -> None:
    ours = Signatures([NEW])
    await LogWriter(pipelines, names, ours).see([Seen(BOB, Extent(Place(1, 9)))])
    of_bob: Any = await redis.get(names.seen(BOB))
    for forged in (b"1.9", of_bob):
        await redis.set(names.seen(ALICE), forged)
        assert await LogReader(pipelines, names, ours).seen([ALICE]) == [None]


async def test_ticket_written_by_hand_signs_nobody_in(
    pipelines: Pipelines, names: Names, redis: Redis, key_prefix: str
) -> None:
    ours = Signatures([NEW])
    tickets = Tickets(pipelines, names, ours)
    alice = Identity("alice", (), 4_000_000_000.0)
    assert await tickets.redeem(await tickets.issue(alice)) == alice
    of_alice, of_mallory = [await tickets.issue(Identity(who, (), 4e9)) for who in ("alice", "mallory")]
    keys = [tickets._key(ticket) for ticket in (of_alice, of_mallory)]
    moved: Any = await redis.get(keys[0])
    for forged in (msgspec.json.encode(alice), moved):
        await redis.set(keys[1], forged)
        with pytest.raises(InvalidToken, match="malformed"):
            await tickets.redeem(of_mallory)


# --- everything together


@asynccontextmanager
async def running(
    path: Path, redis_url: str, key_prefix: str, *, sender: Signatures, gateway: Signatures
) -> AsyncIterator[tuple[RunningSender, RunningGateway]]:
    url = f"sqlite:///{path / 'orderbell.db'}"
    async with (
        run_sender(url, redis_url, key_prefix, signatures=sender) as ours,
        run_gateway(ours.client, redis_url, key_prefix, signatures=gateway) as running,
    ):
        yield ours, running


async def complete(sender: RunningSender, order_id: str) -> None:
    await sender.place(order_id)
    assert (await sender.complete(order_id)).status_code == 200


async def test_forged_live_message_is_dropped_and_counted_and_the_true_one_shown(
    tmp_path: Path, redis_url: str, key_prefix: str
) -> None:
    counted = metrics.unauthentic.labels("live")._value
    ours = Signatures([NEW], lambda kind: metrics.unauthentic.labels(kind).inc())
    async with (
        running(tmp_path, redis_url, key_prefix, sender=ours, gateway=ours) as (sender, gateway),
        gateway.connected() as browser,
    ):
        await complete(sender, "1")
        await browser.wait_seqs([1])
        before = counted.get()
        live = sender.names.live(ALICE)
        mallory = Signatures([LiveKey("new", b"m" * 32)])
        for forged in (
            b"1 2 " + FORGED % 2,
            mallory.seal(Kind.LIVE, live.encode(), b"1 2 " + FORGED % 2),
            b"seen 1 1",
            b"erased",
            b"erased %d" % (time.time() * 1000),
        ):
            await sender.redis.publish(live, forged)
        await await_until(lambda: counted.get() == before + 5)
        await complete(sender, "2")
        await browser.wait_seqs([1, 2])
        assert [event["type"] for event in browser.events] == ["order.completed"] * 2
        assert (browser.close, browser.seen) == (None, [])


async def test_answer_of_a_gateway_that_somebody_else_wrote_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str, key_prefix: str
) -> None:
    ours, mallory = Signatures([NEW]), Signatures([LiveKey("new", b"m" * 32)])
    monkeypatch.setattr("shared.redis.inquiries.secrets.token_hex", lambda size: "1")
    async with (
        running(tmp_path, redis_url, key_prefix, sender=ours, gateway=ours) as (sender, gateway),
        gateway.connected(),
    ):
        key, other = sender.names.answers("1"), sender.names.answers("2")
        report = GatewayReport("evil", "", redis=True, not_ready=[], connections={}, channels=1)
        text = msgspec.json.encode(msgspec.structs.replace(report, listening_count=7))
        forged = [
            text,
            mallory.seal(Kind.ANSWER, key.encode(), text),
            ours.seal(Kind.ANSWER, other.encode(), text),  # of another question
            ours.seal(Kind.LIVE, key.encode(), text),
        ]
        await sender.redis.rpush(key, *forged)
        found = (await sender.client.get("/connections")).json()
        assert [one["gateway"] for one in found["gateways"]] == ["in-process"]
        assert found["connections"] == 1


async def test_event_forged_in_log_and_head_is_never_shown(
    tmp_path: Path, redis_url: str, key_prefix: str
) -> None:
    ours = Signatures([NEW])
    async with (
        running(tmp_path, redis_url, key_prefix, sender=ours, gateway=ours) as (sender, gateway),
        gateway.connected() as browser,
    ):
        await complete(sender, "1")
        await browser.wait_seqs([1])
        await sender.redis.xadd(sender.names.log(ALICE), {"e": FORGED % 2}, id="2-0")
        await sender.redis.hset(sender.names.head(ALICE), mapping={"seq": 2})
        async with gateway.connected("alice", f"{ALICE}=1.0") as late:
            await late.wait_seqs([1])
            await await_until(lambda: late.events)
            assert [event["id"] for event in late.events if event["id"] == "forged"] == []
        assert [event["id"] for event in browser.events if event["id"] == "forged"] == []


@pytest.mark.parametrize(
    ("sender", "gateway"),
    [
        (Signatures([NEW]), Signatures()),  # turned on: senders first …
        (Signatures([NEW]), Signatures([NEW])),  # … then gateways
        (Signatures([OLD]), Signatures([OLD, NEW])),  # a key is replaced
        (Signatures([NEW, OLD]), Signatures([OLD, NEW])),
        (
            Signatures(),
            Signatures([NEW]),
        ),  # the wrong way round: late, from the history, not lost
    ],
)
async def test_everything_arrives_while_keys_are_turned_on_and_replaced(
    tmp_path: Path, redis_url: str, key_prefix: str, sender: Signatures, gateway: Signatures
) -> None:
    async with (
        running(tmp_path, redis_url, key_prefix, sender=sender, gateway=gateway) as (one, other),
        other.connected() as browser,
    ):
        for n in ("1", "2", "3"):
            await complete(one, n)
        await browser.wait_seqs([1, 2, 3])


async def test_erasure_ends_connections_with_keys_and_its_notice_cannot_be_used_again(
    tmp_path: Path, redis_url: str, key_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Signatures([NEW])
    async with running(tmp_path, redis_url, key_prefix, sender=ours, gateway=ours) as (sender, gateway):
        async with gateway.connected() as browser:
            assert (await sender.client.delete("/customers/alice")).status_code == 200
            assert await browser.wait_close() == 4401
        live = sender.names.live(ALICE)
        old = ours.seal(Kind.LIVE, live.encode(), b"erased %d" % ((time.time() - 3_600) * 1000))
        async with gateway.connected() as browser:
            await sender.redis.publish(live, old)
            await complete(sender, "2")
            await await_until(lambda: browser.events or browser.close)
            assert browser.close is None
