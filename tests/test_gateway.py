"""One gateway in the test's process, beside a real sender and Redis."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import httpx2
import pytest
from structlog.testing import capture_logs

from receiver.connections.connection import End
from receiver.feeds.pace import Pace
from receiver.feeds.rounds import Rounds
from receiver.subscription.subscription import Subscription
from receiver.transports.websocket.close_codes import Close
from shared.channels import customer_channel
from shared.commands.embedded import free_port
from tests.gateways import run_gateway
from tests.senders import run_sender
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.gateways import Browser, RunningGateway
    from tests.senders import RunningSender

pytestmark = pytest.mark.anyio


@pytest.fixture
async def sender(
    tmp_path: Path, redis_url: str, key_prefix: str, anyio_backend: object
) -> AsyncIterator[RunningSender]:
    async with run_sender(f"sqlite:///{tmp_path / 'o.db'}", redis_url, key_prefix) as sender:
        yield sender


@pytest.fixture
async def gateway(sender: RunningSender, redis_url: str, key_prefix: str) -> AsyncIterator[RunningGateway]:
    async with run_gateway(sender.client, redis_url, key_prefix) as gateway:
        yield gateway


async def authenticate(browser: Browser, token: str) -> None:
    browser.protocol.send_text(b'{"type":"orderbell.auth","data":{"token":"%b"}}' % token.encode())
    await browser.send(b"".join(browser.protocol.data_to_send()))


async def complete(sender: RunningSender, order_id: str) -> None:
    await sender.place(order_id)
    assert (await sender.complete(order_id)).status_code == 200


async def test_token_that_the_verifier_stumbles_over_ends_its_own_connection_alone(
    gateway: RunningGateway, sender: RunningSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def verify(*, token: str, ticket: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(gateway.gateway.life._authentication, "verify", verify)
    async with AsyncExitStack() as stack:
        bad, good = [await stack.enter_async_context(gateway.connected()) for _ in range(2)]
        await authenticate(bad, "a-token")
        assert await bad.wait_close() == 1011
        await complete(sender, "1")
        await good.wait_seqs([1])


async def test_seen_that_a_stranger_publishes_hides_no_event_to_come(
    gateway: RunningGateway, sender: RunningSender
) -> None:
    async with gateway.connected() as browser:
        await complete(sender, "1")
        await browser.wait_seqs([1])
        live = sender.names.live(customer_channel("alice"))
        await sender.redis.publish(live, b"seen 1 900719925474099")
        await sender.redis.publish(live, b"seen 1 1")
        await await_until(lambda: browser.seen)
        await complete(sender, "2")
        await browser.wait_seqs([1, 2])
        assert browser.seen == ["customer:alice=1.1"]
    async with gateway.connected() as another:
        assert another.notices[0]["data"]["cursor"] == "customer:alice=1.1"
        await another.wait_seqs([2])


async def test_what_is_heard_in_one_read_leaves_in_its_order(
    gateway: RunningGateway, sender: RunningSender
) -> None:
    """Events wait until all of the read was examined; other messages must not overtake them."""
    subscription = gateway.gateway.keeper.subscription
    assert isinstance(subscription, Subscription)
    alice = sender.names.live(customer_channel("alice")).encode()
    async with gateway.connected() as browser:
        messages = (b'1 1 {"seq":1}', b'1 2 {"seq":2}', b"seen 1 2", b'1 3 {"seq":3}')
        subscription._take([[b"message", alice, message] for message in messages])
        await browser.wait_seqs([1, 2, 3])
        assert browser.types == ["orderbell.hello", "event", "event", "orderbell.seen", "event"]


async def test_loss_and_return_of_redis_each_begin_a_round_at_once(
    sender: RunningSender, redis_url: str, key_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = Pace(check_seconds=3600, pull_seconds=3600)  # no round begins by itself
    rounds: list[bool] = []
    turn = Rounds._turn

    async def noted_turn(self: Rounds) -> None:
        rounds.append(self._hears())
        await turn(self)

    monkeypatch.setattr(Rounds, "_turn", noted_turn)
    async with run_gateway(sender.client, redis_url, key_prefix, hears=False, pace=never) as gateway:
        subscription = gateway.gateway.keeper.subscription
        assert isinstance(subscription, Subscription)
        await await_until(lambda: rounds[-1:] == [True])
        monkeypatch.setattr(subscription, "_take_probe", lambda: None)  # a probe proves that it is heard
        rounds.clear()
        subscription._note_hearing(hears=False)
        await await_until(lambda: False in rounds)
        rounds.clear()
        subscription._note_hearing(hears=True)
        await await_until(lambda: True in rounds)


async def test_connection_that_ends_before_its_feeds_have_a_place_leaves_nothing_waiting(
    key_prefix: str, anyio_backend: object
) -> None:
    """Browsers come and go all the time, also while neither Redis nor the sender is there."""
    async with (
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{free_port()}") as nobody,
        run_gateway(nobody, f"redis://127.0.0.1:{free_port()}", key_prefix, hears=False) as gateway,
        gateway.connected(greeted=False) as browser,
    ):
        [feed] = await await_until(lambda: browser.connection.feeds)
        await await_until(lambda: feed._waiting)
        browser.connection.end(End.RESTART, "closed")
        await await_until(lambda: not feed._waiting, timeout=Pace().establish_seconds / 2)


async def test_client_whose_feeds_get_no_place_in_time_is_asked_to_come_back(
    key_prefix: str, anyio_backend: object
) -> None:
    async with (
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{free_port()}") as nobody,
        run_gateway(
            nobody,
            f"redis://127.0.0.1:{free_port()}",
            key_prefix,
            hears=False,
            pace=Pace(establish_seconds=0.2, pull_seconds=3600),
        ) as gateway,
        gateway.connected(greeted=False) as browser,
    ):
        [feed] = await await_until(lambda: browser.connection.feeds)
        await await_until(lambda: browser.connection.closed)
        assert browser.connection.ending == (Close.TRY_AGAIN_LATER, "events can't be read now")
        assert not feed._waiting


async def test_clients_that_come_back_while_nothing_can_be_read_fill_no_log(
    key_prefix: str, anyio_backend: object
) -> None:
    with capture_logs() as logs:
        async with (
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{free_port()}") as nobody,
            run_gateway(
                nobody,
                f"redis://127.0.0.1:{free_port()}",
                key_prefix,
                hears=False,
                pace=Pace(establish_seconds=0.02, pull_seconds=3600),
            ) as gateway,
        ):
            for _ in range(5):
                async with gateway.connected(greeted=False) as browser:
                    await browser.wait_close()
    assert [line["event"] for line in logs].count("a connection could not be caught up") == 1
