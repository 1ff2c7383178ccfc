"""A minimal browser for the time from POST to frame: a WebSocket that notes when frames arrive."""

from __future__ import annotations

import asyncio
import base64
import os
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


class Browser(asyncio.Protocol):
    """`shown` gets every text message, the moment it has arrived."""

    def __init__(self, port: int, token: str, shown: Callable[[bytes], None]) -> None:
        self._request = _handshake(port, token)
        self._shown = shown
        self._transport: asyncio.Transport
        self._received = b""
        self.open = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's don't subclass it
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.open.done():
            self.open.set_exception(exc or ConnectionResetError("the gateway closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self.open.done() and not self._take_answer():
            return
        while (frame := self._next_frame()) is not None:
            opcode, payload = frame
            if opcode == _TEXT:
                self._shown(payload)
            elif opcode == _PING:
                self._send(_PONG, payload)
            elif opcode == _CLOSE:
                self._transport.close()

    def close(self) -> None:
        self._send(_CLOSE, b"\x03\xe8")

    def _take_answer(self) -> bool:
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            return False
        if not head.startswith(b"HTTP/1.1 101"):
            self.open.set_exception(ConnectionRefusedError(head.decode(errors="replace")))
            return False
        self._received = rest
        self.open.set_result(None)
        return True

    def _next_frame(self) -> tuple[int, bytes] | None:
        """Servers' frames are unmasked (RFC 6455 5.1), and the gateway's are never fragmented."""
        data = self._received
        if len(data) < 2:
            return None
        start, size = 2, data[1]
        if size == 126:
            start, size = 4, int.from_bytes(data[2:4], "big")
        elif size == 127:
            start, size = 10, int.from_bytes(data[2:10], "big")
        if len(data) < start + size:
            return None
        self._received = data[start + size :]
        return data[0] & 15, data[start : start + size]

    def _send(self, opcode: int, payload: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
        self._transport.write(bytes((0x80 | opcode, 0x80 | len(payload))) + mask + masked)


async def open_browser(port: int, token: str, shown: Callable[[bytes], None]) -> Browser:
    """Returns when the gateway has accepted it; its hello comes to `shown`, as everything does."""
    loop = asyncio.get_running_loop()
    _, browser = await loop.create_connection(lambda: Browser(port, token, shown), "127.0.0.1", port)
    await browser.open
    return browser


def _handshake(port: int, token: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        "GET /events HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        "upgrade: websocket",
        "connection: Upgrade",
        f"sec-websocket-key: {key}",
        "sec-websocket-version: 13",
        "sec-websocket-protocol: cloudevents.json",
        f"authorization: Bearer {token}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"
