"""Connections that were given up before they were accepted cost no request, and the others are served."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from shared.process.backlog import LONG
from tests.test_edge import PATIENT, echo, serving
from tests.waiting import await_until

pytestmark = pytest.mark.anyio

GET = b"GET /%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def connect(address: Any, name: bytes) -> socket.socket:
    """While the loop stands still: only the kernel accepts the connection, and what it sends."""
    client = socket.create_connection(address[:2])
    client.sendall(GET % name)
    return client


def read_all(client: socket.socket) -> bytes:
    client.settimeout(20)
    with client, client.makefile("rb") as file:
        return file.read()


@pytest.mark.parametrize("given_up", [LONG * 3, LONG - 2])
async def test_clients_that_have_left_are_passed_over_if_they_are_many(given_up: int) -> None:
    asked: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await asyncio.sleep(0.02)  # what it does takes time, in which clients give up
        await echo(scope, receive, send)

    async with serving(PATIENT, app=app) as running:
        for _ in range(given_up):
            connect(running.address, b"left").close()
        shut = connect(running.address, b"shut")
        shut.shutdown(socket.SHUT_WR)
        stays = connect(running.address, b"stays")
        answers = await asyncio.gather(*(asyncio.to_thread(read_all, client) for client in (shut, stays)))
        assert answers[1].startswith(b"HTTP/1.1 200 ")
        # One that has ended only its own side can't be distinguished. The answer says what to do.
        refused = answers[0].startswith(b"HTTP/1.1 503 ") and b"\r\nretry-after: 2\r\n" in answers[0]
        assert refused or answers[0].startswith(b"HTTP/1.1 200 ")
        await await_until(lambda: len(asked) + len(running.refused) >= given_up + 2)
    if given_up < LONG:
        assert running.refused == []
    else:
        assert running.refused.count("overloaded") > given_up / 2
        assert asked.count("/left") < given_up / 2
