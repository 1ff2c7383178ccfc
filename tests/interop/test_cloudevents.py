"""CloudEvents' SDKs of other languages: what they send by default arrives as JSON, in each of their modes."""

from __future__ import annotations

import asyncio
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.machine import install_packages, not_run, program
from tests.websocket_client import connected

if TYPE_CHECKING:
    from tests.processes import Processes, ReceiverProcess, SenderProcess

pytestmark = [pytest.mark.anyio, pytest.mark.long]

HERE = Path(__file__).parent / "cloudevents"
INSTALL_SECONDS = 300
CLIENT_SECONDS = 60

Command = list[Path | str]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Command:
    install_packages(HERE)
    return [program("node", "nodejs"), HERE / "post.cjs"]


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Command:
    binary = tmp_path_factory.mktemp("go") / "post"
    building: Command = [program("go", "golang-go"), "build", "-o", binary, "post.go"]
    done = subprocess.run(building, cwd=HERE, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    if done.returncode != 0:
        not_run(f"Go gets no CloudEvents SDK here: {done.stderr[-300:]}")
    return [binary]


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> Command:
    program("javac", "openjdk-17-jdk-headless")
    directory = tmp_path_factory.mktemp("java")
    maven = program("mvn", "maven")
    copying: Command = [maven, "-q", "-B", "-f", HERE / "pom.xml", "dependency:copy-dependencies"]
    copied = subprocess.run(
        [*copying, f"-DoutputDirectory={directory}"], capture_output=True, text=True, timeout=INSTALL_SECONDS
    )
    if copied.returncode != 0:
        not_run(f"Maven gets no CloudEvents SDK here: {copied.stdout[-300:]}")
    encoding: Command = ["-Dfile.encoding=UTF-8"]  # of the source, whatever the locale is
    return [
        program("java", "openjdk-17-jdk-headless"),
        *encoding,
        "-cp",
        f"{directory}/*",
        HERE / "PostEvent.java",
    ]


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender()


@pytest.fixture(scope="module")
def gateway(module_processes: Processes, sender: SenderProcess) -> ReceiverProcess:
    return module_processes.start_receiver(sender=sender)


@pytest.mark.parametrize("mode", ["binary", "structured"])
@pytest.mark.parametrize("sdk", ["node", "go", "java"])
async def test_event_of_an_sdk_arrives_whole(
    sdk: str,
    mode: str,
    module_processes: Processes,
    sender: SenderProcess,
    gateway: ReceiverProcess,
    request: pytest.FixtureRequest,
) -> None:
    event_id = uuid.uuid4().hex
    command = request.getfixturevalue(sdk)
    token = module_processes.token("alice", topics=["menu"])
    async with connected(gateway, token) as browser:
        running = await asyncio.create_subprocess_exec(
            *command,
            f"{sender.url}/events",
            module_processes.api_key,
            mode,
            event_id,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            said, _ = await asyncio.wait_for(running.communicate(), CLIENT_SECONDS)
        finally:
            if running.returncode is None:
                running.kill()
                await running.wait()
        assert said.decode().strip() == "202"
        (event,) = await browser.receive_events(1)
    assert (event["id"], event["subject"], event["comexampleextension1"]) == (event_id, "Käse 100 %", "value")
    assert event["data"] == {"dish": "Soufflé ☕", "prices": [1, None, 2.5]}
    assert "data_base64" not in event
