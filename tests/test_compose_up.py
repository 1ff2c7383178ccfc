"""compose.yaml for real: `docker compose up`, and customers who come in through the balancer.

Set ORDERBELL_TEST_COMPOSE=1 to run it. It builds an image, and needs Docker with Compose and the images that
compose.yaml names.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import time
from asyncio import to_thread
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx2
import jwt
import pytest
from playwright.sync_api import expect, sync_playwright
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests import chromium

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        os.environ.get("ORDERBELL_TEST_COMPOSE") != "1",
        reason="NOT RUN: ORDERBELL_TEST_COMPOSE=1 runs compose.yaml for real, with Docker",
    ),
]

ROOT = Path(__file__).parent.parent
PROJECT = "orderbell-test"
SECONDS = 60  # for whatever a test waits for; two busy cores start a process slowly


def docker(*arguments: str) -> str:
    """Returns its output. Raises `CalledProcessError` if it fails."""
    done = subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        env={**os.environ, "CUSTOMER_PORT": "0", "BACK_OFFICE_PORT": "0"},  # free ones
        stdout=subprocess.PIPE,
        timeout=900,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def compose(*arguments: str) -> str:
    return docker("compose", "-p", PROJECT, *arguments)


class Installation(NamedTuple):
    customers: str  # host:port of the balancer, for gateways
    back_office: str  # and for the sender
    api_key: str
    jwt_secret: str

    def token(self, customer: str) -> str:
        claims = {"sub": customer, "aud": "orderbell", "exp": int(time.time()) + 600}
        return jwt.encode(claims, self.jwt_secret, "HS256")

    def connect(self, customer: str, after: str | None = None) -> connect:
        return connect(
            f"ws://{self.customers}/events" + (f"?after={after}" if after else ""),
            subprotocols=[Subprotocol("cloudevents.json")],
            additional_headers={"authorization": f"Bearer {self.token(customer)}"},
            proxy=None,
        )

    async def complete(self, order_id: str, customer: str) -> dict[str, Any]:
        """The order is placed and completed; its event."""
        headers = {"authorization": f"Bearer {self.api_key}"}
        async with httpx2.AsyncClient(
            base_url=f"http://{self.back_office}", headers=headers, trust_env=False, timeout=SECONDS
        ) as sender:
            placed = await sender.post("/orders", json={"order_id": order_id, "customer_id": customer})
            assert placed.status_code == 201, placed.text
            completed = await sender.post(f"/orders/{order_id}/complete", json={})
            assert completed.status_code == 200, completed.text
            return dict(completed.json()["event"])


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    """Started with no step before, as the README says."""
    try:
        compose("up", "--wait")
        yield Installation(
            customers=compose("port", "balancer", "8091"),
            back_office=compose("port", "balancer", "8090"),
            api_key=compose("exec", "-T", "sender", "cat", "/run/orderbell/api_keys"),
            jwt_secret=compose("exec", "-T", "sender", "cat", "/run/orderbell/jwt_secret"),
        )
    finally:
        compose("down", "--volumes", "--timeout", "30")


async def receive(connection: ClientConnection, type_: str) -> dict[str, Any]:
    """The next message of this type."""
    async with asyncio.timeout(SECONDS):
        while True:
            message: dict[str, Any] = json.loads(await connection.recv())
            if message["type"] == type_:
                return message


@contextlib.asynccontextmanager
async def connections(
    installation: Installation, customer: str, count: int
) -> AsyncIterator[dict[str, list[ClientConnection]]]:
    """By the gateway that each came to."""
    async with contextlib.AsyncExitStack() as stack:
        by_gateway: dict[str, list[ClientConnection]] = {}
        for _ in range(count):
            connection = await stack.enter_async_context(installation.connect(customer))
            hello = await receive(connection, "orderbell.hello")
            by_gateway.setdefault(hello["data"]["gateway"], []).append(connection)
        yield by_gateway


async def test_an_order_completed_through_the_balancer_reaches_browsers_on_both_receivers(
    installation: Installation,
) -> None:
    async with (
        connections(installation, "alice", 6) as alice,
        installation.connect("bob") as bob,
    ):
        await receive(bob, "orderbell.hello")
        # The balancer counts sockets, and sends the next one to the gateway with the fewest.
        assert sorted(len(those) for those in alice.values()) == [3, 3]
        event = await installation.complete("1", "alice")
        for those in alice.values():
            for connection in those:
                assert await receive(connection, "order.completed") == event
        # The first event that Bob gets is his own: none of Alice's came before it.
        event = await installation.complete("2", "bob")
        assert await receive(bob, "order.completed") == event


@pytest.mark.browser
def test_a_click_in_the_back_office_pops_up_in_browsers_on_both_receivers(
    installation: Installation, tmp_path: Path
) -> None:
    customers = f"http://{installation.customers}/"
    back_office = f"http://{installation.back_office}"
    placed = httpx2.post(
        f"{back_office}/orders",
        json={"order_id": "3", "customer_id": "alice"},
        headers={"authorization": f"Bearer {installation.api_key}"},
        trust_env=False,
    )
    assert placed.status_code == 201
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium.choose(), args=chromium.arguments()) as browser,
    ):
        devices = [browser.new_context().new_page() for _ in range(2)]
        gateways: set[str] = set()
        for page in devices:
            page.on("websocket", lambda socket: socket.on("framereceived", partial(_note_gateway, gateways)))
            page.goto(customers)
            page.get_by_label("token").fill(compose("exec", "-T", "receiver", "orderbell", "token", "alice"))
            page.get_by_role("button", name="Connect").click()
            expect(page.locator("#connection")).to_have_attribute(
                "data-state", "open", timeout=SECONDS * 1000
            )
        assert len(gateways) == 2
        office = browser.new_page()
        office.goto(back_office)
        office.get_by_label("API key").fill(installation.api_key)
        office.get_by_role("button", name="Continue").click()
        office.get_by_role("button", name="Complete order 3").click()
        for number, page in enumerate(devices):
            expect(page.locator("#alerts")).to_contain_text("Order 3 is complete", timeout=SECONDS * 1000)
            page.screenshot(path=tmp_path / f"device-{number}.png")


def _note_gateway(gateways: set[str], frame: str | bytes) -> None:
    message = json.loads(frame)
    if message["type"] == "orderbell.hello":
        gateways.add(message["data"]["gateway"])


def test_health_checks_compile_nothing(installation: Installation) -> None:
    """Nothing can be written, so each of them would compile again what it imports."""
    program = "import http.client, os; print(os.path.exists(http.client.__cached__))"
    assert compose("exec", "-T", "sender", "python", "-I", "-c", program) == "True"


async def test_valkey_may_be_away_while_an_order_completes(installation: Installation) -> None:
    async with connections(installation, "carol", 2) as carol:
        await to_thread(compose, "kill", "valkey")
        event = await installation.complete("4", "carol")
        for those in carol.values():
            assert await receive(those[0], "order.completed") == event  # pulled from the sender meanwhile
        await to_thread(compose, "up", "--no-recreate", "--wait", "valkey")
        event = await installation.complete("5", "carol")
        for those in carol.values():
            assert await receive(those[0], "order.completed") == event


async def test_client_that_loses_a_gateway_goes_on_at_the_other(installation: Installation) -> None:
    async with installation.connect("dora") as before:
        hello = await receive(before, "orderbell.hello")
        cursor = hello["data"]["cursor"]
        gateway, _, _ = hello["data"]["gateway"].partition(":")  # a container's host name is its id
        await to_thread(docker, "kill", gateway)
        event = await installation.complete("6", "dora")
        with pytest.raises(ConnectionClosed):
            await receive(before, "order.completed")
    async with asyncio.timeout(SECONDS):
        async with installation.connect("dora", after=cursor) as after:
            hello = await receive(after, "orderbell.hello")
            assert not hello["data"]["gateway"].startswith(gateway)
            assert await receive(after, "order.completed") == event
    await to_thread(compose, "up", "--no-recreate", "--wait")


async def test_a_gateway_that_is_stopped_says_goodbye_and_leaves_with_zero(
    installation: Installation,
) -> None:
    async with installation.connect("erin") as connection:
        hello = await receive(connection, "orderbell.hello")
        gateway, _, _ = hello["data"]["gateway"].partition(":")
        stopping = asyncio.create_task(to_thread(docker, "stop", "--time", "30", gateway))
        bye = await receive(connection, "orderbell.bye")
        assert bye["data"]["retry_after_ms"] >= 0
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        await stopping
    assert docker("inspect", "--format", "{{.State.ExitCode}}", gateway) == "0"
    await to_thread(compose, "up", "--no-recreate", "--wait")


async def test_orders_outlive_the_containers(installation: Installation) -> None:
    event = await installation.complete("7", "fay")
    compose("down", "--timeout", "30")
    compose("up", "--wait")
    again = installation._replace(
        customers=compose("port", "balancer", "8091"), back_office=compose("port", "balancer", "8090")
    )
    async with again.connect("fay", after="customer:fay=1.0") as fay:
        assert await receive(fay, "order.completed") == event
