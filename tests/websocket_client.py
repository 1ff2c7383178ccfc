"""A browser's side of the WebSocket transport, without a browser: what it received, in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from tests.processes import ReceiverProcess

SUBPROTOCOL = "cloudevents.json"
HEARTBEAT = "orderbell.heartbeat"  # may come at any moment
TIMEOUT_SECONDS = 10.0
UNREAD = "orderbell.unread"


class Client:
    """`events` are those with a place; `notices` are the gateway's own, the hello first."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.events: list[dict[str, Any]] = []
        self.notices: list[dict[str, Any]] = []

    @property
    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.events]

    async def receive(self) -> dict[str, Any]:
        """The next message but heartbeats and counts, which come when they come.

        Raises websockets' `ConnectionClosed` and `TimeoutError`.
        """
        message: dict[str, Any] = {"type": HEARTBEAT}
        while message["type"] in (HEARTBEAT, UNREAD):
            message = json.loads(await asyncio.wait_for(self.websocket.recv(), TIMEOUT_SECONDS))
        (self.events if "seq" in message else self.notices).append(message)
        return dict(message)

    async def receive_events(self, count: int) -> list[dict[str, Any]]:
        """Until it has had so many events in all."""
        while len(self.events) < count:
            await self.receive()
        return self.events

    async def receive_close(self) -> tuple[int, str]:
        """Until the gateway closes it: code and reason."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.receive()
        return self.websocket.close_code or 0, self.websocket.close_reason or ""

    async def report_seen(self, cursor: str) -> None:
        await self.send("orderbell.seen", {"cursor": cursor})

    async def send(self, kind: str, data: dict[str, Any]) -> None:
        event = {"specversion": "1.0", "id": "1", "source": "/tests", "type": kind, "data": data}
        await self.websocket.send(json.dumps(event))


@contextlib.asynccontextmanager
async def connected(
    gateway: ReceiverProcess,
    token: str | None,
    *,
    query: str = "",
    headers: dict[str, str] | None = None,
    subprotocols: Iterable[str] = (SUBPROTOCOL,),
    hello: bool = True,
) -> AsyncIterator[Client]:
    """With `hello`, it has arrived when this begins; what follows it has not been read."""
    headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
    url = gateway.websocket_url + (f"?{query}" if query else "")
    async with connect(
        url,
        subprotocols=list(subprotocols),  # type: ignore[arg-type] # plain texts will do
        additional_headers=headers,
        max_size=None,
        max_queue=None,
        proxy=None,
    ) as websocket:
        client = Client(websocket)
        if hello:
            assert (await client.receive())["type"] == "orderbell.hello"
        yield client
