from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, select

from sender import alerts, generation, history, outbox, recording
from sender.database.tables import events
from sender.history import ChannelHistory, Request, Reset, Sizes, State
from sender.recording import arrival
from shared.channels import Channel
from shared.cursors import Place
from shared.events import parse_event
from shared.extents import Extent
from shared.redis.channel_log import NewestEvent
from tests.pruned import prune_events
from tests.senders import one_database, postgres_is_long

if TYPE_CHECKING:
    from tests.senders import RunningSender

pytestmark = [pytest.mark.anyio, pytest.mark.unpublished]

NOW = datetime(2026, 11, 23, 14, 25, tzinfo=UTC)
ALICE = Channel("customer:alice")
MENU = Channel("topic:menu")


async def record(
    sender: RunningSender, channel: Channel, count: int, *, size: int = 1, first: int = 0
) -> None:
    def work(connection: Connection) -> None:
        for number in range(first, first + count):
            event = {"specversion": "1.0", "id": f"{channel}-{number}", "source": "/test", "type": "t"}
            draft = parse_event(event | {"channel": channel, "data": "x" * size}, now=NOW)
            recording.record_once(connection, [arrival(draft, content="")], now=sender.clock())

    await sender.database.write(work)


async def prune_first(sender: RunningSender, count: int) -> None:
    """Prune them as retention does with old events."""

    def work(connection: Connection) -> None:
        oldest = select(events.c.position).order_by(events.c.seq).limit(count)
        published = [NewestEvent(1, position) for position in connection.execute(oldest).scalars()]
        outbox.mark_published(connection, published)
        assert prune_events(connection, before=sender.clock(), limit=500) == count

    sender.clock.advance(days=8)
    await sender.database.write(work)


async def ask(sender: RunningSender, *after: str, limit: int = 100) -> list[dict[str, Any]]:
    response = await sender.client.post("/history", json={"after": list(after), "limit": limit})
    assert response.status_code == 200, response.text
    channels: list[dict[str, Any]] = response.json()["channels"]
    return channels


def seqs(answer: dict[str, Any]) -> list[int]:
    return [event["seq"] for event in answer["events"]]


@pytest.mark.parametrize(
    ("place", "reset"),
    [
        (Place(2, 5), None),
        (Place(2, 9), None),
        (Place(2, 4), Reset.PRUNED),
        (Place(2, 10), Reset.FUTURE),
        (Place(1, 7), Reset.EPOCH),
        (Place(3, 7), Reset.EPOCH),
    ],
)
def test_state_decides_which_places_can_be_honoured(place: Place, reset: Reset | None) -> None:
    assert State(Place(2, 9), pruned_seq=5, seen=Extent(Place(2, 0))).check(place) is reset


@pytest.mark.parametrize(
    ("place", "fresh_after", "after"),
    [
        (Place(1, 7), 5, Place(2, 5)),
        (Place(1, 2), 6, Place(2, 6)),
        (Place(1, 7), None, Place(2, 9)),  # something may have been shown under an old place
        (Place(1, 7), 4, Place(2, 9)),  # not all of the epoch is kept
        (Place(3, 7), 5, Place(2, 9)),  # the database is about to begin another epoch
        (Place(2, 10), 5, Place(2, 9)),
        (Place(2, 4), 5, Place(2, 9)),
    ],
)
def test_only_a_place_of_a_past_epoch_continues_before_the_head(
    place: Place, fresh_after: int | None, after: Place
) -> None:
    state = State(Place(2, 9), pruned_seq=5, seen=Extent(Place(2, 0)), fresh_after=fresh_after)
    assert state.continuation(place, state.check(place)) == after


async def begin_second_epoch(sender: RunningSender) -> None:
    """As after a restore, with nothing in the backup's outbox."""

    def work(connection: Connection) -> None:
        waiting = outbox.unpublished(connection, limit=100)
        outbox.mark_published(connection, [NewestEvent(1, event.position) for event in waiting])
        assert generation.begin_epoch(connection, after=1) == 2

    await sender.database.write(work)


