"""The gateway, its connections and their clients: 37 to 51, and 55."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from receiver.feeds.history import History
from receiver.transports.limits import CUSTOMERS
from shared.channels import customer_channel
from tests.chaos.run import Load, running
from tests.chaos.scenarios import closed_as_slow, post_large_event
from tests.chaos.slow_reader import SlowReader
from tests.claims import claim
from tests.failures.pair import command
from tests.failures.test_redis import logged
from tests.waiting import await_until, wait_until
from tests.websocket_client import connected

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.chaos.run import Run
    from tests.failures.conftest import World
    from tests.gateways import Browser
    from tests.processes import Processes

ALICE = customer_channel("alice")

STALL_SECONDS = 4.0
RECOVERED_SECONDS = 15.0  # on two busy cores; idle ones take one


def small_run(tmp_path: Path, process_group: int, **options: Any) -> AbstractContextManager[Run]:
    """Real processes, some clients, some orders."""
    load = Load(customers=30, rate=20, second_devices=5)
    return running(tmp_path, process_group, load=load, say=print, **options)


@pytest.mark.long
def test_37_gateway_killed_under_its_clients_costs_nobody_an_event(
    tmp_path: Path, process_group: int
) -> None:
    with small_run(tmp_path, process_group) as run:
        run.sleep(1)
        with run.fault("gateway killed", gateway=run.system.gateways[0]):
            wait_until(lambda: run.swarm.status().at_gateways[0] == 0)
            run.wait_connected()
        verdict = run.finish()
    assert verdict.kept, verdict.examples
    assert verdict.answered > 20
    (recovery,) = verdict.recoveries
    assert recovery.devices >= 15  # of its 35; `bench/storm.py` tries it with thousands
    assert recovery.worst < RECOVERED_SECONDS


@pytest.mark.long
def test_38_gateways_drained_one_after_the_other_say_goodbye_and_lose_nothing(
    tmp_path: Path, process_group: int
) -> None:
    with small_run(tmp_path, process_group, gateways=3, drain_seconds=1.0) as run:
        for gateway in run.system.gateways:
            run.sleep(0.5)
            with run.fault("gateway drained", gateway=gateway):
                assert gateway.process.wait(20) == 0
            run.wait_connected()
        verdict = run.finish()
    assert verdict.kept, verdict.examples
    assert set(verdict.ends) == {1012}


@pytest.mark.anyio
async def test_39_gateway_that_stalls_drops_nobody_and_catches_up(processes: Processes) -> None:
    sender = processes.start_sender()
    gateway = processes.start_receiver(heartbeat_seconds="3")
    async with (
        connected(gateway, processes.token("alice")) as browser,
        httpx2.AsyncClient(base_url=sender.url, headers=processes.api_headers, trust_env=False) as caller,
    ):
        gateway.stop()
        for number in ("1", "2"):
            await caller.post("/orders", json={"order_id": number, "customer_id": "alice"})
            await caller.post(f"/orders/{number}/complete")
        await asyncio.sleep(STALL_SECONDS)  # longer than a heartbeat, and longer than Redis may be silent
        gateway.resume()
        await browser.receive_events(2)
        await await_until(lambda: gateway.answers("/readyz"))
        await caller.post("/orders", json={"order_id": "3", "customer_id": "alice"})
        await caller.post("/orders/3/complete")
        await browser.receive_events(3)
        assert browser.seqs == [1, 2, 3]


@pytest.mark.anyio
async def test_41_reader_too_slow_is_closed_with_4408_and_gets_the_rest_when_it_returns(world: World) -> None:
    """Others of the same channel are not held up."""
    gateway = await world.gateway()
    async with gateway.connected(greeted=False, reading=False) as slow, gateway.connected() as other:
        number = 0
        while not slow.connection.closed:
            number += 1
            await world.sender.place(f"large-{number}", "alice")
            await world.sender.complete(f"large-{number}", json={"data": {"pad": "x" * 20_000}})
            await other.wait_seqs(list(range(1, number + 1)))
            with claim("a reader that is too slow is closed"):
                assert number < 200, "nobody closes it"
        # Without the limit it is closed too, on a busy machine: when a heartbeat is missing.
        with claim("a reader that is too slow is closed"):
            assert slow.connection.ending == (4408, "too slow")
        listening = asyncio.create_task(slow.listen())
        await slow.wait_close()
        assert slow.close == 4408
        had = slow.seqs[-1]
        assert slow.seqs == list(range(1, had + 1))
        listening.cancel()
        async with gateway.connected(after=f"customer:alice=1.{had}") as again:
            await again.wait_seqs(list(range(had + 1, number + 1)))


@pytest.mark.long
@pytest.mark.anyio
async def test_41_reader_of_one_kib_a_second_is_closed_and_holds_up_nobody(processes: Processes) -> None:
    """The client reads all the time but never catches up."""
    sender = processes.start_sender()
    gateway = processes.start_receiver()
    token = processes.token("alice")
    with (
        SlowReader(gateway.port, token, bytes_per_second=1024),
        httpx2.Client(base_url=sender.url, headers=processes.api_headers, trust_env=False) as caller,
    ):
        async with connected(gateway, token) as other:
            for number in range(1, 41):  # 2.4 MB, several times what may wait for one client
                await asyncio.to_thread(post_large_event, caller, "alice")
                await other.receive_events(number)
            assert other.seqs == list(range(1, 41))
            # It is counted when its socket has ended, which may take two seconds.
            await await_until(lambda: asyncio.to_thread(closed_as_slow, gateway))


@pytest.mark.anyio
async def test_43_flood_of_fragments_is_refused(world: World) -> None:
    gateway = await world.gateway()
    async with gateway.connected() as browser:
        for number in range(CUSTOMERS.frames_a_heartbeat + 1):
            if number == 0:
                browser.protocol.send_text(b"x", fin=False)
            else:
                browser.protocol.send_continuation(b"x", fin=False)
        await browser.send(b"".join(browser.protocol.data_to_send()))
        with claim("a flood of frames is refused"):
            assert await browser.wait_close() == 4429


@pytest.mark.anyio
async def test_44_client_that_vanished_is_dropped_and_what_it_was_sent_is_not_seen(world: World) -> None:
    gateway = await world.gateway()
    clock = gateway.gateway.clock
    async with gateway.connected(reading=False, greeted=False) as vanished:
        await await_until(lambda: vanished.connection.feeds and vanished.connection.feeds[0].live)
        await world.complete("alice")
        await await_until(lambda: logged(world) == [1])
        for _ in range(2 * len(clock._slots) + 1):  # two heartbeats without a pong
            clock.tick(asyncio.get_running_loop().time(), time.time())
        with claim("a client that is silent for two heartbeats is dropped"):
            assert vanished.connection.ending == (1006, "no heartbeat")
    async with gateway.connected() as back:
        await back.wait_seqs([1])


@pytest.mark.anyio
async def test_46_herd_that_comes_back_at_once_asks_the_sender_a_few_times_not_each_for_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = History._post

    async def ask_from_afar(self: History, *question: Any) -> bytes:
        await asyncio.sleep(0.05)  # so that all ask before there is an answer, even on a slow machine
        return await ask(self, *question)

    monkeypatch.setattr(History, "_post", ask_from_afar)
    customers = [f"c{number}" for number in range(400)]
    await world.complete(*customers[:20])
    command(world.redis_server, "FLUSHALL")  # so that only the sender knows
    gateway = await world.gateway()
    before = history_requests(world)
    async with AsyncExitStack() as stack:
        browsers = [
            await stack.enter_async_context(gateway.connected(customer, greeted=False))
            for customer in customers
        ]
        for browser in browsers:
            await browser.wait_greeted()
        for browser in browsers[:20]:
            await browser.wait_seqs([1])
        assert history_requests(world) - before < len(customers) / 4


def history_requests(world: World) -> float:
    return world.sender.counted.value(
        "orderbell_request_seconds_count", method="POST", route="/history", status="200"
    )


@pytest.mark.anyio
async def test_47_same_customer_at_two_gateways_is_served_by_each_alone(world: World) -> None:
    one, other = await world.gateway("one"), await world.gateway("other")
    async with other.connected() as stays:
        async with one.connected() as moves:
            await world.complete("alice")
            await moves.wait_seqs([1])
            await stays.wait_seqs([1])
            await report_seen(moves, "customer:alice=1.1")
            await await_until(lambda: stays.notices[-1]["type"] == "orderbell.seen")
            assert stays.notices[-1]["data"] == {"cursor": "customer:alice=1.1"}
        async with (
            other.connected() as new,  # which has nothing left to show
            other.connected(after="customer:alice=1.1") as moved,
        ):
            await world.complete("alice")
            await new.wait_seqs([2])
            await moved.wait_seqs([2])
            await stays.wait_seqs([1, 2])


async def report_seen(browser: Browser, cursor: str) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/tests", "type": "orderbell.seen"}
    browser.protocol.send_text(json.dumps(event | {"data": {"cursor": cursor}}).encode())
    await browser.send(b"".join(browser.protocol.data_to_send()))


@pytest.mark.anyio
async def test_50_clock_that_jumps_changes_neither_order_nor_what_is_new(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender's clock, and the time of day for everything in this process, the gateway included."""
    gateway = await world.gateway()
    clock, wall_clock, ahead = gateway.gateway.clock, time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: wall_clock() + ahead)
    async with gateway.connected() as browser:
        for hours in (0, -1, 2, -1):
            world.sender.clock.advance(hours=hours)
            ahead += hours * 3600
            await world.complete("alice")
            await await_until(lambda: browser.connection.heard)
            clock.tick(asyncio.get_running_loop().time(), time.time())
        await browser.wait_seqs([1, 2, 3, 4])
        await report_seen(browser, "customer:alice=1.3")
        assert browser.close is None
        async with gateway.connected(after="customer:alice=1.2") as late:
            await late.wait_seqs([3, 4])
        command(world.redis_server, "FLUSHALL")  # the history must know the order, too
        async with gateway.connected(after="customer:alice=1.0") as first:
            await first.wait_seqs([1, 2, 3, 4])


