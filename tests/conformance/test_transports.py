"""Delivering, resuming, ending: what each transport must do, whatever its wire looks like."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import httpx2
import pytest

from receiver.connections.connection import End
from tests.conformance.conftest import DRIVERS, Shop, two_quick
from tests.processes import Processes
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from shared.commands.embedded import EmbeddedServer
    from tests.conformance.client import Client, Driver
    from tests.processes import ReceiverProcess, SenderProcess

pytestmark = pytest.mark.anyio


async def test_hello_is_first_and_says_where_the_connection_starts(
    driver: Driver, gateway: ReceiverProcess, customer: str, token: str
) -> None:
    async with driver.connected(gateway, token) as client:
        assert client.notices[0]["type"] == "orderbell.hello"
        hello = client.notices[0]["data"]
        assert hello["cursor"] == f"customer:{customer}=1.0,topic:{customer}=1.0"
        assert hello["channels"] == [f"customer:{customer}", f"topic:{customer}"]
        assert (hello["heartbeat_seconds"], bool(hello["gateway"])) == (20, True)


async def test_events_come_in_their_order_each_once_to_each_device_and_to_nobody_else(
    driver: Driver, gateway: ReceiverProcess, shop: Shop, customer: str, module_processes: Processes
) -> None:
    token, other = module_processes.token(customer), module_processes.token(f"{customer}-other")
    async with (
        driver.connected(gateway, token) as one,
        driver.connected(gateway, token) as two,
        driver.connected(gateway, other) as stranger,
    ):
        await shop.complete(customer, 5)
        await shop.complete(f"{customer}-other")
        for client in (one, two):
            await client.receive_events(5)
            assert client.seqs == [1, 2, 3, 4, 5]
            assert client.events[0]["channel"] == f"customer:{customer}"
            assert client.events[0]["type"] == "order.completed"
        await stranger.receive_events(1)
        assert [event["channel"] for event in stranger.events] == [f"customer:{customer}-other"]


async def test_topic_comes_to_all_whose_token_names_it(
    driver: Driver, gateway: ReceiverProcess, shop: Shop, customer: str, module_processes: Processes
) -> None:
    tokens = [module_processes.token(f"{customer}-{n}", topics=[customer]) for n in range(3)]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(driver.connected(gateway, token)) for token in tokens]
        await shop.post(f"topic:{customer}", 3)
        for client in clients:
            await client.receive_events(3)
            assert client.seqs == [1, 2, 3]


async def test_client_that_comes_back_with_its_cursor_gets_what_it_missed_on_either_gateway(
    driver: Driver,
    gateway: ReceiverProcess,
    other_gateway: ReceiverProcess,
    shop: Shop,
    customer: str,
    token: str,
) -> None:
    async with driver.connected(gateway, token) as client:
        await shop.complete(customer, 2)
        await shop.post(f"topic:{customer}", 1)
        await client.receive_events(3)
        cursor = client.cursor
    await shop.complete(customer, 3)
    await shop.post(f"topic:{customer}", 2)
    for home in (gateway, other_gateway):
        async with driver.connected(home, token, after=cursor) as back:
            await back.receive_events(5)
            assert back.seqs_of(f"customer:{customer}") == [3, 4, 5]
            assert back.seqs_of(f"topic:{customer}") == [2, 3]


async def test_cursor_of_a_client_of_one_kind_serves_one_of_any_other(
    driver: Driver, gateway: ReceiverProcess, shop: Shop, customer: str, token: str
) -> None:
    await shop.complete(customer, 1)
    async with driver.connected(gateway, token, after=f"customer:{customer}=1.0") as client:
        await client.receive_events(1)
        cursor = client.cursor
    await shop.complete(customer, 1)
    for other in DRIVERS:
        async with other.connected(gateway, token, after=cursor) as back:
            await back.receive_events(1)
            assert back.seqs == [2]


async def test_what_was_missed_comes_before_what_is_live_without_gap_or_repeat(
    driver: Driver, gateway: ReceiverProcess, shop: Shop, customer: str, token: str
) -> None:
    await shop.post(f"customer:{customer}", 300)
    posting = asyncio.create_task(_post_one_by_one(shop, customer, 30))
    async with driver.connected(gateway, token, after=f"customer:{customer}=1.0") as client:
        await posting
        await client.receive_events(330)
        assert client.seqs == list(range(1, 331))


async def _post_one_by_one(shop: Shop, customer: str, count: int) -> None:
    for _ in range(count):
        await shop.post(f"customer:{customer}", 1)


@pytest.mark.parametrize(("place", "reason"), [("1.900", "future"), ("7.1", "epoch")])
async def test_cursor_that_cannot_be_honoured_gets_a_reset_and_what_comes_then(
    driver: Driver,
    gateway: ReceiverProcess,
    shop: Shop,
    customer: str,
    token: str,
    place: str,
    reason: str,
) -> None:
    async with driver.connected(gateway, token, after=f"customer:{customer}={place}") as client:
        assert await client.receive_notice("reset") == {
            "channel": f"customer:{customer}",
            "reason": reason,
            "cursor": f"customer:{customer}=1.0",
            "refetch": f"/orders?customer_id={customer}",
        }
        await shop.complete(customer)
        await client.receive_events(1)
        assert client.seqs == [1]


async def test_what_one_device_has_shown_the_other_learns_and_a_new_one_does_not_get(
    driver: Driver,
    gateway: ReceiverProcess,
    other_gateway: ReceiverProcess,
    shop: Shop,
    customer: str,
    module_processes: Processes,
) -> None:
    token = module_processes.token(customer)
    async with driver.connected(gateway, token) as one, driver.connected(other_gateway, token) as other:
        await shop.complete(customer, 2)
        await one.receive_events(2)
        await one.report_seen(f"customer:{customer}=1.2")
        assert await other.receive_notice("seen") == {"cursor": f"customer:{customer}=1.2"}
    await shop.complete(customer)
    async with driver.connected(other_gateway, token) as new:
        await new.receive_events(1)
        assert new.seqs == [3]


async def test_later_event_seen_first_is_reported_alone_and_the_earlier_still_comes(
    driver: Driver,
    gateway: ReceiverProcess,
    other_gateway: ReceiverProcess,
    shop: Shop,
    customer: str,
    module_processes: Processes,
) -> None:
    token, channel = module_processes.token(customer), f"customer:{customer}"
    async with driver.connected(gateway, token) as one, driver.connected(other_gateway, token) as other:
        await shop.complete(customer, 3)
        await one.receive_events(3)
        await one.report_seen_alone(f"{channel}=1.2")
        notice = await other.receive_notice("seen")
        while not (notice := other.noticed("seen")[-1]).get("seen"):
            await other.receive()
        assert notice == {"cursor": f"{channel}=1.0", "seen": f"{channel}=1.0+2"}
    async with driver.connected(other_gateway, token) as new:
        # Before the events: nothing pops up meanwhile.
        await new.receive_events(3)
        assert new.noticed("hello")[0]["cursor"] == f"{channel}=1.0"
        assert new.noticed("seen") == [{"cursor": f"{channel}=1.0", "seen": f"{channel}=1.0+2"}]
        assert new.seqs == [1, 2, 3]
        await new.report_seen(f"{channel}=1.1")
        while new.noticed("seen")[-1] != {"cursor": f"{channel}=1.2"}:
            await new.receive()
    async with driver.connected(gateway, token) as last:
        await last.receive_events(1)
        assert last.seqs == [3]  # 1 and 2 make one piece, in whatever order they were reported


async def test_cursor_that_no_event_ever_had_is_a_bad_message(
    driver: Driver, gateway: ReceiverProcess, token: str
) -> None:
    async with driver.connected(gateway, token, after="garbage", greeted=False) as client:
        assert await client.receive_end() is End.BAD_MESSAGE
        assert client.notices == []


async def test_cursor_of_a_channel_that_the_token_does_not_name_is_forbidden(
    driver: Driver, gateway: ReceiverProcess, shop: Shop, customer: str, token: str
) -> None:
    await shop.complete(f"{customer}-other")
    after = f"customer:{customer}-other=1.0"
    async with driver.connected(gateway, token, after=after, greeted=False) as client:
        assert await client.receive_end() is End.FORBIDDEN
        assert (client.notices, client.events) == ([], [])


async def test_token_that_proves_nothing_is_unauthenticated(driver: Driver, gateway: ReceiverProcess) -> None:
    async with driver.connected(gateway, "not-a-token", greeted=False) as client:
        assert await client.receive_end() is End.UNAUTHENTICATED


@pytest.fixture(scope="module")
def watchful_gateway(module_processes: Processes, sender: SenderProcess) -> ReceiverProcess:
    """A gateway checks its connections' tokens each second."""
    return module_processes.start_receiver(sender=sender, heartbeat_seconds="1")


