"""WebSocket, by the library `websockets`."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from receiver.transports.websocket.close_codes import CODES
from tests.conformance.client import Client, Driver, Ended, socket_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from receiver.connections.connection import End
    from tests.processes import ReceiverProcess

_ENDS = {code: end for end, code in CODES.items()}


class WebSocketClient(Client):
    def __init__(self, websocket: ClientConnection) -> None:
        super().__init__()
        self._websocket = websocket

    async def receive(self) -> None:
        try:
            self.take(json.loads(await self._websocket.recv()))
        except ConnectionClosed:
            raise Ended from None

    async def report_seen(self, cursor: str) -> None:
        event = {"specversion": "1.0", "id": "1", "source": "/tests", "type": "orderbell.seen"}
        await self._websocket.send(json.dumps(event | {"data": {"cursor": cursor}}))

    def end(self) -> End | None:
        return _ENDS.get(self._websocket.close_code or 0)  # type: ignore[call-overload, no-any-return]


class WebSocketDriver(Driver):
    name = "websocket"

    @contextlib.asynccontextmanager
    async def connected(
        self,
        gateway: ReceiverProcess,
        token: str | None,
        *,
        after: str = "",
        greeted: bool = True,
        buffered: bool = True,
    ) -> AsyncIterator[Client]:
        async with connect(
            gateway.websocket_url + (f"?after={after}" if after else ""),
            sock=socket_to(gateway, buffered=buffered),
            subprotocols=["cloudevents.json"],  # type: ignore[list-item] # a plain text will do
            additional_headers={"Authorization": f"Bearer {token}"} if token else {},
            max_size=None,
            max_queue=None if buffered else 1,
            close_timeout=1,
            proxy=None,
        ) as websocket:
            client = WebSocketClient(websocket)
            if greeted:
                await client.receive_notice("hello")
            yield client

    def code(self, end: End) -> str:
        return str(int(CODES[end]))
