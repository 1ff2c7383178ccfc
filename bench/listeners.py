"""Clients of each transport that count what they send, receive and ask for: the ways of bench/compare.py."""

from __future__ import annotations

import abc
import asyncio
import base64
import contextlib
import os
import re
import time
import uuid
from typing import ClassVar

_SENT = re.compile(rb'"sent":(\d+)[,}]')
_CURSOR = re.compile(rb'"cursor":"([^"]+)"\}$')
_PING, _PONG = b"\x89\x00", b"\x8a\x80\0\0\0\0"


class Listener(abc.ABC):
    """One connection, which counts."""

    name: ClassVar[str]

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token
        self.bytes = 0
        self.requests = 0
        self.delays: list[float] = []  # seconds
        self.ready = asyncio.Event()
        self._arrived = asyncio.Event()
        self._tail = b""

    async def listen(self, count: int) -> None:
        """Listen until so many events have come, or for ever. Returns when the connection is closed."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await self.run(count)
        finally:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    async def wait_events(self, count: int) -> None:
        """Until so many have come."""
        while len(self.delays) < count:
            self._arrived.clear()
            await self._arrived.wait()

    @abc.abstractmethod
    async def run(self, count: int) -> None: ...

    def send(self, data: bytes) -> None:
        self.bytes += len(data)
        self._writer.write(data)

    def ask(self, path: str, *headers: str) -> None:
        """A request."""
        self.requests += 1
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{self._port}",
            f"Authorization: Bearer {self._token}",
        ]
        self.send("\r\n".join([*lines, *headers, "", ""]).encode())

    def take(self, data: bytes) -> None:
        """What came, for the events in it."""
        now = time.monotonic_ns()
        data = self._tail + data
        end = 0
        for match in _SENT.finditer(data):
            self.delays.append((now - int(match[1])) / 1e9)
            end = match.end()
            self._arrived.set()
        self._tail = data[end:][-40:]


class _Streaming(Listener):
    hello: ClassVar[bytes]

    async def run(self, count: int) -> None:
        self.open()
        seen = b""
        while not (count and len(self.delays) >= count):
            data = await self._reader.read(65536)
            if not data:
                raise ConnectionError(f"{self.name}: closed after {len(self.delays)} events")
            self.bytes += len(data)
            if not self.ready.is_set():
                seen += data
                if self.hello in seen:
                    self.ready.set()
            if _PING in data:
                self.send(_PONG)
            self.came(data)
            self.take(data)

    @abc.abstractmethod
    def open(self) -> None: ...

    def came(self, data: bytes) -> None: ...


class EventStream(_Streaming):
    name = "SSE"
    hello = b"orderbell.hello"

    def open(self) -> None:
        self.ask("/events", "Accept: text/event-stream")


class WebSocket(_Streaming):
    name = "WebSocket"
    hello = b"orderbell.hello"
    path = "/events"
    subprotocol = "cloudevents.json"

    def open(self) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        self.ask(
            self.path,
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            f"Sec-WebSocket-Protocol: {self.subprotocol}",
        )


class Stomp(WebSocket):
    name = "STOMP"
    hello = b"RECEIPT"
    path = "/stomp"
    subprotocol = "v12.stomp"

    def came(self, data: bytes) -> None:
        if b"101 Switching" in data:
            self._frame(b"CONNECT\naccept-version:1.2\nheart-beat:0,0\n\n\0")
        if b"CONNECTED" in data:
            self._frame(b"SUBSCRIBE\nid:0\ndestination:/user/queue/orders\nreceipt:r\n\n\0")

    def _frame(self, text: bytes) -> None:
        assert len(text) < 126
        self.send(bytes([0x81, 0x80 | len(text)]) + b"\0\0\0\0" + text)  # a mask of zeros masks nothing


class Polling(Listener):
    name = "polling, 1 s"
    wait = 0
    pause_seconds = 1.0

    async def run(self, count: int) -> None:
        after = etag = ""
        session = f"&session={uuid.uuid4().hex}" if self.wait else ""
        while True:
            resumed = f"&after={after}" if after else ""
            known = [f"If-None-Match: {etag}"] if etag else []
            self.ask(f"/events?wait={self.wait}{session}{resumed}", *known)
            head, body = await self._answer()
            if match := re.search(rb"(?i)\r\netag: ([^\r]+)", head):
                etag = match[1].decode()
            if match := _CURSOR.search(body):
                after = match[1].decode()
            self.ready.set()
            self.take(body)
            if count and len(self.delays) >= count:
                return
            await asyncio.sleep(self.pause_seconds)

    async def _answer(self) -> tuple[bytes, bytes]:
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        body = await self._reader.readexactly(int(length[1])) if length else b""
        self.bytes += len(head) + len(body)
        if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 304")):
            raise ConnectionError(f"{self.name}: {head.decode()} {body.decode()}")
        return head, body


class LongPolling(Polling):
    name = "long polling"
    wait = 25
    pause_seconds = 0.0


WAYS: tuple[type[Listener], ...] = (Polling, LongPolling, EventStream, WebSocket, Stomp)
