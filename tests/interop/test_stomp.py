"""Unmodified STOMP clients: each gets its events in order, and after a cut what it missed."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.machine import install_packages, not_run, program
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.processes import Processes, ReceiverProcess, SenderProcess

pytestmark = [pytest.mark.anyio, pytest.mark.long]

HERE = Path(__file__).parent / "stomp"
INSTALL_SECONDS = 300  # Maven downloads its own plugins, too
CLIENT_SECONDS = 60.0  # Java compiles first
ORDERS = "/user/queue/orders"
NODE_CLIENTS = (
    "stompjs-7",
    "stompjs-5",
    "stomp-websocket",
    "sockjs",
    "sockjs-xhr-streaming",
    "sockjs-xhr-polling",
)
JAVA_CLIENTS = ("spring", "spring-sockjs")

Command = list[Path | str]


@pytest.fixture(scope="module")
def node() -> Path:
    install_packages(HERE)
    return program("node", "nodejs")


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> Command:
    program("javac", "openjdk-17-jdk-headless")
    directory = tmp_path_factory.mktemp("spring")
    maven = program("mvn", "maven")
    copying: Command = [maven, "-q", "-B", "-f", HERE / "pom.xml", "dependency:copy-dependencies"]
    done = subprocess.run(
        [*copying, f"-DoutputDirectory={directory}"], capture_output=True, text=True, timeout=INSTALL_SECONDS
    )
    if done.returncode != 0:
        not_run(f"Maven gets no Spring here: {done.stdout[-300:]}")
    return [
        program("java", "openjdk-17-jdk-headless"),
        "-cp",
        f"{directory}/*",
        HERE / "SpringStompClient.java",
    ]


def command_of(client: str, request: pytest.FixtureRequest, gateway: ReceiverProcess) -> Command:
    path = "/websocket" if "sockjs" in client else "/gs-guide-websocket"
    scheme = "http" if "sockjs" in client else "ws"
    url = f"{scheme}://127.0.0.1:{gateway.port}{path}"
    if client in NODE_CLIENTS:
        return [request.getfixturevalue("node"), HERE / "listen.cjs", client, url]
    if client in JAVA_CLIENTS:
        return [*request.getfixturevalue("java"), client, url]
    if importlib.util.find_spec("stomp") is None:
        not_run("no stomp.py in this environment")
    return [sys.executable, HERE / "listen.py", url]


class Running:
    """A client and its output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []

    @property
    def bodies(self) -> list[tuple[str, int]]:
        """Destination and number of each event, in order."""
        messages = [said for said in self.said if said["event"] == "message"]
        return [(said["destination"], json.loads(said["body"])["data"]["n"]) for said in messages]

    async def read(self) -> None:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, f"the client has ended: {self.said}"
        with contextlib.suppress(json.JSONDecodeError):  # what libraries log
            self.said.append(json.loads(line))

    async def wait(self, event: str, count: int) -> None:
        async with asyncio.timeout(CLIENT_SECONDS):
            while sum(said["event"] == event for said in self.said) < count:
                await self.read()


@contextlib.asynccontextmanager
async def running(command: Command) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield Running(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender()


@pytest.mark.parametrize("client", [*NODE_CLIENTS, *JAVA_CLIENTS, "stomp.py"])
async def test_client_gets_its_events_in_order_and_after_a_cut_what_it_missed(
    client: str, request: pytest.FixtureRequest, module_processes: Processes, sender: SenderProcess
) -> None:
    gateway = module_processes.start_receiver(sender=sender)
    customer = f"c-{uuid.uuid4().hex[:12]}"
    token = module_processes.token(customer, topics=["menu"])

    def publish(channel: str, *numbers: int) -> None:
        events = [
            {
                "specversion": "1.0",
                "id": uuid.uuid4().hex,
                "source": "/tests",
                "type": "t",
                "channel": channel,
                "data": {"n": n, "text": "a\\c: ☕ \\n"},
            }
            for n in numbers
        ]
        headers = {**module_processes.api_headers, "content-type": "application/cloudevents-batch+json"}
        answer = httpx2.post(
            f"{sender.url}/events", content=json.dumps(events), headers=headers, trust_env=False
        )
        assert answer.status_code == 202, answer.text

    publish(f"customer:{customer}", 1, 2)
    command = [*command_of(client, request, gateway), token, ORDERS, "/topic/menu"]
    async with running(command) as listening:
        await listening.wait("connected", 1)
        await listening.wait("message", 2)
        await wait_subscribed(gateway, 2)
        publish(f"customer:{customer}", 3)
        await listening.wait("message", 3)
        publish("topic:menu", 10)
        await listening.wait("message", 4)
        assert listening.bodies == [(ORDERS, 1), (ORDERS, 2), (ORDERS, 3), ("/topic/menu", 10)]

        gateway.kill()
        publish(f"customer:{customer}", 4, 5)
        gateway.start()
        await listening.wait("message", 6)
        assert [n for destination, n in listening.bodies if destination == ORDERS] == [1, 2, 3, 4, 5]
        assert not [said for said in listening.said if said["event"] == "message" and "error" in said]


@pytest.mark.parametrize("transport", ["eventsource", "htmlfile", "iframe-xhr-polling", "jsonp-polling"])
async def test_transport_of_sockjs_that_is_not_here_fails_at_once_and_says_so(
    transport: str, node: Path, module_processes: Processes, sender: SenderProcess
) -> None:
    gateway = module_processes.start_receiver(sender=sender)
    command: Command = [
        node,
        HERE / "listen.cjs",
        f"sockjs-{transport}",
        f"{gateway.url}/websocket",
        "",
        ORDERS,
    ]
    async with running(command) as listening:
        async with asyncio.timeout(10):
            await listening.wait("closed", 1)
        (closed,) = [said for said in listening.said if said["event"] == "closed"]
        assert (closed["code"], closed["reason"]) == (2000, "All transports failed")


async def wait_subscribed(gateway: ReceiverProcess, count: int) -> None:
    """Wait until the gateway has that many feeds: a topic starts when a client enters it."""
    metrics = f"{gateway.url}/metrics"
    await await_until(lambda: f"orderbell_feeds {count}.0" in httpx2.get(metrics, trust_env=False).text)