@pytest.mark.anyio
async def test_51_event_that_is_heard_again_is_handed_over_once(world: World) -> None:
    """As after a refill, which publishes again what an emptied Redis has lost."""
    gateway = await world.gateway()
    async with gateway.connected() as browser:
        await world.complete("alice", "alice")
        await browser.wait_seqs([1, 2])
        names = world.sender.names
        for seq, (_, fields) in enumerate(
            command(world.redis_server, "XRANGE", names.log(ALICE), "-", "+"), start=1
        ):
            command(world.redis_server, "PUBLISH", names.live(ALICE), b"1 %d %b" % (seq, fields[b"e"]))
        await world.complete("alice")
        with claim("an event that is heard again is handed over once"):
            await browser.wait_seqs([1, 2, 3])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        ("customer:alice=1.3", "future"),
        ("customer:alice=1.9007199254740991", "future"),
        ("customer:alice=9007199254740991.9007199254740991", "epoch"),
        ("customer:alice=7.1", "epoch"),
    ],
)
async def test_55_cursor_that_no_event_had_is_reset_and_served_from_there(
    world: World, cursor: str, reason: str
) -> None:
    await world.complete("alice", "alice")
    await await_until(lambda: logged(world) == [1, 2])
    gateway = await world.gateway()
    async with gateway.connected(after=cursor) as browser:
        with claim("a cursor that no event had is reset"):
            await await_until(lambda: browser.resets)
        assert (browser.resets[0]["reason"], browser.resets[0]["cursor"]) == (reason, "customer:alice=1.2")
        await world.complete("alice")
        await browser.wait_seqs([3])


@pytest.mark.anyio
async def test_55_cursor_of_somebody_else_is_forbidden_and_shows_nothing(world: World) -> None:
    await world.complete("bob")
    gateway = await world.gateway()
    async with gateway.connected("alice", after="customer:bob=1.0", greeted=False) as browser:
        assert await browser.wait_close() == 4403
        assert browser.events == []
        assert not browser.greeted
