"""A caller of the sender: one kept-alive HTTP/1.1 connection, a request at a time.

It knows just enough HTTP for answers with a Content-Length, and so costs only some 15 µs a request: the
sender is to be measured, not its caller.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Answer(NamedTuple):
    status: int
    body: bytes


class Caller(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._received = b""
        self._answer: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's don't subclass it

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the sender closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length and self._answer is not None:
            answer, self._answer, self._received = self._answer, None, b""
            answer.set_result(Answer(int(head[9:12]), body))

    async def call(self, request: bytes) -> Answer:
        if self._transport.is_closing():  # it was idle for too long
            await asyncio.get_running_loop().create_connection(
                lambda: self, *self._transport.get_extra_info("peername")[:2]
            )
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        self._transport.close()


@asynccontextmanager
async def callers(port: int, count: int) -> AsyncIterator[list[Caller]]:
    loop = asyncio.get_running_loop()
    connected: list[Caller] = []
    try:
        for _ in range(count):
            _, caller = await loop.create_connection(Caller, "127.0.0.1", port)
            connected.append(caller)
        yield connected
    finally:
        for caller in connected:
            caller.close()


def post(path: str, body: bytes, api_key: str, *, content_type: str = "application/json") -> bytes:
    """The bytes of a request."""
    lines = [
        f"POST {path} HTTP/1.1",
        "host: 127.0.0.1",
        f"authorization: Bearer {api_key}",
        f"content-type: {content_type}",
        f"content-length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