async def test_48_connection_ends_with_its_token(
    driver: Driver, customer: str, module_processes: Processes, watchful_gateway: ReceiverProcess
) -> None:
    token = module_processes.token(customer, lifetime_seconds=-28)  # and 30 seconds of leeway
    async with driver.connected(watchful_gateway, token) as client:
        assert await client.receive_end() is End.UNAUTHENTICATED


async def test_erased_customers_connections_end_and_nobody_elses(
    driver: Driver, gateway: ReceiverProcess, shop: Shop, customer: str, module_processes: Processes
) -> None:
    token, other = module_processes.token(customer), module_processes.token(f"{customer}-other")
    async with (
        driver.connected(gateway, token) as erased,
        driver.connected(gateway, other) as stays,
    ):
        await shop.complete(customer)
        await erased.receive_events(1)
        assert (await shop.http.delete(f"/customers/{customer}")).status_code == 200
        assert await erased.receive_end() is End.UNAUTHENTICATED
        await shop.complete(f"{customer}-other")
        await stays.receive_events(1)


async def test_revoked_customers_connections_end_on_each_gateway_within_a_second_and_nobody_elses(
    driver: Driver,
    gateway: ReceiverProcess,
    other_gateway: ReceiverProcess,
    shop: Shop,
    customer: str,
    module_processes: Processes,
) -> None:
    token, other = module_processes.token(customer), module_processes.token(f"{customer}-other")
    async with (
        driver.connected(gateway, token) as one,
        driver.connected(other_gateway, token) as two,
        driver.connected(gateway, other) as stays,
    ):
        await _revoke(shop.http, customer, (one, two))
        async with driver.connected(gateway, token, greeted=False) as again:
            assert await again.receive_end() is End.UNAUTHENTICATED
        await shop.complete(f"{customer}-other")
        await stays.receive_events(1)


