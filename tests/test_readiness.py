"""Ready means that customers are served: real gateways, each with one fault."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from structlog.testing import capture_logs

from receiver.serving.readiness import Pace, Readiness, Reason
from tests.asking import OverHttpx
from tests.processes import READY_SECONDS
from tests.waiting import await_until, wait_until
from tests.websocket_client import connected

if TYPE_CHECKING:
    from shared.commands.embedded import EmbeddedServer
    from tests.processes import Processes, SenderProcess, ServiceProcess

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender()


def says(service: ServiceProcess) -> dict[str, Any]:
    try:
        body: dict[str, Any] = httpx2.get(f"{service.url}/readyz", trust_env=False, timeout=5).json()
    except httpx2.TransportError:
        return {}
    return body


@pytest.mark.parametrize(
    ("settings", "reason", "words"),
    [
        (
            {"api_keys": "another-key-than-the-senders"},
            Reason.REFUSED,
            "refuses the first of ORDERBELL_API_KEYS",
        ),
        ({"sender_url": "http://127.0.0.1:1"}, Reason.SENDER, "ORDERBELL_SENDER_URL http://127.0.0.1:1"),
        pytest.param(
            {"sender_url": "http://nowhere.invalid:8090"},
            Reason.SENDER,
            "nowhere.invalid",
            marks=pytest.mark.long,
        ),
        pytest.param(
            {"jwks_url": "http://127.0.0.1:1/keys", "jwt_secret": ""},
            Reason.KEYS,
            "http://127.0.0.1:1/keys: nothing listens there",
            marks=pytest.mark.long,
        ),
    ],
    ids=["another API key", "nobody listens", "no such host", "no keys"],
)
async def test_gateway_that_serves_nobody_is_not_ready_and_says_why(
    module_processes: Processes, sender: SenderProcess, settings: dict[str, Any], reason: Reason, words: str
) -> None:
    gateway = module_processes.start_receiver(sender=sender, wait_ready=False, **settings)
    wait_until(lambda: words in says(gateway).get("reasons", {}).get(reason, ""), READY_SECONDS)
    assert says(gateway)["ready"] is False
    logged = wait_until(lambda: [r for r in gateway.records("not ready") if words in r["detail"]])
    assert {record["reason"] for record in logged} == {reason}
    metrics = httpx2.get(f"{gateway.url}/metrics", trust_env=False).text
    assert f'orderbell_not_ready{{reason="{reason}"}} 1.0' in metrics
    assert module_processes.api_key not in gateway.text()
    gateway.kill()


async def test_what_answers_at_the_senders_address_may_be_no_sender(
    module_processes: Processes, sender: SenderProcess
) -> None:
    other = module_processes.start_receiver(sender=sender)
    gateway = module_processes.start_receiver(wait_ready=False, sender_url=other.url)
    wait_until(lambda: Reason.NOT_SENDER in says(gateway).get("reasons", {}), READY_SECONDS)
    for process in (gateway, other):
        process.kill()


async def test_gateway_that_pulls_is_ready_and_says_so(
    processes: Processes, redis_server: EmbeddedServer
) -> None:
    processes.redis_url = redis_server.url
    processes.start_sender()
    gateway = processes.start_receiver()
    assert says(gateway) == {
        "ready": True,
        "redis": True,
        "draining": False,
        "serving": "live",
        "reasons": {},
    }
    redis_server.kill()
    await await_until(lambda: says(gateway)["serving"] == "pulling")
    assert says(gateway)["ready"] is True
    async with connected(gateway, processes.token("alice")):
        pass
    # A gateway that starts meanwhile serves as well.
    late = processes.start_receiver()
    assert says(late)["serving"] == "pulling"
    async with connected(late, processes.token("alice")):
        pass


async def test_without_redis_and_sender_nobody_is_served(
    processes: Processes, redis_server: EmbeddedServer
) -> None:
    processes.redis_url = redis_server.url
    sender = processes.start_sender()
    gateway = processes.start_receiver()
    sender.kill()
    redis_server.kill()
    await await_until(lambda: list(says(gateway)["reasons"]) == [Reason.SENDER])
    sender.start(wait_ready=False)
    await await_until(lambda: says(gateway)["ready"])
    await await_until(lambda: gateway.records("ready again"))  # another process writes it


@pytest.mark.parametrize("service", ["sender", "receiver"])
async def test_balancer_sees_that_a_service_leaves_before_nobody_listens(
    module_processes: Processes, sender: SenderProcess, service: str
) -> None:
    leaving: ServiceProcess = (
        module_processes.start_sender(ready_delay_seconds="2")
        if service == "sender"
        else module_processes.start_receiver(sender=sender, ready_delay_seconds="2")
    )
    asked = time.monotonic()
    leaving.process.send_signal(signal.SIGTERM)
    await await_until(lambda: says(leaving).get("draining") is True)
    # A client that the balancer still sends is served as before.
    assert leaving.answers("/livez")
    if service == "receiver":
        gateway: Any = leaving
        async with connected(gateway, module_processes.token("alice")) as client:
            assert (await client.receive_close())[0] == 1012
    assert await asyncio.to_thread(leaving.process.wait, 20) == 0
    assert time.monotonic() - asked > 2


class Sender:
    """The sender that the gateway asks, without a network; the test sets its answers."""

    def __init__(self) -> None:
        self.answer: httpx2.Response | Exception = httpx2.Response(200, json={"channels": []})
        self.asked = 0
        self.client = httpx2.AsyncClient(
            base_url="http://sender", transport=httpx2.MockTransport(self._answer)
        )

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_restart_of_the_sender_makes_nobody_unready_while_redis_is_heard() -> None:
    sender = Sender()
    pace = Pace(check=0.01, retry=0.01, start=0, grace=0.3)
    hears = True
    readiness = Readiness(
        OverHttpx(sender.client), "http://sender", hears=lambda: hears, unable=lambda: None, pace=pace
    )
    running = asyncio.create_task(readiness.run())
    try:
        await await_until(lambda: readiness.body()["ready"])
        sender.answer = httpx2.ConnectError("refused")
        left = time.monotonic()
        await asyncio.sleep(0.1)
        assert readiness.body()["ready"]
        hears = False
        assert list(readiness.reasons) == [Reason.SENDER]  # nothing to pull from
        hears = True
        await await_until(lambda: list(readiness.reasons) == [Reason.SENDER])
        assert time.monotonic() - left > 0.25
        sender.answer = httpx2.Response(401)
        await await_until(lambda: list(readiness.reasons) == [Reason.REFUSED])
        sender.answer = httpx2.Response(503)
        await await_until(lambda: list(readiness.reasons) == [Reason.SENDER])
        sender.answer = httpx2.Response(200, json={"channels": []})
        await await_until(lambda: readiness.body()["ready"])
    finally:
        running.cancel()


async def test_cause_that_is_found_later_is_logged_as_well() -> None:
    sender = Sender()
    why = "the issuer's keys have not been fetched yet"
    pace = Pace(check=0.01, retry=0.01, start=0)
    readiness = Readiness(
        OverHttpx(sender.client), "http://sender", hears=lambda: True, unable=lambda: why, pace=pace
    )
    with capture_logs() as lines:
        running = asyncio.create_task(readiness.run())
        try:
            await await_until(lambda: lines)
            why = "http://127.0.0.1:1/keys: nothing listens there"
            await await_until(lambda: len(lines) > 1)
            checks = sender.asked
            await await_until(lambda: sender.asked > checks + 2)
        finally:
            running.cancel()
    assert [line["detail"] for line in lines] == [
        "the issuer's keys have not been fetched yet",
        "http://127.0.0.1:1/keys: nothing listens there",
    ]
