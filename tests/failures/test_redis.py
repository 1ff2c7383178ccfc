"""Redis fails, or the way to it: 22 to 36."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest

from receiver import metrics
from receiver.feeds.rounds import Rounds
from sender.erasure import erase
from sender.publishing.sweep import Pace, Sweep
from shared.commands.embedded import EmbeddedServer, free_port
from shared.cursors import Place
from shared.redis.channel_log import LogReader
from shared.redis.wire import Pipelines
from tests.chaos.proxy import How, Toxics
from tests.chaos.system import BLACK_HOLE
from tests.chaos.without import SAFEGUARDS
from tests.claims import claim
from tests.failures.conftest import run_world
from tests.failures.pair import ALICE, command, head
from tests.redis_servers import binary
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from prometheus_client import Counter

    from receiver.feeds.feed import Feed
    from shared.channels import Channel
    from tests.chaos.proxy import Proxy
    from tests.failures.conftest import World
    from tests.failures.pair import Pair
    from tests.gateways import RunningGateway

pytestmark = pytest.mark.anyio


def count(counter: Counter) -> float:
    (metric,) = counter.collect()
    return sum(sample.value for sample in metric.samples if sample.name.endswith("_total"))


def logged(world: World) -> list[int]:
    """Seqs in Alice's log."""
    entries = command(world.redis_server, "XRANGE", world.sender.names.log(ALICE), "-", "+")
    return [int(entry_id.partition(b"-")[0]) for entry_id, _ in entries]


async def test_22_redis_that_restarts_empty_is_refilled_by_the_next_event(world: World) -> None:
    gateway = await world.gateway()
    async with gateway.connected() as browser:
        await world.complete("alice", "alice")
        await browser.wait_seqs([1, 2])
        world.redis_server.kill()
        await world.complete("alice")
        world.redis_server.start()
        await browser.wait_seqs([1, 2, 3])
        await world.complete("alice")
        await browser.wait_seqs([1, 2, 3, 4])
        with claim("the log has what Redis lost, for those who come now"):
            await await_until(lambda: logged(world) == [1, 2, 3, 4])


