"""Other people's clients, unmodified: each gets its events, and after its gateway was killed the rest."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest

from tests.machine import install_packages, not_run, program
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.processes import Processes, ReceiverProcess, SenderProcess

pytestmark = pytest.mark.long

HERE = Path(__file__).parent / "listeners"
CLIENT_SECONDS = 60.0  # Java and Go compile first

PYTHON = {
    "websockets": "websockets",
    "websocket-client": "websocket",
    "aiohttp": "aiohttp",
    "aiohttp-sse": "aiohttp",
}
NODE = ("eventsource", "undici-eventsource", "undici")

Command = list[Path | str]


@pytest.fixture(scope="module")
def node() -> Path:
    install_packages(HERE)
    return program("node", "nodejs")


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender()


def command_of(
    client: str, request: pytest.FixtureRequest, gateway: ReceiverProcess, token: str, directory: Path
) -> Command:
    url = f"{gateway.url}/events"
    websocket = url.replace("http:", "ws:")
    if client in NODE:
        return [request.getfixturevalue("node"), HERE / "listen.mjs", client, url, token]
    if client in PYTHON:
        if importlib.util.find_spec(PYTHON[client]) is None:
            not_run(f"no {client} in this environment")
        return [sys.executable, HERE / "listen.py", client, url if "sse" in client else websocket, token]
    if client == "go":
        return [program("go", "golang-go"), "run", HERE / "listen.go", url, token]
    if client == "java":
        program("javac", "openjdk-17-jdk-headless")
        return [program("java", "openjdk-17-jdk-headless"), HERE / "Listen.java", websocket, token]
    return [HERE / "listen.sh", program("curl", "curl"), url, token, directory / "last-id"]


@pytest.mark.parametrize("client", [*NODE, *PYTHON, "go", "java", "curl"])
def test_client_gets_its_events_in_order_and_after_its_gateway_was_killed_the_rest(
    client: str,
    request: pytest.FixtureRequest,
    module_processes: Processes,
    sender: SenderProcess,
    tmp_path: Path,
) -> None:
    gateway = module_processes.start_receiver(sender=sender)
    customer = f"c-{uuid.uuid4().hex[:12]}"
    token = module_processes.token(customer)

    def publish(*numbers: int) -> None:
        event = {"specversion": "1.0", "source": "/tests", "type": "t", "channel": f"customer:{customer}"}
        events = [event | {"id": uuid.uuid4().hex, "data": {"n": n}} for n in numbers]
        headers = {**module_processes.api_headers, "content-type": "application/cloudevents-batch+json"}
        url = f"{sender.url}/events"
        answer = httpx2.post(url, content=json.dumps(events), headers=headers, trust_env=False)
        assert answer.status_code == 202, answer.text

    publish(1, 2)
    heard = tmp_path / "heard"
    with heard.open("wb") as output:
        process = subprocess.Popen(
            list(map(str, command_of(client, request, gateway, token, tmp_path))),
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "NO_PROXY": "127.0.0.1"},
            start_new_session=True,
        )

    def numbers() -> list[int]:
        lines = heard.read_text(encoding="utf-8").splitlines()
        return [int(line) for line in lines if line.isdigit()]  # Node warns of what is experimental

    try:
        wait_until(lambda: len(numbers()) >= 2, CLIENT_SECONDS)
        publish(3)
        wait_until(lambda: len(numbers()) >= 3)
        gateway.kill()
        publish(4, 5)
        gateway.start()
        wait_until(lambda: len(numbers()) >= 5)
        publish(6)
        wait_until(lambda: len(numbers()) >= 6)
        time.sleep(0.2)  # for a repeat, if there is one
        assert numbers() == [1, 2, 3, 4, 5, 6]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # Go and the shell have children
        process.wait()
