"""A sender, two gateways and each transport in turn."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2
import pytest

from tests.conformance.polling import LongPollingDriver, PollingDriver
from tests.conformance.sse import EventStreamDriver
from tests.conformance.stomp import SockJsDriver, StompDriver, XhrDriver
from tests.conformance.websocket import WebSocketDriver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conformance.client import Driver
    from tests.processes import Processes, ReceiverProcess, SenderProcess

DRIVERS: list[Driver] = [
    WebSocketDriver(),
    EventStreamDriver(),
    LongPollingDriver(),
    PollingDriver(),
    StompDriver(),
    SockJsDriver(),
    XhrDriver(),
]


# For tests whose subject is the same code for all: two in `make test`, all in `make test-all`.
two_quick = pytest.mark.parametrize(
    "driver",
    [
        pytest.param(driver, marks=() if driver.name in ("websocket", "polling") else pytest.mark.long)
        for driver in DRIVERS
    ],
    ids=[driver.name for driver in DRIVERS],
    indirect=True,
)


@pytest.fixture(params=DRIVERS, ids=[driver.name for driver in DRIVERS])
def driver(request: pytest.FixtureRequest) -> Driver:
    driver: Driver = request.param
    return driver


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender()


@pytest.fixture(scope="module")
def gateway(module_processes: Processes, sender: SenderProcess) -> ReceiverProcess:
    return module_processes.start_receiver(sender=sender)


@pytest.fixture(scope="module")
def other_gateway(module_processes: Processes, sender: SenderProcess) -> ReceiverProcess:
    return module_processes.start_receiver(sender=sender)


@dataclass
class Shop:
    """Where orders are completed."""

    http: httpx2.AsyncClient
    orders: int = 0

    async def complete(self, customer: str, count: int = 1) -> None:
        for _ in range(count):
            self.orders += 1
            order = {"order_id": f"{customer}-{self.orders}", "customer_id": customer}
            assert (await self.http.post("/orders", json=order)).status_code == 201
            assert (await self.http.post(f"/orders/{order['order_id']}/complete")).status_code == 200

    async def post(self, channel: str, count: int, size: int = 0) -> None:
        """Post so many events of that size in one call."""
        events = []
        for _ in range(count):
            event = {"specversion": "1.0", "id": uuid.uuid4().hex, "source": "/tests", "type": "news"}
            events.append(event | {"channel": channel, "data": {"pad": "x" * size}})
        kind = {"content-type": "application/cloudevents-batch+json"}
        answer = await self.http.post("/events", json=events, headers=kind)
        assert answer.status_code == 202, answer.text
        assert "refused" not in answer.text, answer.text


@pytest.fixture
async def shop(module_processes: Processes, sender: SenderProcess) -> AsyncIterator[Shop]:
    async with httpx2.AsyncClient(
        base_url=sender.url, headers=module_processes.api_headers, trust_env=False, timeout=20
    ) as http:
        yield Shop(http)


@pytest.fixture
def customer(request: pytest.FixtureRequest) -> str:
    """Each test has its own customer, whose channel is empty."""
    return f"c{abs(hash(request.node.nodeid)):x}"


@pytest.fixture
def token(module_processes: Processes, customer: str) -> str:
    return module_processes.token(customer, topics=[customer])
