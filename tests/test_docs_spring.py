"""docs/from-spring.md: every command of it, run against `orderbell up` as the page starts it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stomp_client import StompClient, stomp
from tests.test_up import Up
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[1] / "docs" / "from-spring.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The page's first command, on ports of the test's own."""
    assert BLOCKS[0] == "ORDERBELL_SPRING_COMPAT=1 make run\n"
    up = Up(tmp_path_factory.mktemp("up"), spring_compat="1")
    up.start()
    yield up
    up.process.terminate()
    up.process.wait(30)


def run(up: Up, script: str) -> subprocess.CompletedProcess[str]:
    """As in the directory of `orderbell up`, with `orderbell` on the path."""
    script = script.replace("http://127.0.0.1:8090", up.sender)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euc", script],
        cwd=up.data.parent,
        env={**up.environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )


async def messages_of(up: Up, destination: str, *blocks: str) -> list[bytes]:
    """What a page at the second gateway gets of each command."""
    gateway = _At(int(up.gateways[1].rpartition(":")[2]))
    async with stomp(gateway) as client:  # type: ignore[arg-type] # of which it needs the port alone
        await client.send("CONNECT", {"accept-version": "1.1"})
        await client.expect("CONNECTED")
        await client.subscribe(destination)
        return [await _message_of(up, client, block) for block in blocks]


async def _message_of(up: Up, client: StompClient, block: str) -> bytes:
    done = await asyncio.to_thread(run, up, block)
    assert done.returncode == 0, done.stderr
    return (await client.expect("MESSAGE")).body


class _At:
    def __init__(self, port: int) -> None:
        self.port = port


def test_blocks_are_those_that_this_file_runs() -> None:
    assert [block.split()[0] for block in BLOCKS] == [
        "ORDERBELL_SPRING_COMPAT=1",
        "curl",
        "export",
        "orderbell",
    ]


@pytest.mark.long
def test_text_that_is_posted_with_the_pages_curl_line_comes_as_the_table_says(up: Up) -> None:
    assert asyncio.run(messages_of(up, "/topic/messages", BLOCKS[1])) == [b"Received message: Hello"]


@pytest.mark.long
def test_event_that_is_posted_instead_comes_to_the_same_page(up: Up) -> None:
    assert asyncio.run(messages_of(up, "/topic/greetings", BLOCKS[2])) == [b'{"content":"Hello, everybody!"}']


@pytest.mark.long
def test_token_and_watch_work_as_printed(up: Up) -> None:
    token, watch = BLOCKS[3].splitlines()
    done = run(up, token)
    assert (done.returncode, done.stdout.count(".")) == (0, 2), done.stderr
    log = up.data / "watch"
    with log.open("w") as output:
        watching = subprocess.Popen(
            [sys.executable, "-m", "shared.commands.cli", *watch.split()[1:], "--gateway", up.gateways[0]],
            cwd=up.data.parent,
            env=up.environment,
            stderr=output,
        )
    try:
        wait_until(lambda: "connected to" in log.read_text())
    finally:
        watching.terminate()
        assert watching.wait(15) == 0


@pytest.mark.long
def test_both_services_warn_in_this_mode(up: Up) -> None:
    assert up.output.count("ORDERBELL_SPRING_COMPAT") == 3, up.output


def test_page_names_only_tests_that_exist() -> None:
    for name in re.findall(r"`(tests/[\w/]+\.py)`", PAGE):
        assert (Path(__file__).parents[1] / name).is_file()
