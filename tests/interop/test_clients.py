"""Other people's HTTP clients with their defaults: each completes an order with a message that arrives."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx2
import pytest

from tests.machine import not_run, program
from tests.websocket_client import connected

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.processes import Processes, ReceiverProcess, SenderProcess

pytestmark = [pytest.mark.anyio, pytest.mark.long]

CLIENTS = Path(__file__).parent / "clients"
MAVEN_SECONDS = 300  # the first time it downloads its own plugins, too
CLIENT_SECONDS = 120  # Java and Go compile first


class Post(NamedTuple):
    url: str
    key: str
    body: str


Command = list[str | Path]


def jdk(post: Post, directory: Path) -> Command:
    program("javac", "openjdk-17-jdk-headless")
    return [program("java", "openjdk-17-jdk-headless"), CLIENTS / "JdkClient.java", *post]


def spring(post: Post, directory: Path) -> Command:
    program("javac", "openjdk-17-jdk-headless")
    maven = program("mvn", "maven")
    copying: Command = [maven, "-q", "-B", "-f", CLIENTS / "pom.xml", "dependency:copy-dependencies"]
    copied = subprocess.run(
        [*copying, f"-DoutputDirectory={directory}"], capture_output=True, text=True, timeout=MAVEN_SECONDS
    )
    if copied.returncode != 0:
        not_run(f"Maven gets no spring-web here: {copied.stdout[-300:]}")
    java = program("java", "openjdk-17-jdk-headless")
    return [java, "-cp", f"{directory}/*", CLIENTS / "SpringRestClient.java", *post]


def _curl(post: Post, version: str) -> Command:
    headers = ["-H", f"Authorization: Bearer {post.key}", "-H", "Content-Type: application/json"]
    answer = ["-o", os.devnull, "-w", "%{http_code}"]
    return [program("curl", "curl"), "-sS", version, *headers, *answer, "--data", post.body, post.url]


def curl(post: Post, directory: Path) -> Command:
    return _curl(post, "--http1.1")


def curl_http2(post: Post, directory: Path) -> Command:
    return _curl(post, "--http2")


def node_fetch(post: Post, directory: Path) -> Command:
    return [program("node", "nodejs"), CLIENTS / "fetch.mjs", *post]


def go(post: Post, directory: Path) -> Command:
    return [program("go", "golang-go"), "run", CLIENTS / "client.go", *post]


def httpx(post: Post, directory: Path) -> Command:
    if importlib.util.find_spec("httpx") is None:
        not_run("no httpx in this environment")
    return [sys.executable, CLIENTS / "client.py", *post]


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender()


@pytest.fixture(scope="module")
def gateway(module_processes: Processes, sender: SenderProcess) -> ReceiverProcess:
    return module_processes.start_receiver(sender=sender)


@pytest.mark.parametrize(
    "client", [jdk, spring, curl, curl_http2, node_fetch, go, httpx], ids=lambda client: client.__name__
)
@pytest.mark.parametrize("size", [40, 40_000])
async def test_message_of_a_client_arrives(
    client: Callable[[Post, Path], Command],
    size: int,
    module_processes: Processes,
    sender: SenderProcess,
    gateway: ReceiverProcess,
    tmp_path: Path,
) -> None:
    """A larger body comes in several packets, behind the head or long after it."""
    customer, order = f"c-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    message = "Ready at the counter ☕ ".ljust(size, "!")
    headers = module_processes.api_headers
    placed = {"order_id": order, "customer_id": customer}
    httpx2.post(f"{sender.url}/orders", json=placed, headers=headers, trust_env=False).raise_for_status()
    body = json.dumps({"data": {"message": message}})
    url = f"{sender.url}/orders/{order}/complete"
    command = client(Post(url, module_processes.api_key, body), tmp_path)
    async with connected(gateway, module_processes.token(customer)) as browser:
        running = await asyncio.create_subprocess_exec(
            *command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "NO_PROXY": "127.0.0.1"},
        )
        try:
            said, _ = await asyncio.wait_for(running.communicate(), CLIENT_SECONDS)
        finally:
            if running.returncode is None:
                running.kill()
                await running.wait()
        assert said.decode().strip() == "200"
        (event,) = await browser.receive_events(1)
    assert event["subject"] == order
    assert event["data"]["message"] == message
