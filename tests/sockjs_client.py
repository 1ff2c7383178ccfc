"""A SockJS client without a WebSocket, with the methods of a WebSocket that tests use."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import uuid
from typing import TYPE_CHECKING

import httpx2
from websockets.exceptions import ConnectionClosed

from tests.https import was_cut
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.processes import ReceiverProcess


class XhrSocket:
    """With `streams`, answers are streamed; otherwise each has what waits."""

    def __init__(self, http: httpx2.AsyncClient, path: str, *, streams: bool, buffered: bool = True) -> None:
        self._http = http
        self.url = f"{path}/{random.randrange(1000):03}/{uuid.uuid4().hex[:8]}"
        self._streams = streams
        self._messages: asyncio.Queue[str] = asyncio.Queue(0 if buffered else 1)
        self.close_code: int | None = None
        self.answers = 0
        self._opened = False

    async def ask_again_and_again(self) -> None:
        try:
            while self.close_code is None:
                self.answers += 1
                if self._streams:
                    await self._read_stream()
                else:
                    answer = await self._http.post(f"{self.url}/xhr")
                    answer.raise_for_status()
                    for line in answer.text.splitlines():
                        await self._take(line)
        except Exception as error:
            if not (was_cut(error) or isinstance(error, httpx2.HTTPStatusError)):
                raise
            self.close_code = 1006
        await self._messages.put("")

    async def _read_stream(self) -> None:
        async with self._http.stream("POST", f"{self.url}/xhr_streaming") as stream:
            stream.raise_for_status()
            async for line in stream.aiter_lines():
                if line != "h" * 2048:
                    await self._take(line)
                if self.close_code is not None:
                    return

    async def _take(self, line: str) -> None:
        if line.startswith("c"):
            self.close_code = json.loads(line[1:])[0]
        elif line == "o" and self._opened:  # sockjs-client: "Server lost session"
            self.close_code = 1006
        elif line.startswith("a"):
            for message in json.loads(line[1:]):
                await self._messages.put("a" + json.dumps([message]))
        else:
            self._opened = self._opened or line == "o"
            await self._messages.put(line)

    async def is_forgotten(self) -> bool:
        return (await self._http.post(f"{self.url}/xhr_send", content="[]")).status_code == 404

    async def recv(self) -> str:
        message = await self._messages.get()
        if not message:
            self._messages.put_nowait("")
            raise ConnectionClosed(None, None)
        return message

    async def send(self, text: str) -> None:
        answer = await self._http.post(f"{self.url}/xhr_send", content=text)
        if answer.status_code in (404, 408):  # its session is gone, or the request came too slowly
            raise ConnectionClosed(None, None)
        assert answer.status_code == 204, answer.text


@contextlib.asynccontextmanager
async def xhr_socket(
    gateway: ReceiverProcess, *, streams: bool = True, buffered: bool = True
) -> AsyncIterator[XhrSocket]:
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False, timeout=60) as http:
        socket = XhrSocket(http, "/websocket", streams=streams, buffered=buffered)
        asking = asyncio.create_task(socket.ask_again_and_again())
        try:
            assert await socket.recv() == "o"
            yield socket
        finally:
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
            try:
                async with asyncio.timeout(5):
                    await await_until(socket.is_forgotten)
            except Exception as error:
                if not (was_cut(error) or isinstance(error, TimeoutError)):  # the gateway has gone
                    raise
