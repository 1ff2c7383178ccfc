"""How many may connect: strangers never keep customers out, and no address takes more than its share."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from receiver.access.capacity import Capacity, Limits
from receiver.access.identity import Identity
from receiver.connections.connection import End
from shared.process.forwarded import Proxies
from shared.quota import Quota
from tests.connections import Handed
from tests.websocket_client import connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from websockets.asyncio.client import ClientConnection

    from tests.processes import Processes, ReceiverProcess

pytestmark = pytest.mark.anyio

MAX = 40


def capacity(count: int = 0, **limits: int) -> Capacity:
    return Capacity(Limits(**limits), Proxies(["10.0.0.1"]), lambda: count)


async def stranger(capacity: Capacity, address: str = "192.0.2.1") -> Handed:
    connection = Handed()
    connection.address = address
    capacity.enter(connection)
    return connection


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
    ],
)
def test_an_address_is_one_of_ipv4_or_a_network_of_ipv6(one: str, other: str, *, same: bool) -> None:
    assert (capacity().address(one) == capacity().address(other)) is same


def test_a_proxy_that_reports_no_client_and_a_unix_socket_are_exempt() -> None:
    assert capacity().address("10.0.0.1") == capacity().address("") == ""
    limited = capacity(handshakes_per_second_per_address=1, per_address=1)
    assert [limited.refusal("") for _ in range(100)] == [None] * 100


async def test_the_oldest_stranger_is_ended_for_one_more_and_never_a_customer() -> None:
    ours = capacity(connections=40, strangers=3)
    customer = await stranger(ours)
    customer.identity = Identity("alice", (), 4e9)
    ours.prove(customer)
    first, *others = [await stranger(ours, f"192.0.2.{n}") for n in range(4)]
    assert first.ends == [End.TRY_AGAIN_LATER]
    assert [one.ends for one in (customer, *others)] == [[]] * 4
    assert ours.strangers == 3


async def test_strangers_of_one_address_end_each_other_alone() -> None:
    ours = capacity(strangers_per_address=2)
    mine = await stranger(ours, "192.0.2.1")
    theirs = [await stranger(ours, "192.0.2.9") for _ in range(3)]
    assert [not one.ends for one in (mine, *theirs)] == [True, False, True, True]
    for one in (mine, *theirs):
        ours.leave(one)
    assert (ours.strangers, ours._of_address, ours._strangers_of) == (0, {}, {})


async def test_one_address_has_so_many_connections_and_others_theirs() -> None:
    ours = capacity(per_address=2)
    connections = [await stranger(ours, "192.0.2.1") for _ in range(2)]
    refusal = ours.refusal("192.0.2.1")
    assert refusal is not None
    assert (refusal.status, refusal.kind) == (429, "too-many-connections")
    assert ours.refusal("192.0.2.2") is None
    ours.leave(connections[0])
    assert ours.refusal("192.0.2.1") is None


def test_handshakes_of_one_address_are_bounded_and_ten_seconds_worth_may_come_at_once() -> None:
    ours = capacity(handshakes_per_second=100, handshakes_per_second_per_address=2)
    of_one = [ours.refusal("192.0.2.1") for _ in range(21)]
    assert of_one[:20] == [None] * 20
    last = of_one[20]
    assert last is not None
    assert (last.status, last.kind, last.headers) == (429, "too-many-handshakes", {"retry-after": "1"})
    assert ours.refusal("192.0.2.2") is None


def test_handshakes_in_all_are_bounded_in_each_second() -> None:
    ours = capacity(handshakes_per_second=3)
    of_others = [ours.refusal(f"192.0.2.{n}") for n in range(4)]
    assert of_others[:3] == [None] * 3
    last = of_others[3]
    assert last is not None
    assert (last.status, last.kind, last.headers) == (503, "too-many-handshakes", {"retry-after": "2"})


def test_a_charge_is_allowed_while_any_is_left_and_then_waits_for_all_of_it() -> None:
    now = 0.0
    quota = Quota(60, lambda: now)
    assert quota.charge("alice", 100) == 0
    assert quota.charge("alice", 1) == 40
    assert quota.charge("bob", 1) == 0
    now = 41
    assert quota.charge("alice", 1) == 0


# --- a real gateway


@pytest.fixture(scope="module")
def gateway(module_processes: Processes) -> ReceiverProcess:
    module_processes.start_sender()
    return module_processes.start_receiver(
        max_connections=str(MAX),
        max_unauthenticated_per_address="5",
        max_connections_per_address="8",
        replays_per_minute="20",
    )


async def tokenless(gateway: ReceiverProcess, address: str) -> ClientConnection:
    url = gateway.websocket_url
    headers = {"X-Forwarded-For": address}
    return await connect(url, subprotocols=["cloudevents.json"], additional_headers=headers, proxy=None)  # type: ignore[list-item]


@pytest.fixture
async def crowd(gateway: ReceiverProcess) -> AsyncIterator[list[ClientConnection]]:
    """As many connections as are allowed, each from its own address, and none with a token."""
    everybody = [await tokenless(gateway, f"198.51.100.{n}") for n in range(MAX)]
    yield everybody
    for one in everybody:
        await one.close()


async def test_customers_come_in_while_strangers_hold_whatever_they_may(
    gateway: ReceiverProcess, module_processes: Processes, crowd: list[ClientConnection]
) -> None:
    async with AsyncExitStack() as stack:
        for n in range(MAX * 3 // 4):
            headers = {"X-Forwarded-For": f"203.0.113.{n}"}
            token = module_processes.token(f"customer-{n}")
            await stack.enter_async_context(connected(gateway, token, headers=headers))


async def test_strangers_of_one_address_are_ended_before_their_time(gateway: ReceiverProcess) -> None:
    crowd = [await tokenless(gateway, f"2001:db8::{n:x}") for n in range(6)]
    with pytest.raises(ConnectionClosed) as caught:
        await asyncio.wait_for(crowd[0].recv(), 2)
    assert caught.value.rcvd is None or caught.value.rcvd.code == 1013
    for one in crowd:
        await one.close()


async def test_one_address_is_refused_with_429_and_when_to_come_back(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    token, headers = module_processes.token("alice"), {"X-Forwarded-For": "192.0.2.77"}
    async with AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(connected(gateway, token, headers=headers))
        with pytest.raises(InvalidStatus) as caught:
            await stack.enter_async_context(connected(gateway, token, headers=headers))
        assert caught.value.response.status_code == 429
        assert int(caught.value.response.headers["retry-after"]) > 0
        stream = httpx2.get(
            f"{gateway.url}/events",
            headers={"Accept": "text/event-stream", "Authorization": f"Bearer {token}", **headers},
            trust_env=False,
        )
        assert stream.status_code == 429
        async with connected(gateway, token, headers={"X-Forwarded-For": "192.0.2.78"}):
            pass


async def test_asking_for_the_whole_history_in_a_loop_ends_with_4429(
    gateway: ReceiverProcess, module_processes: Processes
) -> None:
    sender = module_processes._last_sender()
    assert sender is not None
    events = [
        {"specversion": "1.0", "id": f"{n}", "source": "/x", "type": "x", "channel": "customer:loop"}
        for n in range(15)
    ]
    answer = httpx2.post(
        f"{sender.url}/events",
        content=json.dumps(events),
        headers={
            "Authorization": f"Bearer {module_processes.api_key}",
            "Content-Type": "application/cloudevents-batch+json",
        },
        trust_env=False,
    )
    assert answer.status_code == 202, answer.text
    token = module_processes.token("loop")
    for n in range(3):
        async with connected(gateway, token, query="after=customer:loop%3D1.0") as client:
            if n < 2:
                await client.receive_events(15)
            else:
                code, reason = await client.receive_close()
                assert code == 4429
                assert "replayed" in reason