@pytest.mark.parametrize("seen", ["", "1.3", "1.5", "1.1+3"])
@postgres_is_long
async def test_every_device_begins_with_the_new_epochs_first_event(sender: RunningSender, seen: str) -> None:
    """Whether it has a cursor, newer than the backup or older, or none."""
    await record(sender, ALICE, 5)
    if seen:
        await sender.client.post("/seen", json={"cursors": [f"customer:alice={seen}"]})
    await begin_second_epoch(sender)
    await record(sender, ALICE, 2, first=5)
    new, newer, older = await ask(sender, "customer:alice", "customer:alice=1.7", "customer:alice=1.2")
    assert (new["after"], new["reset"], seqs(new)) == ("customer:alice=2.5", None, [6, 7])
    assert new["seen"] == "customer:alice=2.5"
    for answer in (newer, older):
        assert (answer["reset"], answer["as_of"]) == ("epoch", "customer:alice=2.5")
    (rest,) = await ask(sender, newer["as_of"])
    assert (rest["reset"], seqs(rest)) == (None, [6, 7])


async def test_what_a_device_has_shown_of_the_new_epoch_is_not_shown_by_one_that_returns(
    sender: RunningSender,
) -> None:
    await record(sender, ALICE, 5)
    await begin_second_epoch(sender)
    await record(sender, ALICE, 4, first=5)
    await sender.client.post("/seen", json={"cursors": ["customer:alice=2.6+8"]})
    new, old = await ask(sender, "customer:alice", "customer:alice=1.7")
    assert (new["after"], new["seen"], seqs(new)) == ("customer:alice=2.6", "customer:alice=2.6+8", [7, 8, 9])
    assert (old["reset"], old["as_of"]) == ("epoch", "customer:alice=2.6")


@postgres_is_long
async def test_channel_that_the_backup_did_not_have_begins_before_its_first_event(
    sender: RunningSender,
) -> None:
    await begin_second_epoch(sender)
    await record(sender, ALICE, 1)
    await record(sender, MENU, 1)
    for answer in await ask(sender, "customer:alice=1.3", "customer:alice=1.0", "topic:menu=1.3"):
        assert (answer["reset"], answer["as_of"]) == ("epoch", f"{answer['channel']}=2.0")


@postgres_is_long
async def test_place_of_a_past_epoch_continues_at_the_head_if_what_moved_may_have_been_shown(
    sender: RunningSender,
) -> None:
    await record(sender, ALICE, 3)
    await begin_second_epoch(sender)
    await sender.database.write(lambda connection: generation.begin_epoch(connection, after=2))
    await record(sender, ALICE, 2, first=3)
    await sender.database.write(lambda connection: generation.begin_epoch(connection, after=3))
    (answer,) = await ask(sender, "customer:alice=3.5")
    assert (answer["reset"], answer["as_of"]) == ("epoch", "customer:alice=4.5")


@postgres_is_long
async def test_alert_of_a_past_epoch_can_be_sent_again(sender: RunningSender) -> None:
    await sender.place("1")
    await sender.complete("1")
    await begin_second_epoch(sender)
    sent = await sender.client.post("/resends", json={"order_id": "1"})
    assert sent.is_success, sent.text
    (answer,) = await ask(sender, "customer:alice=1.1")
    assert (answer["reset"], answer["as_of"]) == ("epoch", "customer:alice=2.1")
    (rest,) = await ask(sender, answer["as_of"])
    assert [event["data"]["order_id"] for event in rest["events"]] == ["1"]


@postgres_is_long
async def test_alert_of_a_past_epoch_does_not_count_as_seen_with_the_new_ones(sender: RunningSender) -> None:
    await record(sender, ALICE, 2)
    await begin_second_epoch(sender)
    await record(sender, ALICE, 1, first=2)
    await sender.client.post("/seen", json={"cursors": ["customer:alice=2.3"]})

    def states(connection: Connection) -> list[alerts.State | None]:
        return [alerts.state_of(connection, ALICE, seq, now=sender.clock()) for seq in (2, 3)]

    assert await sender.database.read(states) == [alerts.State.UNSEEN, alerts.State.SEEN]