async def test_22_customer_without_a_later_event_has_what_was_lost_with_redis(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event is published into a Redis that dies before any gateway hears it; nothing follows, and nothing
    is pulled.
    """
    SAFEGUARDS["pull-mode"](monkeypatch.setattr)
    gateway = await world.gateway()
    async with gateway.connected() as browser:
        await world.complete("alice")
        await browser.wait_seqs([1])
        edge = world.edge("gateway")
        world.proxy.change(edge, up=BLACK_HOLE, down=BLACK_HOLE)
        await world.complete("alice")
        await await_until(lambda: head_is(world, Place(1, 2)))
        world.redis_server.kill()
        world.redis_server.start()
        assert browser.seqs == [1]
        world.proxy.cut(edge)  # and with it what the black hole has swallowed
        world.proxy.heal(edge)
        await browser.wait_seqs([1, 2])


async def test_22_customer_who_was_away_when_redis_lost_everything_has_it_on_return(world: World) -> None:
    """None of her devices is connected, nothing follows, and the gateway has long heard Redis again."""
    gateway = await world.gateway()
    async with gateway.connected() as browser:
        await world.complete("alice")
        await browser.wait_seqs([1])
    await world.complete("alice")
    await await_until(lambda: head_is(world, Place(1, 2)))
    world.redis_server.kill()
    await await_until(lambda: not gateway.hears)
    world.redis_server.start()
    await await_until(lambda: gateway.hears)
    async with gateway.connected(after="customer:alice=1.1") as browser:
        await browser.wait_seqs([2])
    async with gateway.connected() as other:  # another device of hers; nothing was seen
        await other.wait_seqs([1, 2])


async def head_is(world: World, place: Place, server: EmbeddedServer | None = None) -> bool:
    return await head(world, server) == place


class Durable(EmbeddedServer):
    """A Redis with an append-only file, as many run it."""

    def command(self) -> list[str]:
        return [*super().command(), "--appendonly", "yes", "--appendfsync", "everysec"]


@pytest.fixture
def durable(tmp_path: Path, process_group: int) -> Iterator[Durable]:
    path = binary()
    assert path is not None
    server = Durable(path.path, tmp_path, process_group=process_group)
    server.start()
    yield server
    server.kill()


async def test_23_last_second_missing_after_a_restart_comes_from_the_database(
    durable: Durable, proxy: Proxy, key_prefix: str, tmp_path: Path, anyio_backend: object
) -> None:
    """kill -9 alone loses nothing of the file, so the test cuts off what a power failure would lose."""
    async with run_world(durable, proxy, key_prefix, f"sqlite:///{tmp_path / 'o.db'}") as world:
        await world.complete(*["alice"] * 5)
        await await_until(lambda: head_is(world, Place(1, 5)))
        (log,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
        kept = log.stat().st_size
        await world.complete(*["alice"] * 3)
        await await_until(lambda: head_is(world, Place(1, 8)))
        durable.kill()
        with log.open("r+b") as file:
            file.truncate(kept)
        durable.start()
        assert await head(world) == Place(1, 5)
        gateway = await world.gateway()
        async with gateway.connected(after="customer:alice=1.5") as browser, sweeping(world):
            await browser.wait_seqs([6, 7, 8])


@asynccontextmanager
async def sweeping(world: World) -> AsyncIterator[None]:
    """Sweeps as a sender does, but more often."""
    async with Pipelines(world.redis) as pipelines:
        sender = world.sender
        log = LogReader(pipelines, sender.names)
        sweep = Sweep(
            sender.database,
            log,
            sender.relay.wake,
            sender.relay.floor,
            Pace(every_seconds=0.2),
        )
        task = asyncio.create_task(sweep.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def lose_tail(pair: Pair) -> None:
    """Alice has 20 events, of which the new primary knows 10."""
    world = pair.world
    await world.complete(*["alice"] * 10)
    await pair.wait_follows(Place(1, 10))
    pair.detach()
    await world.complete(*["alice"] * 10)
    await await_until(lambda: head_is(world, Place(1, 20)))
    pair.primary.kill()
    pair.fail_over()


async def test_24_fail_over_that_lost_the_tail_repeats_nothing_and_loses_nothing(pair: Pair) -> None:
    world = pair.world
    gateway = await world.gateway()
    async with gateway.connected() as browser:
        await lose_tail(pair)
        await browser.wait_seqs(list(range(1, 21)))
        await world.complete("alice")
        await browser.wait_seqs(list(range(1, 22)))
        async with gateway.connected(after="customer:alice=1.15") as late:
            await late.wait_seqs(list(range(16, 22)))
    await await_until(lambda: logged(world) == list(range(1, 22)))


async def test_24_customer_who_comes_after_the_fail_over_gets_the_tail_without_a_later_event(
    pair: Pair,
) -> None:
    """Redis reports nothing after 10, and no other order is completed."""
    await lose_tail(pair)
    gateway = await pair.world.gateway()
    async with gateway.connected(after="customer:alice=1.10") as browser, sweeping(pair.world):
        with claim("a lost tail is published again though nothing follows it"):
            await browser.wait_seqs(list(range(11, 21)))


@pytest.mark.parametrize("had", [15, 20])
async def test_24_cursor_beyond_what_redis_knows_is_welcome(pair: Pair, had: int) -> None:
    """Before any sweep: the history proves that the customer is right, and the feed follows."""
    await lose_tail(pair)
    gateway = await pair.world.gateway()
    async with gateway.connected(after=f"customer:alice=1.{had}") as browser:
        await browser.wait_seqs(list(range(had + 1, 21)))
        await pair.world.complete("alice")
        await browser.wait_seqs(list(range(had + 1, 22)))
        assert browser.close is None


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each position check: whether it found that Redis lacks what was published."""
    found: list[bool] = []
    look = Rounds._look

    async def look_and_note(self: Rounds) -> None:
        await look(self)
        found.append(self._sources.behind)

    monkeypatch.setattr(Rounds, "_look", look_and_note)
    return found


async def test_25_split_brain_is_found_within_two_position_checks_and_loses_and_repeats_nothing(
    pair: Pair, looks: list[bool]
) -> None:
    """The relay is on the old primary, the gateway on the new one, until the split is mended."""
    world = pair.world
    gateway = await world.gateway()
    async with gateway.connected() as browser:
        await world.complete("alice", "alice")
        await browser.wait_seqs([1, 2])
        await pair.wait_follows(Place(1, 2))
        pair.detach()
        pair.promote(world.edge("gateway"))
        losses = count(metrics.subscription_losses)  # it is back sooner than two looks follow each other
        world.proxy.cut(world.edge("gateway"))
        await await_until(lambda: count(metrics.subscription_losses) > losses)
        await await_until(lambda: gateway.hears)
        await world.complete("alice", "alice")
        await await_until(lambda: world.sender.relay.newest.position == 4)
        before = len(looks)
        await browser.wait_seqs([1, 2, 3, 4])  # nothing is mended yet
        await await_until(lambda: True in looks[before:])
        assert looks.index(True, before) <= before + 2  # the first was under way
        assert await head(world, pair.replica) == Place(1, 2)
        assert gateway.hears
        assert gateway.gateway.hears
        world.proxy.retarget(world.edge("sender"), pair.replica.port)
        world.proxy.cut(world.edge("sender"))
        async with sweeping(world):
            await await_until(lambda: head_is(world, Place(1, 4), pair.replica))
            await await_until(lambda: not gateway.gateway.keeper.sources.behind)
        await world.complete("alice")
        await browser.wait_seqs([1, 2, 3, 4, 5])


async def test_25_sender_that_alone_cannot_reach_redis_makes_alerts_late_and_not_wait(world: World) -> None:
    gateway = await world.gateway()
    edge = world.edge("sender")
    async with gateway.connected() as browser:
        await world.complete("alice")
        await browser.wait_seqs([1])
        world.proxy.change(edge, up=BLACK_HOLE, down=BLACK_HOLE)
        await world.complete("alice")
        with claim("what its sender cannot publish is pulled"):
            await browser.wait_seqs([1, 2])
        assert gateway.gateway.hears
        assert await head(world) == Place(1, 1)
        world.proxy.cut(edge)
        world.proxy.heal(edge)
        await await_until(lambda: head_is(world, Place(1, 2)))
        await await_until(lambda: not gateway.gateway.keeper.sources.behind)
        await world.complete("alice")
        await browser.wait_seqs([1, 2, 3])


async def test_26_primary_that_was_frozen_and_replaced_is_left_though_its_connection_stays_open(
    pair: Pair,
) -> None:
    world = pair.world
    gateway = await world.gateway()
    async with gateway.connected() as browser:
        await world.complete("alice")
        await browser.wait_seqs([1])
        await pair.wait_follows(Place(1, 1))
        losses = count(metrics.subscription_losses)  # it may be back before anybody looks
        world.redis_server.stop()
        pair.fail_over()
        try:
            await await_until(lambda: count(metrics.subscription_losses) > losses)
            await await_until(lambda: gateway.hears)
            await world.complete("alice")
            await browser.wait_seqs([1, 2])
            # Perhaps pulled: the relay takes three seconds to notice that it gets no answer.
            await await_until(lambda: head_is(world, Place(1, 2), pair.replica))
        finally:
            pair.primary.resume()
        await world.complete("alice")
        await browser.wait_seqs([1, 2, 3])
        await await_until(lambda: head_is(world, Place(1, 3), pair.replica))


async def test_26_redis_that_becomes_a_replica_is_left_though_it_passes_probes_on(world: World) -> None:
    """Without sentinels or a cluster, only the server itself shows it; the new primary has the events."""
    gateway = await world.gateway()
    async with gateway.connected() as browser:
        await world.complete("alice")
        await browser.wait_seqs([1])
        command(world.redis_server, "REPLICAOF", "127.0.0.1", free_port())
        try:
            with claim("a gateway that hears a replica is not ready"):
                await await_until(lambda: not gateway.gateway.hears)
            await world.complete("alice")
            await browser.wait_seqs([1, 2])  # pulled
        finally:
            command(world.redis_server, "REPLICAOF", "NO", "ONE")
        await await_until(lambda: gateway.gateway.hears)
        await world.complete("alice")
        await browser.wait_seqs([1, 2, 3])


async def test_27_frozen_redis_is_noticed_and_events_are_pulled_until_it_wakes(world: World) -> None:
    gateway = await world.gateway()
    async with gateway.connected() as browser:
        world.redis_server.stop()
        try:
            await await_until(lambda: not gateway.gateway.hears)
            await world.complete("alice")
            with claim("events are pulled while Redis is silent"):
                await browser.wait_seqs([1])
        finally:
            world.redis_server.resume()
        await await_until(lambda: gateway.gateway.hears)
        await world.complete("alice")
        await browser.wait_seqs([1, 2])
        assert browser.close is None


@pytest.mark.parametrize("way", ["both", "up", "down"])
async def test_28_black_hole_on_the_way_to_redis_is_noticed_in_each_direction(world: World, way: str) -> None:
    gateway = await world.gateway()
    edge = world.edge("gateway")
    async with gateway.connected() as browser:
        world.proxy.change(edge, up=Toxics(black_hole=way != "down"), down=Toxics(black_hole=way != "up"))
        with claim("silence on an open connection is noticed"):
            await await_until(lambda: not gateway.gateway.hears)
        await world.complete("alice")
        await browser.wait_seqs([1])
        world.proxy.heal(edge)
        await await_until(lambda: gateway.gateway.hears)
        await world.complete("alice")
        await browser.wait_seqs([1, 2])


@pytest.mark.parametrize("how", list(How))
async def test_29_cut_connection_is_opened_again_and_what_was_missed_is_read(world: World, how: How) -> None:
    gateway = await world.gateway()
    edge = world.edge("gateway")
    async with gateway.connected() as browser:
        await world.complete("alice")
        await browser.wait_seqs([1])
        world.proxy.change(edge, refuse=True)
        world.proxy.cut(edge, how)
        await await_until(lambda: not gateway.hears)
        await world.complete("alice", "alice")
        await await_until(lambda: logged(world) == [1, 2, 3])
        world.proxy.heal(edge)
        with claim("what was missed while cut off is read"):
            await browser.wait_seqs([1, 2, 3])
        await await_until(lambda: gateway.hears)


async def test_30_subscriber_that_redis_cuts_off_for_being_slow_misses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis drops what waits for a stalled subscriber, and its connection, without a notice.

    Nothing is pulled: what was dropped is read when Redis is heard again.
    """
    SAFEGUARDS["pull-mode"](monkeypatch.setattr)
    gateway = await world.gateway()
    edge = world.edge("gateway")
    command(world.redis_server, "CONFIG", "SET", "client-output-buffer-limit", "pubsub 65536 32768 1")
    async with gateway.connected() as browser:
        world.proxy.change(edge, down=BLACK_HOLE)  # as a gateway whose loop stalls
        large = {"data": {"pad": "x" * 30_000}}
        for number in range(80):
            await world.sender.place(f"large-{number}", "alice")
            await world.sender.complete(f"large-{number}", json=large)
        await await_until(lambda: not subscribers(world))
        world.proxy.cut(edge)  # which loses what was on its way
        world.proxy.heal(edge)
        # This is too much at once for one connection; with its cursor the client gets the rest.
        await await_until(lambda: len(browser.events) == 80 or browser.close == 4408)
        async with gateway.connected(after=f"customer:alice=1.{browser.seqs[-1]}") as again:
            await await_until(lambda: len(browser.events) + len(again.events) >= 80)
            assert browser.seqs + again.seqs == list(range(1, 81))


def subscribers(world: World) -> int:
    return len(command(world.redis_server, "CLIENT", "LIST", "TYPE", "pubsub").splitlines())


async def test_31_emptied_redis_is_asked_in_vain_and_the_history_answers(world: World) -> None:
    await world.complete("alice", "alice", "alice")
    await await_until(lambda: head_is(world, Place(1, 3)))
    command(world.redis_server, "FLUSHALL")
    gateway = await world.gateway()
    async with gateway.connected(after="customer:alice=1.1") as browser:
        await browser.wait_seqs([2, 3])
        command(world.redis_server, "FLUSHALL")
        await world.complete("alice")
        await browser.wait_seqs([2, 3, 4])


@pytest.mark.parametrize("lost", ["log", "head"])
async def test_31_key_that_alone_was_evicted_or_expired_hides_nothing(world: World, lost: str) -> None:
    await world.complete("alice", "alice", "alice")
    await await_until(lambda: head_is(world, Place(1, 3)))
    names = world.sender.names
    command(world.redis_server, "DEL", names.log(ALICE) if lost == "log" else names.head(ALICE))
    gateway = await world.gateway()
    async with gateway.connected(after="customer:alice=1.1") as browser:
        await browser.wait_seqs([2, 3])
        await world.complete("alice")
        await browser.wait_seqs([2, 3, 4])


async def test_32_log_trimmed_behind_a_cursor_is_never_skipped_silently(world: World) -> None:
    await world.complete(*["alice"] * 9)
    await await_until(lambda: head_is(world, Place(1, 9)))
    command(world.redis_server, "XTRIM", world.sender.names.log(ALICE), "MAXLEN", 1)
    gateway = await world.gateway()
    async with gateway.connected(after="customer:alice=1.2") as browser:
        with claim("what the log lacks comes from the history"):
            await browser.wait_seqs([3, 4, 5, 6, 7, 8, 9])
        assert browser.resets == []


async def test_34_password_changed_while_connected_is_pulled_around_until_it_fits_again(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Settings are read at start, so a new password needs a new start; meanwhile this gateway waits."""
    losses = ("redis is not heard", "redis takes no events")
    told: list[str] = []

    def times_told() -> list[int]:
        told.extend(capsys.readouterr().out.splitlines())
        return [sum(loss in line and "Authentication required" in line for line in told) for loss in losses]

    gateway = await world.gateway()
    async with gateway.connected() as browser:
        command(world.redis_server, "ACL", "SETUSER", "default", "resetpass", ">new")
        for edge in world.edges:
            world.proxy.cut(edge)
        await await_until(lambda: not gateway.gateway.hears)
        await world.complete("alice")
        await browser.wait_seqs([1])  # pulled
        await await_until(lambda: world.sender.relay.redis_up is False)
        await await_until(lambda: all(times_told()))  # the gateway tries again a moment after it was cut
        command(world.redis_server, "ACL", "SETUSER", "default", "nopass", password="new")
        await await_until(lambda: gateway.gateway.hears)
        await world.complete("alice")
        await browser.wait_seqs([1, 2])
    assert times_told() == [1, 1]  # once for each loss, however many attempts it took


async def test_36_what_somebody_else_publishes_is_dropped_and_counted(world: World) -> None:
    gateway = await world.gateway()
    async with gateway.connected() as browser:
        await world.complete("alice")
        await browser.wait_seqs([1])
        foreign = count(metrics.foreign)
        live = world.sender.names.live(ALICE)
        garbage = ["", "{}", "1 2", "1 2 ", "x y {}", "\x00\xff", "0 1 {}", "1 -2 {}", "seen", "seen 1 x"]
        for message in garbage:
            command(world.redis_server, "PUBLISH", live, message)
        # A place that no event has: the feed is repaired, and continues where it was.
        command(world.redis_server, "PUBLISH", live, '1 900719925474099 {"seq":900719925474099}')
        command(world.redis_server, "PUBLISH", live, '99 1 {"seq":1}')
        await world.complete("alice")
        await browser.wait_seqs([1, 2])
        assert count(metrics.foreign) == foreign + len(garbage)
        assert browser.close is None


async def test_customer_who_is_erased_while_redis_is_away_is_ended_once(world: World) -> None:
    gateway = await world.gateway()
    async with gateway.connected() as browser, gateway.connected("bob") as other:
        await world.complete("alice", "bob")
        await browser.wait_seqs([1])
        await other.wait_seqs([1])
        world.redis_server.stop()
        try:
            await await_until(lambda: not gateway.gateway.hears)
            erasing = asyncio.create_task(world.sender.client.delete("/customers/alice"))
            with claim("the history reports it"):
                assert await browser.wait_close() == 4401
            async with gateway.connected() as later:  # with a token that is still valid
                await world.complete("alice", "bob")
                await later.wait_seqs([2])
                await other.wait_seqs([1, 2])
                assert later.close is None
        finally:
            world.redis_server.resume()
        assert (await erasing).status_code == 200
    assert other.close in (None, 1000)


async def test_customer_without_an_event_who_is_erased_while_redis_is_away_is_ended(world: World) -> None:
    gateway = await world.gateway()
    await world.sender.client.post("/orders", json={"order_id": "open", "customer_id": "alice"})
    async with gateway.connected() as browser, gateway.connected("bob") as other:
        world.redis_server.stop()
        try:
            await await_until(lambda: not gateway.gateway.hears)
            erasing = asyncio.create_task(world.sender.client.delete("/customers/alice"))
            with claim("the history reports it"):
                assert await browser.wait_close() == 4401
            async with gateway.connected() as later:
                await world.complete("alice", "bob")
                await later.wait_seqs([1])
                await other.wait_seqs([1])
                assert later.close is None
        finally:
            world.redis_server.resume()
        assert (await erasing).json()["orders"] == 1


def feed_of(gateway: RunningGateway, channel: Channel) -> Feed:
    return next(feed for feed in gateway.gateway.keeper._hub.feeds if feed.channel == channel)


async def test_erasure_that_no_redis_reported_is_found_by_the_next_check(world: World) -> None:
    gateway = await world.gateway()
    async with gateway.connected() as browser:
        await world.complete("alice")
        await browser.wait_seqs([1])
        await await_until(lambda: not feed_of(gateway, ALICE).headless)
        # As if the notice had gone to another Redis, or to no gateway.
        await world.sender.database.write(partial(erase, customer_id="alice"))
        command(world.redis_server, "DEL", world.sender.names.head(ALICE), world.sender.names.log(ALICE))
        assert await browser.wait_close() == 4401
