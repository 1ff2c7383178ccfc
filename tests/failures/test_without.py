"""Every safeguard is needed: without it, a test or the checker misses a behaviour.

The tests pass with their safeguard in their own files; here they run without it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from receiver.subscription.subscription import Subscription
from shared.channels import customer_channel
from shared.cursors import Place
from shared.events import Entry
from shared.redis.channel_log import LogWriter, PublishAnswer
from shared.redis.keys import Names
from shared.redis.wire import Pipelines
from tests.catch_up import test_catch_up, test_rounds
from tests.chaos.proxy import How
from tests.chaos.without import SAFEGUARDS
from tests.claims import claim
from tests.failures import test_gateway as gateways
from tests.failures import test_redis as redises
from tests.failures import test_relay as relay
from tests.failures import test_sender as senders
from tests.failures.conftest import run_world
from tests.failures.pair import command
from tests.failures.proof import FAILS, SECONDS, fails, soon
from tests.senders import run_sender
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from redis.asyncio import Redis

    from receiver.gateway import Gateway
    from shared.commands.embedded import EmbeddedServer
    from tests.chaos.proxy import Proxy
    from tests.failures.conftest import World
    from tests.failures.pair import Pair

ALICE = customer_channel("alice")
JOINING_ENDS = "joining comes to an end"

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    soon(monkeypatch)


def drop_live(gateway: Gateway, seq: int) -> None:
    """The gateway does not hear that event, and its connection shows nothing."""
    subscription = gateway.keeper.subscription
    assert isinstance(subscription, Subscription)

    assert subscription._wire is not None
    take = subscription._wire._on_replies

    def take_others(replies: list[Any]) -> None:
        take([reply for reply in replies if not bytes(reply[2]).startswith(b"1 %d " % seq)])

    subscription._wire._on_replies = take_others


async def gap_is_filled(world: World) -> None:
    gateway = await world.gateway()
    drop_live(gateway.gateway, 2)
    async with gateway.connected() as browser:
        await world.complete("alice", "alice", "alice")
        with claim("what comes behind a gap waits until the gap is filled"):
            await browser.wait_seqs([1, 2, 3])


async def end_is_found(world: World) -> None:
    """Nothing follows the event that was not heard."""
    gateway = await world.gateway()
    drop_live(gateway.gateway, 2)
    async with gateway.connected() as browser:
        await world.complete("alice", "alice")
        with claim("an event that was not heard, and that nothing follows, is found"):
            await browser.wait_seqs([1, 2])


async def missed_while_cut_off(world: World) -> None:
    await redises.test_29_cut_connection_is_opened_again_and_what_was_missed_is_read(world, How.RESET)


async def in_each_direction(world: World) -> None:
    await redises.test_28_black_hole_on_the_way_to_redis_is_noticed_in_each_direction(world, "both")


async def poison_is_published_as_a_tombstone(world: World) -> None:
    await senders.record_poison(world, senders.POISON["too-large"])
    await world.complete("alice")
    await await_until(lambda: redises.logged(world) == [1, 2])
    entries = command(world.redis_server, "XRANGE", world.sender.names.log(ALICE), "-", "+")
    with claim("what no browser could take is published as a tombstone"):
        assert [b"orderbell.tombstone" in fields[b"e"] for _, fields in entries] == [True, False]


async def scripts_are_forgotten(world: World) -> None:
    """As by a server that was restarted; the first event finds the script."""
    with claim("a Redis that does not know the scripts is given them"):
        for seqs in ([1], [1, 2]):
            await world.complete("alice")
            await await_until(lambda seqs=seqs: redises.logged(world) == seqs)  # type: ignore[misc]
            command(world.redis_server, "SCRIPT", "FLUSH")


async def cursor_of_the_future(world: World) -> None:
    test = gateways.test_55_cursor_that_no_event_had_is_reset_and_served_from_there
    await test(world, "customer:alice=1.3", "future")


class Case(NamedTuple):
    test: Callable[[World], Awaitable[None]]
    missing: str


REFILLED = Case(
    redises.test_22_redis_that_restarts_empty_is_refilled_by_the_next_event,
    "the log has what Redis lost, for those who come now",
)
PRUNED = Case(
    senders.test_12_cursor_before_what_is_kept_is_reset_and_goes_on,
    "a cursor before what is kept is reset",
)
CASES = {
    "gap-answer": REFILLED,
    "refill": REFILLED,
    "pruned-note": PRUNED,
    "pruned-reset": PRUNED,
    "role-check": Case(
        redises.test_26_redis_that_becomes_a_replica_is_left_though_it_passes_probes_on,
        "a gateway that hears a replica is not ready",
    ),
    "tombstones": Case(
        poison_is_published_as_a_tombstone, "what no browser could take is published as a tombstone"
    ),
    "gap-repair": Case(gap_is_filled, "what comes behind a gap waits until the gap is filled"),
    "position-check": Case(end_is_found, "an event that was not heard, and that nothing follows, is found"),
    "newest-check": Case(
        redises.test_25_sender_that_alone_cannot_reach_redis_makes_alerts_late_and_not_wait,
        "what its sender cannot publish is pulled",
    ),
    "repeat-dropping": Case(
        gateways.test_51_event_that_is_heard_again_is_handed_over_once,
        "an event that is heard again is handed over once",
    ),
    "resubscription-catch-up": Case(missed_while_cut_off, "what was missed while cut off is read"),
    "probe": Case(in_each_direction, "silence on an open connection is noticed"),
    "pull-mode": Case(
        redises.test_27_frozen_redis_is_noticed_and_events_are_pulled_until_it_wakes,
        "events are pulled while Redis is silent",
    ),
    "log-check": Case(
        redises.test_32_log_trimmed_behind_a_cursor_is_never_skipped_silently,
        "what the log lacks comes from the history",
    ),
    "slow-close": Case(
        gateways.test_41_reader_too_slow_is_closed_with_4408_and_gets_the_rest_when_it_returns,
        "a reader that is too slow is closed",
    ),
    "script-reload": Case(scripts_are_forgotten, "a Redis that does not know the scripts is given them"),
    "future-reset": Case(cursor_of_the_future, "a cursor that no event had is reset"),
    "heartbeat": Case(
        gateways.test_44_client_that_vanished_is_dropped_and_what_it_was_sent_is_not_seen,
        "a client that is silent for two heartbeats is dropped",
    ),
    "frame-limit": Case(gateways.test_43_flood_of_fragments_is_refused, "a flood of frames is refused"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("safeguard", CASES)
async def test_without_it_the_behaviour_is_missing(
    safeguard: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    SAFEGUARDS[safeguard](monkeypatch.setattr)
    await fails(CASES[safeguard].test(world), CASES[safeguard].missing)


@pytest.mark.anyio
@pytest.mark.parametrize(("dup", "head"), [(True, b"3"), (False, b"1")])
async def test_without_dup_publishing_again_takes_from_redis_what_came_since(
    redis: Redis, key_prefix: str, monkeypatch: pytest.MonkeyPatch, *, dup: bool, head: bytes
) -> None:
    """A relay that wakes with stale work publishes it as if Redis had been emptied."""
    if not dup:
        SAFEGUARDS["dup-answer"](monkeypatch.setattr)
    entries = [Entry(Place(1, seq), b"{}") for seq in (1, 2, 3)]
    names = Names(key_prefix)
    async with Pipelines(redis) as pipelines:
        log = LogWriter(pipelines, names)
        await log.publish([(ALICE, entries)])
        (again,) = await log.publish([(ALICE, entries[:1])], restart=True)
    assert (again.answer is PublishAnswer.DUP) is dup
    assert await redis.hget(names.head(ALICE), "seq") == head


@pytest.mark.anyio
async def test_without_the_sweep_a_lost_tail_stays_lost(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    SAFEGUARDS["sweep"](monkeypatch.setattr)
    test = redises.test_24_customer_who_comes_after_the_fail_over_gets_the_tail_without_a_later_event
    await fails(test(pair), "a lost tail is published again though nothing follows it")


@pytest.mark.anyio
async def test_without_stale_an_epoch_that_is_over_is_published(
    redis_server: EmbeddedServer, key_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SAFEGUARDS["stale-answer"](monkeypatch.setattr)
    url = f"sqlite:///{tmp_path / 'orderbell.db'}"
    async with run_sender(url, redis_server.url, key_prefix, relaying=False) as sender:
        test = relay.test_15_relay_that_wakes_in_a_new_epoch_is_stale_and_changes_nothing
        await fails(test(sender, redis_server), "an epoch that is over is refused")


@pytest.mark.anyio
async def test_without_epoch_resets_a_restored_database_leaves_customers_silent(
    redis_server: EmbeddedServer,
    proxy: Proxy,
    key_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    anyio_backend: object,
) -> None:
    SAFEGUARDS["epoch-reset"](monkeypatch.setattr)
    url = f"sqlite:///{tmp_path / 'orderbell.db'}"
    async with run_world(redis_server, proxy, key_prefix, url) as world:
        await world.complete("alice")
        gateway = await world.gateway()
        async with gateway.connected(after="customer:alice=7.1") as browser:
            with pytest.raises(TimeoutError):
                await await_until(lambda: browser.resets, 2)


@pytest.mark.anyio
async def test_without_comparing_databases_one_that_went_back_is_not_noticed(
    redis_server: EmbeddedServer,
    proxy: Proxy,
    key_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    anyio_backend: object,
) -> None:
    """Its seqs have caught up, so nothing else looks wrong."""
    SAFEGUARDS["database-comparison"](monkeypatch.setattr)
    running = senders.test_07_restored_database_that_caught_up_before_redis_heard_of_it_is_noticed(
        redis_server, proxy, key_prefix, tmp_path / "orderbell.db", tmp_path / "backup.db", anyio_backend
    )
    await fails(running, "a database that went back resets who was ahead of it")


@pytest.mark.anyio
async def test_without_comparing_places_some_join_in_the_wrong_one(monkeypatch: pytest.MonkeyPatch) -> None:
    SAFEGUARDS["place-comparison"](monkeypatch.setattr)
    failed = 0
    for seed in range(20):
        running: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(1):
                await test_catch_up.test_40_catch_up_has_no_gap_and_no_repeat(seed, running)
        except FAILS:
            failed += 1
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert failed > 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("safeguard", "test", "behaviour"),
    [
        (
            "epoch-learning",
            test_rounds.test_epoch_that_is_learnt_of_resets_quiet_channels_too,
            "a new epoch moves quiet channels too",
        ),
        (
            "heard-comparison",
            test_rounds.test_message_of_an_event_that_never_was_does_not_hold_a_feed_up,
            "what was heard and never was is forgotten",
        ),
        (
            "alignment",
            test_catch_up.test_connection_that_knows_more_than_its_feed_brings_the_feed_along,
            JOINING_ENDS,
        ),
    ],
    ids=["epoch-learning", "heard-comparison", "alignment"],
)
async def test_without_it_catching_up_ends_elsewhere(
    safeguard: str,
    test: Callable[[list[asyncio.Task[None]]], Awaitable[None]],
    behaviour: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running: list[asyncio.Task[None]] = []
    SAFEGUARDS[safeguard](monkeypatch.setattr)
    try:
        await fails(_in_time(test(running)), behaviour)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _in_time(test: Awaitable[None]) -> None:
    with claim(JOINING_ENDS):
        async with asyncio.timeout(SECONDS + 1):  # more than the test's own conditions have
            await test


def test_checker_sees_what_is_shown_twice_where_nobody_drops_repeats(
    tmp_path: Path, process_group: int
) -> None:
    """An emptied Redis is refilled, and refilled events are live once more."""
    without = {"receiver": "repeat-dropping"}
    with gateways.small_run(tmp_path, process_group, without=without, dedupe=False) as run:
        run.sleep(2)
        with run.fault("redis emptied"):
            run.sleep(2)
        verdict = run.finish()
    assert verdict.twice > 0
    assert not verdict.kept


def test_browsers_drop_repeats_that_a_gateway_lets_through(tmp_path: Path, process_group: int) -> None:
    with gateways.small_run(tmp_path, process_group, without={"receiver": "repeat-dropping"}) as run:
        run.sleep(2)
        with run.fault("redis emptied"):
            run.sleep(2)
        verdict = run.finish()
    assert verdict.misplaced > 0
    assert not verdict.kept
    assert (verdict.shown > 0, verdict.lost, verdict.twice, verdict.out_of_order) == (True, 0, 0, 0)


def test_without_a_drain_everybody_is_cut_off_without_a_word(tmp_path: Path, process_group: int) -> None:
    with gateways.small_run(tmp_path, process_group, without={"receiver": "drain"}) as run:
        with run.fault("gateway drained", gateway=run.system.gateways[0]):
            run.system.gateways[0].process.wait(20)
        run.wait_connected()
        verdict = run.finish()
    assert 1012 not in verdict.ends
    assert verdict.kept, verdict.examples  # cursors see to that