async def _revoke(http: httpx2.AsyncClient, customer: str, clients: Iterable[Client]) -> None:
    """Revoke all tokens of the customer until now; each client's connection then ends soon."""
    started = time.monotonic()
    revoked = {"customer_id": customer, "issued_before": time.time() + 1}  # `iat` is in whole seconds
    assert (await http.post("/revocations", json=revoked)).status_code == 200
    for client in clients:
        assert await client.receive_end() is End.UNAUTHENTICATED
    # A second is promised and an idle machine needs half of one; busy ones get more.
    assert time.monotonic() - started < 8


@pytest.fixture(scope="module")
def narrow_gateway(module_processes: Processes, sender: SenderProcess) -> ReceiverProcess:
    return module_processes.start_receiver(sender=sender, max_connections_per_customer="2")


async def test_connection_beyond_a_customers_limit_is_refused_and_leaves_the_others(
    driver: Driver, customer: str, token: str, shop: Shop, narrow_gateway: ReceiverProcess
) -> None:
    gateway = narrow_gateway
    async with driver.connected(gateway, token), driver.connected(gateway, token) as second:
        async with driver.connected(gateway, token, greeted=False) as third:
            assert await third.receive_end() is End.TOO_MANY_CONNECTIONS
        await shop.complete(customer)
        await second.receive_events(1)
    async with driver.connected(gateway, token):
        pass


