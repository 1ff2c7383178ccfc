"""The receiver of docs/webhooks.md, run by a real Node, and a real sender's messages."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import httpx2
import pytest

from shared.commands.embedded import free_port
from tests import machine
from tests.senders import one_database
from tests.test_docs_webhooks import code, signed
from tests.waiting import await_until
from tests.webhooks.receiver import OTHER_SECRET, SECRET, Receiver, alert, report, run_reporting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.long]


@contextlib.asynccontextmanager
async def node(script: Path, port: int) -> AsyncIterator[list[str]]:
    """The lines that it prints."""
    path = machine.program("node", "nodejs")
    environment = {"WEBHOOK_SECRET": SECRET, "PORT": str(port)}
    process = await asyncio.create_subprocess_exec(
        path, script, env=environment, stdout=asyncio.subprocess.PIPE
    )
    lines: list[str] = []

    async def read() -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            lines.append(line.decode().strip())

    reading = asyncio.create_task(read())
    try:
        yield lines
    finally:
        process.kill()
        await process.wait()
        await reading


@one_database
async def test_the_pages_receiver_for_node_takes_each_message_once_and_no_forged_one(
    tmp_path: Path, database_url: str, redis_url: str, key_prefix: str
) -> None:
    script = tmp_path / "receiver.mjs"
    script.write_text(code("js"), encoding="utf-8")
    port = free_port()
    async with (
        node(script, port) as lines,
        run_reporting(Receiver(port=port), database_url, redis_url, key_prefix) as sender,
    ):
        await alert(sender, "1042")
        await report(sender, "customer:alice=1.1")
        await await_until(lambda: lines)
        async with httpx2.AsyncClient(trust_env=False) as client:
            body = b'{"id":"an-id","type":"alert.read","data":{"customer_id":"bob","event":{"subject":"7"}}}'
            url, now = f"http://127.0.0.1:{port}/", sender.clock().timestamp()
            for headers, status in (
                (signed(body, now, OTHER_SECRET), 401),
                (signed(body, now - 400, SECRET), 401),
                ({}, 401),
                (signed(body, now, OTHER_SECRET, SECRET), 204),
                (signed(body, now, SECRET), 204),  # a repetition
            ):
                assert (await client.post(url, content=body, headers=headers)).status_code == status
        await await_until(lambda: len(lines) >= 2)
    assert lines == ["alert.shown alice 1042", "alert.read bob 7"]
