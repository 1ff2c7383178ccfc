"""Pages, clients and curl lines made for Spring's guide and the article, as they are, across two gateways."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from receiver.transports.stomp.spring import html_escape
from tests.interop.test_stomp import Command, java, node
from tests.machine import program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.processes import Processes, ReceiverProcess, SenderProcess

__all__ = ["java", "node"]  # fixtures

pytestmark = pytest.mark.long

HERE = Path(__file__).parent / "spring"
SECONDS = 30.0
PAGES = {
    "guide": "/gs-guide-websocket",
    "guide-5": "/gs-guide-websocket",
    "older-guide": "/gs-guide-websocket",
    "article": "/websocket",
}


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> SenderProcess:
    return module_processes.start_sender(spring_compat="1")


@pytest.fixture(scope="module")
def gateways(module_processes: Processes, sender: SenderProcess) -> list[ReceiverProcess]:
    return [module_processes.start_receiver(sender=sender, spring_compat="1") for _ in range(2)]


class NodePage:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() + b"\n")
        await self._process.stdin.drain()

    async def heard(self) -> tuple[str, str]:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), SECONDS)
        said = json.loads(line)
        return said["event"], said["text"]


@contextlib.asynccontextmanager
async def page_of(kind: str, gateway: ReceiverProcess, node: Path) -> AsyncIterator[NodePage]:
    scheme = "ws" if kind in ("guide", "guide-5") else "http"
    process = await asyncio.create_subprocess_exec(
        node,
        HERE / "page.cjs",
        kind,
        f"{scheme}://127.0.0.1:{gateway.port}{PAGES[kind]}",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    page = NodePage(process)
    try:
        assert await page.heard() == ("connected", "")
        yield page
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def curl(sender: SenderProcess, *arguments: str) -> None:
    command: Command = [program("curl", "curl"), "-sSf", *arguments, f"{sender.url}/submit"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr


@pytest.mark.anyio
async def test_guides_pages_greet_each_other_across_gateways(
    gateways: list[ReceiverProcess], node: Path
) -> None:
    async with (
        page_of("guide", gateways[0], node) as first,
        page_of("guide-5", gateways[1], node) as second,
        page_of("older-guide", gateways[1], node) as third,
    ):
        for speaking, name in ((first, "Ann"), (second, "<Bob>"), (third, "Zoë")):
            await speaking.say(name)
            greeting = ("message", f"Hello, {html_escape(name)}!")
            assert [await page.heard() for page in (first, second, third)] == [greeting] * 3


@pytest.mark.anyio
async def test_articles_pages_get_each_others_texts_and_those_of_curl(
    gateways: list[ReceiverProcess], sender: SenderProcess, node: Path
) -> None:
    async with page_of("article", gateways[0], node) as one, page_of("article", gateways[1], node) as two:
        await one.say("Hi <there>")
        for page in (one, two):
            assert await page.heard() == ("message", "Submitted message: Hi <there>")
        await asyncio.to_thread(curl, sender, "-H", "Content-Type: text/plain", "-d", "Hello from curl")
        await asyncio.to_thread(curl, sender, "-d", "as a form")
        for page in (one, two):
            assert await page.heard() == ("message", "Received message: Hello from curl")
            assert await page.heard() == ("message", "Received message: as a form")


def test_springs_own_java_client_is_greeted(gateways: list[ReceiverProcess], java: Command) -> None:
    command = [*java[:-1], HERE / "Guide.java", f"ws://127.0.0.1:{gateways[0].port}/gs-guide-websocket"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.stdout.strip().endswith("Hello, Spring!"), done.stderr


def test_escapes_are_those_of_springs_html_utils(java: Command) -> None:
    done = subprocess.run(
        [*java[:-1], HERE / "Guide.java", "escapes"], capture_output=True, text=True, timeout=SECONDS
    )
    theirs = {chr(int(code)): escape for code, escape in map(str.split, done.stdout.splitlines())}
    assert len(theirs) > 200, done.stderr
    assert {c: html_escape(c) for c in map(chr, range(0xD800)) if html_escape(c) != c} == theirs
