"""Extents as sets: the text, the union, and that the script in Redis and the browser agree with it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.channels import Channel
from shared.cursors import MAX_NUMBER, InvalidCursor, Place
from shared.extents import MAX_RANGES, MAX_RANGES_TEXT, Extent, Range, Seen, parse_all_seen, parse_seen
from shared.redis.channel_log import LogReader, LogWriter
from shared.redis.keys import Names
from shared.redis.live import SeenNotice, parse_live
from shared.redis.wire import Pipelines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from redis.asyncio import Redis

pytestmark = pytest.mark.anyio

ALICE = Channel("customer:alice")


def extent(text: str) -> Extent:
    return parse_seen(f"{ALICE}={text}").extent


def seqs(extent: Extent) -> set[int]:
    """All of them, of small extents."""
    beyond = (seq for first, last in extent.beyond for seq in range(first, last + 1))
    return {*range(1, extent.place.seq + 1), *beyond}


def of_seqs(seqs: Iterable[int]) -> Extent:
    return Extent.of(Place(1, 0), [Range(seq, seq) for seq in seqs])


@pytest.mark.parametrize("text", ["1.0", "1.40", "1.40+42", "1.40+42+45-47", f"{MAX_NUMBER}.0+{MAX_NUMBER}"])
def test_text_is_what_it_was_parsed_from(text: str) -> None:
    assert str(extent(text)) == text


@given(st.sets(st.integers(1, 40)), st.sets(st.integers(1, 40)))
def test_what_a_union_added_are_the_seqs_that_were_not_there(older: set[int], more: set[int]) -> None:
    before = of_seqs(older)
    added = before.union(of_seqs(more)).since(before)
    found = [seq for first, last in added for seq in range(first, last + 1)]
    assert sorted(found) == sorted(more - older)


def test_in_a_new_epoch_all_is_new() -> None:
    assert extent("2.3+5").since(extent("1.9+12")) == [Range(1, 3), Range(5, 5)]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("1.3+4", "1.4"),
        ("1.3+2-9", "1.9"),
        ("1.0+7-8+2-3+4", "1.0+2-4+7-8"),
        ("1.0+9+5-9+5", "1.0+5-9"),
        ("1.0+1-3+4", "1.4"),
    ],
)
def test_ranges_that_touch_or_overlap_are_one_and_fill_up_the_place(text: str, normal: str) -> None:
    assert str(extent(text)) == normal


@pytest.mark.parametrize(
    "text",
    ["1.4+", "1.4+0", "1.4+7-", "1.4+7-6", "1.4+07", "1.4 7", "1.4+-7", "1.4+7,1.5", "1.4+9007199254740992",
     "1.4-7", "1.4++7", "0.1+2", "1.4+7\n", "1.4+7-8-9", "1.4" + "+1-2" * (MAX_RANGES + 1)],
)  # fmt: skip
def test_what_is_no_extent_is_an_invalid_cursor(text: str) -> None:
    with pytest.raises(InvalidCursor):
        extent(text)


def test_joined_text_names_each_channel_once() -> None:
    seen = parse_all_seen("customer:bob=1.1+3,customer:alice=2.0+5")
    assert [str(one) for one in seen] == ["customer:alice=2.0+5", "customer:bob=1.1+3"]
    assert parse_all_seen("") == []
    with pytest.raises(InvalidCursor, match="twice"):
        parse_all_seen("customer:bob=1.1+3,customer:bob=1.2")
    with pytest.raises(InvalidCursor, match="more than 100"):
        parse_all_seen(",".join(f"customer:c{n}=1.1" for n in range(101)))


_SEQS = st.sets(st.integers(1, 60), max_size=40)


@given(st.lists(_SEQS, max_size=6), st.randoms())
def test_reports_of_several_devices_end_in_their_union_whatever_their_order(
    devices: list[set[int]], order: random.Random
) -> None:
    """Each device repeatedly reports what it has shown so far; reports are delayed and repeated."""
    reports = [of_seqs(sorted(device)[:count]) for device in devices for count in range(len(device) + 1)]
    reports += order.choices(reports, k=5) if reports else []
    order.shuffle(reports)
    known = Extent(Place(1, 0))
    for report in reports:
        before, known = known, known.union(report)
        assert seqs(before) <= seqs(known)
    assert seqs(known) == set().union(*devices)
    assert str(parse_seen(f"{ALICE}={known}").extent) == str(known)
    assert all((Place(1, seq) in known) == (seq in seqs(known)) for seq in range(1, 62))


def test_newer_epoch_takes_the_place_of_all_before_it() -> None:
    assert (
        extent("1.9+12").union(extent("2.0+3")) == extent("2.0+3").union(extent("1.9+12")) == extent("2.0+3")
    )
    assert Place(1, 900) in extent("2.0")
    assert Place(3, 1) not in extent("2.9")


def test_of_too_many_ranges_the_newest_are_kept_and_nothing_unseen_is_added() -> None:
    odd = range(3, 3 + 2 * 100, 2)
    known = Extent(Place(1, 0))
    for seq in odd:
        known = known.union(of_seqs([seq]))
    assert seqs(known) == set(odd[-MAX_RANGES:])
    assert len(known.ranges_text()) <= MAX_RANGES_TEXT
    healed = known.union(Extent(Place(1, odd[-1])))  # the device that showed them reports its own place
    assert healed == Extent(Place(1, odd[-1]))


def test_longest_text_fits_into_its_column() -> None:
    first = MAX_NUMBER - 3 * MAX_RANGES
    widest = Extent.of(Place(1, 0), [Range(first + 3 * n, first + 3 * n + 1) for n in range(MAX_RANGES)])
    assert len(widest.ranges_text()) == MAX_RANGES_TEXT


# --- in Redis


@pytest.fixture
def names(key_prefix: str) -> Names:
    return Names(key_prefix)


@pytest.fixture
async def pipelines(redis: Redis) -> AsyncIterator[Pipelines]:
    async with Pipelines(redis) as pipelines:
        yield pipelines


@pytest.fixture
def writer(pipelines: Pipelines, names: Names) -> LogWriter:
    return LogWriter(pipelines, names)


@pytest.fixture
def reader(pipelines: Pipelines, names: Names) -> LogReader:
    return LogReader(pipelines, names)


@pytest.mark.parametrize("seed", range(3))
async def test_script_makes_the_same_union(writer: LogWriter, reader: LogReader, seed: int) -> None:
    """Beside the model: many reports, of few and of too many holes, and newer epochs now and then."""
    chance = random.Random(seed)
    known: Extent | None = None
    epoch = 1
    for n in range(300):
        epoch += chance.random() < 0.01
        wide = 400 if seed else 40
        ranges = [Range(first, first + chance.randrange(3)) for first in chance.sample(range(1, wide), 3)]
        report = Extent.of(Place(epoch - (n % 7 == 0 and epoch > 1), chance.randrange(n // 10 + 1)), ranges)
        known = report.union(known) if known is not None else report
        await writer.see([Seen(ALICE, report)])
        assert await reader.seen([ALICE]) == [known], report


async def test_devices_hear_of_what_is_new_and_gateways_of_before_of_the_place(
    redis: Redis, names: Names, writer: LogWriter
) -> None:
    heard: list[bytes] = []
    subscriber = redis.pubsub()
    await subscriber.subscribe(names.live(ALICE))
    for text in ("1.1+3", "1.1", "1.1+3", "1.0+5", "1.2", "1.4"):
        await writer.see([Seen(ALICE, extent(text))])
    while b"seen 1 5" not in heard:
        message = await subscriber.get_message(timeout=5)
        assert message is not None
        heard += [message["data"]] if message["type"] == "message" else []
    assert heard == [
        b"seen 1 1", b"seen 1 1+3",
        b"seen 1 1+3+5",
        b"seen 1 3", b"seen 1 3+5",
        b"seen 1 5",
    ]  # fmt: skip
    assert parse_live(heard[2]) == SeenNotice(extent("1.1+3+5"))
    await subscriber.aclose()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("known", ["1.4+", "1.4+7-6", "1.4+x", "1.4" + "+9" * 65, "1.4+9007199254740992"])
async def test_value_that_is_none_is_unknown_and_replaced(
    redis: Redis, names: Names, writer: LogWriter, reader: LogReader, known: str
) -> None:
    await redis.set(names.seen(ALICE), known)
    assert await reader.seen([ALICE]) == [None]
    await writer.see([Seen(ALICE, extent("1.1+3"))])
    assert await reader.seen([ALICE]) == [extent("1.1+3")]


async def test_largest_numbers_are_exact_in_redis(writer: LogWriter, reader: LogReader) -> None:
    text = f"{MAX_NUMBER}.{MAX_NUMBER - 9}+{MAX_NUMBER - 1}-{MAX_NUMBER}"
    await writer.see([Seen(ALICE, extent(f"{MAX_NUMBER}.0+5"))])
    await writer.see([Seen(ALICE, extent(text))])
    assert str((await reader.seen([ALICE]))[0]) == text