async def test_events_follow_the_cursor_without_a_hole(sender: RunningSender) -> None:
    await record(sender, ALICE, 5)
    (answer,) = await ask(sender, "customer:alice=1.2")
    assert seqs(answer) == [3, 4, 5]
    assert answer["after"] == "customer:alice=1.2"
    assert answer["as_of"] == "customer:alice=1.5"
    assert answer["reset"] is None


async def test_channel_alone_means_from_the_seen_cursor_and_a_topic_from_now(sender: RunningSender) -> None:
    await record(sender, ALICE, 3)
    await record(sender, MENU, 3)
    await sender.client.post("/seen", json={"cursors": ["customer:alice=1.2"]})
    alice, menu, bob = await ask(sender, "customer:alice", "topic:menu", "customer:bob")
    assert (alice["after"], alice["seen"], seqs(alice)) == ("customer:alice=1.2", "customer:alice=1.2", [3])
    assert (menu["after"], menu["seen"], seqs(menu)) == ("topic:menu=1.3", None, [])
    assert (bob["after"], bob["as_of"]) == ("customer:bob=1.0", "customer:bob=1.0")


async def test_a_channel_may_be_asked_for_at_several_places(sender: RunningSender) -> None:
    await record(sender, ALICE, 3)
    answers = await ask(sender, "customer:alice=1.2", "customer:alice=1.0", "customer:alice")
    assert [seqs(answer) for answer in answers] == [[3], [1, 2, 3], [1, 2, 3]]


@pytest.mark.parametrize(("cursor", "reset"), [("1.4", "future"), ("2.1", "epoch"), ("1.0", "pruned")])
@postgres_is_long
async def test_cursor_that_cannot_be_honoured_is_reset_and_the_others_are_answered(
    sender: RunningSender, cursor: str, reset: str
) -> None:
    await record(sender, ALICE, 3)
    await prune_first(sender, 1)
    await record(sender, MENU, 1)
    alice, menu = await ask(sender, f"customer:alice={cursor}", "topic:menu=1.0")
    assert (alice["reset"], alice["events"], alice["as_of"]) == (reset, [], "customer:alice=1.3")
    assert seqs(menu) == [1]


@postgres_is_long
async def test_limit_holds_for_each_channel(sender: RunningSender) -> None:
    await record(sender, ALICE, 5)
    await record(sender, MENU, 2)
    alice, menu = await ask(sender, "customer:alice=1.1", "topic:menu=1.0", limit=3)
    assert (seqs(alice), alice["as_of"]) == ([2, 3, 4], "customer:alice=1.5")
    assert seqs(menu) == [1, 2]


async def read(sender: RunningSender, sizes: Sizes, **after: Place) -> list[ChannelHistory]:
    """Read as the API does, with other sizes; channels are named by the part after `_`."""
    requests = [Request(Channel(name.replace("_", ":")), place) for name, place in after.items()]
    return await sender.database.read(partial(history.read, requests=requests, limit=100, sizes=sizes))


async def test_reading_in_rounds_loses_and_repeats_nothing(sender: RunningSender) -> None:
    await record(sender, ALICE, 7)
    await record(sender, MENU, 4)
    answers = await read(sender, Sizes(at_once=3), customer_alice=Place(1, 0), topic_menu=Place(1, 1))
    assert [[entry.place.seq for entry in answer.entries] for answer in answers] == [
        [1, 2, 3, 4, 5, 6, 7],
        [2, 3, 4],
    ]


async def test_large_events_end_an_answer_early_and_without_a_hole(sender: RunningSender) -> None:
    sizes, zero = Sizes(channel_bytes=5_000, all_bytes=9_000, at_once=4), Place(1, 0)
    for channel in (ALICE, MENU, Channel("topic:third")):
        await record(sender, channel, 9, size=1_000)
    answers = await read(sender, sizes, customer_alice=zero, topic_menu=zero, topic_third=zero)
    found = [[entry.place.seq for entry in answer.entries] for answer in answers]
    assert found == [[1, 2, 3, 4, 5], [1, 2, 3], []]
    assert [answer.reset for answer in answers] == [None, None, None]