async def test_41_client_that_does_not_read_is_ended_and_holds_up_nobody(
    driver: Driver, gateway: ReceiverProcess, shop: Shop, customer: str, token: str
) -> None:
    before = _ended(gateway, driver.code(End.SLOW))
    async with (
        driver.connected(gateway, token, buffered=False),
        driver.connected(gateway, token) as other,
    ):
        sent = 0
        while _ended(gateway, driver.code(End.SLOW)) == before:
            assert sent < 400, "nothing ends it"
            await shop.post(f"customer:{customer}", 10, size=60_000)
            sent += 10
            await other.receive_events(sent)
        assert other.seqs == list(range(1, sent + 1))


def _ended(gateway: ReceiverProcess, code: str) -> int:
    """The number of connections that ended in this way."""
    text = httpx2.get(f"{gateway.url}/metrics", trust_env=False).text
    found = re.search(rf'orderbell_connections_closed_total\{{code="{code}"\}} (\d+)', text)
    return int(found[1]) if found else 0


async def test_38_gateway_that_drains_says_goodbye_to_each(
    driver: Driver, customer: str, token: str, module_processes: Processes, sender: SenderProcess
) -> None:
    gateway = module_processes.start_receiver(sender=sender, drain_seconds="0.5")
    async with driver.connected(gateway, token) as one, driver.connected(gateway, token) as other:
        gateway.process.terminate()
        for client in (one, other):
            assert await client.receive_end() is End.RESTART
            assert 0 <= client.noticed("bye")[0]["retry_after_ms"] <= 2_000
        assert await asyncio.to_thread(gateway.process.wait, 15) == 0


@two_quick
async def test_connection_stays_and_is_served_while_redis_is_away_and_when_it_is_back(
    driver: Driver,
    redis_server: EmbeddedServer,
    key_prefix: str,
    tmp_path: Path,
    process_group: int,
) -> None:
    processes = Processes(redis_server.url, key_prefix, tmp_path, process_group)
    try:
        sender = processes.start_sender()
        gateway = processes.start_receiver()
        async with (
            httpx2.AsyncClient(
                base_url=sender.url, headers=processes.api_headers, trust_env=False, timeout=20
            ) as http,
            driver.connected(gateway, processes.token("alice")) as client,
        ):
            shop = Shop(http)
            await shop.complete("alice")
            await client.receive_events(1)
            redis_server.kill()
            await shop.complete("alice")
            await client.receive_events(2)
            async with driver.connected(gateway, processes.token("alice"), after=client.cursor) as late:
                await shop.complete("alice")
                await late.receive_events(1)
                assert late.seqs == [3]
            async with driver.connected(gateway, processes.token("bob")) as revoked:
                await _revoke(http, "bob", [revoked])
            redis_server.start()
            await await_until(lambda: gateway.answers("/readyz"))
            await shop.complete("alice")
            await client.receive_events(4)
            assert client.seqs == [1, 2, 3, 4]
            assert client.noticed("reset") == []
    finally:
        processes.end()


async def test_log_line_of_a_connection_names_its_transport_and_nobody(
    driver: Driver, customer: str, token: str, module_processes: Processes, sender: SenderProcess
) -> None:
    gateway = module_processes.start_receiver(sender=sender)
    async with driver.connected(gateway, token):
        pass
    await await_until(lambda: gateway.records("connection closed"))
    assert gateway.records("connection closed")[0]["transport"] == driver.name
    ended = {record["connection"] for record in gateway.records("connection closed")}
    assert {record["connection"] for record in gateway.records("connection opened")} <= ended
    assert customer not in gateway.text()
    assert token not in gateway.text()
