"""A STOMP client for tests: it sends any frame, and reads whole ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from receiver.transports.stomp.frames import Frame

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Sequence

    from tests.processes import ReceiverProcess
    from tests.sockjs_client import XhrSocket

TIMEOUT_SECONDS = 20.0  # of a machine that runs several tests side by side
ORDERS = "/user/queue/orders"


class StompClient:
    """`frames` are those received, without heartbeats. With `sockjs`, messages are in SockJS's envelope."""

    def __init__(self, websocket: ClientConnection | XhrSocket, *, sockjs: bool) -> None:
        self.websocket = websocket
        self.frames: list[Frame] = []
        self.beats = 0
        self._sockjs = sockjs

    @property
    def messages(self) -> list[Frame]:
        return [frame for frame in self.frames if frame.command == "MESSAGE"]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The bodies of all MESSAGEs that are events of a channel."""
        bodies = [json.loads(message.body) for message in self.messages]
        return [body for body in bodies if "seq" in body]

    @property
    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.events]

    async def send(self, command: str, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        await self.send_raw(Frame(command, headers or {}, body).encode())

    async def send_raw(self, data: bytes) -> None:
        await self.websocket.send(json.dumps([data.decode()]) if self._sockjs else data.decode())

    async def connect(self, token: str, **headers: str) -> Frame:
        await self.send(
            "CONNECT",
            {"accept-version": "1.2", "heart-beat": "0,0", "Authorization": f"Bearer {token}", **headers},
        )
        return await self.expect("CONNECTED")

    async def subscribe(self, destination: str = ORDERS, name: str = "a", **headers: str) -> None:
        """Returns when it is live."""
        await self.send(
            "SUBSCRIBE", {"id": name, "destination": destination, "receipt": f"live-{name}", **headers}
        )
        await self.expect("RECEIPT")

    async def receive(self) -> Frame:
        """The next frame. Raises websockets' `ConnectionClosed` and `TimeoutError`."""
        while True:
            message = await asyncio.wait_for(self.websocket.recv(), TIMEOUT_SECONDS)
            assert isinstance(message, str)
            texts = self._open(message) if self._sockjs else [message]
            for text in texts:
                if text == "\n":
                    self.beats += 1
                    continue
                assert text.endswith("\0"), "each message is a whole frame"
                self.frames.append(parse(text[:-1]))
                return self.frames[-1]

    def _open(self, message: str) -> list[str]:
        if message[0] == "a":
            return list(json.loads(message[1:]))
        assert message[0] in "ohc", message
        self.beats += message == "h"
        return []

    async def expect(self, command: str) -> Frame:
        """Receive until a frame of that command comes; others are kept."""
        while (frame := await self.receive()).command != command:
            assert frame.command != "ERROR", frame
        return frame

    async def receive_events(self, count: int) -> list[dict[str, Any]]:
        while len(self.events) < count:
            await self.receive()
        return self.events

    async def receive_close(self) -> int:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.receive()
        return self.websocket.close_code or 0


def parse(text: str) -> Frame:
    """A server's frame; 1.2's escapes."""
    head, _, body = text.partition("\n\n")
    command, *lines = head.split("\n")
    pairs = (line.split(":", 1) for line in lines)
    return Frame(command, {unescape(name): unescape(value) for name, value in pairs}, body.encode())


def unescape(text: str) -> str:
    for escape, character in (("\\r", "\r"), ("\\n", "\n"), ("\\c", ":"), ("\\\\", "\\")):
        text = text.replace(escape, character)
    return text


@contextlib.asynccontextmanager
async def stomp(
    gateway: ReceiverProcess,
    token: str | None = None,
    *,
    path: str = "/stomp",
    subprotocols: Sequence[str] = (),
    headers: dict[str, str] | None = None,
    sock: socket.socket | None = None,
) -> AsyncIterator[StompClient]:
    """A client; with a token, it is connected when this begins."""
    async with connect(
        f"ws://127.0.0.1:{gateway.port}{path}",
        sock=sock,
        subprotocols=list(subprotocols) or None,  # type: ignore[arg-type] # plain texts will do
        additional_headers=headers,
        proxy=None,
    ) as websocket:
        client = StompClient(websocket, sockjs=path.count("/") == 4)
        if token is not None:
            await client.connect(token)
        yield client