async def test_five_hundred_channels_are_one_request(sender: RunningSender) -> None:
    for number in range(0, 500, 50):
        await record(sender, Channel(f"customer:{number}"), 2)
    answers = await ask(sender, *(f"customer:{number}=1.0" for number in range(500)))
    assert [seqs(answer) for answer in answers] == [[1, 2] if n % 50 == 0 else [] for n in range(500)]


@one_database
async def test_more_channels_are_refused(sender: RunningSender) -> None:
    after = [f"customer:{number}" for number in range(501)]
    response = await sender.client.post("/history", json={"after": after})
    assert response.status_code == 400


@one_database
@pytest.mark.parametrize(
    "cursor", ["", "alice", "customer:", "customer:alice=1", "customer:alice=0.1", "topic:a b"]
)
async def test_garbage_cursor_is_refused(sender: RunningSender, cursor: str) -> None:
    response = await sender.client.post("/history", json={"after": [cursor]})
    assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")


@postgres_is_long
async def test_stored_text_is_embedded_as_it_is(sender: RunningSender) -> None:
    await record(sender, ALICE, 1)
    (entry,) = await sender.database.read(
        lambda connection: history.read(connection, [Request(ALICE, Place(1, 0))], limit=1)[0].entries
    )
    response = await sender.client.post("/history", json={"after": ["customer:alice=1.0"]})
    assert entry.text in response.content


class TestOneChannel:
    async def get(self, sender: RunningSender, path: str, **query: str) -> Any:
        return await sender.client.get(f"/channels/{path}/events", params=query)

    @postgres_is_long
    async def test_starts_at_the_oldest_kept(self, sender: RunningSender) -> None:
        await record(sender, ALICE, 4)
        await prune_first(sender, 2)
        answer = (await self.get(sender, "customer:alice", limit="1")).json()
        assert seqs(answer) == [3]
        assert (answer["cursor"], answer["as_of"]) == ("customer:alice=1.3", "customer:alice=1.4")
        answer = (await self.get(sender, "customer:alice", after=answer["cursor"])).json()
        assert (seqs(answer), answer["cursor"]) == ([4], "customer:alice=1.4")
        answer = (await self.get(sender, "customer:alice", after=answer["cursor"])).json()
        assert (seqs(answer), answer["cursor"]) == ([], "customer:alice=1.4")

    @pytest.mark.parametrize(("cursor", "reset"), [("1.9", "future"), ("7.1", "epoch"), ("1.1", "pruned")])
    @postgres_is_long
    async def test_cursor_that_cannot_be_honoured_is_gone(
        self, sender: RunningSender, cursor: str, reset: str
    ) -> None:
        await record(sender, ALICE, 4)
        await prune_first(sender, 2)
        response = await self.get(sender, "customer:alice", after=f"customer:alice={cursor}")
        assert response.status_code == 410
        assert response.json()["as_of"] == "customer:alice=1.4"
        assert response.json()["reset"] == reset

    @one_database
    async def test_cursor_of_another_channel_is_refused(self, sender: RunningSender) -> None:
        response = await self.get(sender, "customer:alice", after="customer:bob=1.0")
        assert (response.status_code, response.json()["type"]) == (
            400,
            "urn:orderbell:problem:invalid-cursor",
        )

    @one_database
    @pytest.mark.parametrize(
        "channel", ["alice", "customer:", "customer:a%0Ab", "user:alice", "customer:%C3", "customer%3Aa%7Cb"]
    )
    async def test_bad_channel_name_is_refused(self, sender: RunningSender, channel: str) -> None:
        response = await self.get(sender, channel)
        assert (response.status_code, response.json()["type"]) == (
            400,
            "urn:orderbell:problem:invalid-channel",
        )


async def test_refill_reads_no_further_back_than_history_is_kept(sender: RunningSender) -> None:
    await record(sender, ALICE, 4)
    await prune_first(sender, 2)
    found = await sender.database.read(partial(history.read_some, wanted={ALICE: range(0, 4)}))
    assert [entry.place.seq for entry in found[ALICE]] == [3, 4]
