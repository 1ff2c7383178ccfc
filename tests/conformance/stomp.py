"""STOMP, by a client of our own: one subscription for each channel of the token, and one for notices."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from typing import TYPE_CHECKING, Any

from websockets.exceptions import ConnectionClosed

from receiver.connections.connection import End
from receiver.transports.websocket.close_codes import CODES, Close
from tests.conformance.client import TIMEOUT_SECONDS, Client, Driver, Ended, socket_to
from tests.sockjs_client import xhr_socket
from tests.stomp_client import ORDERS, StompClient, stomp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from receiver.transports.stomp.frames import Frame
    from tests.processes import ReceiverProcess

NOTICES = "/user/queue/notices"
_ENDS = {code: end for end, code in CODES.items()} | {Close.PROTOCOL_ERROR: End.BAD_MESSAGE}


class StompConformanceClient(Client):
    """Each subscription has its own hello; here they count as one."""

    def __init__(self, client: StompClient, channels: int) -> None:
        super().__init__()
        self._client = client
        self._hellos: list[dict[str, Any]] = []
        self._channels = channels

    async def receive(self) -> None:
        try:
            frame = await self._client.receive()
        except ConnectionClosed:
            raise Ended from None
        if frame.command == "MESSAGE":
            self._take_message(json.loads(frame.body))

    def _take_message(self, message: dict[str, Any]) -> None:
        if message["type"] != "orderbell.hello":
            self.take(message)
            return
        self._hellos.append(message)
        if len(self._hellos) == self._channels:
            data = [
                hello["data"] for hello in sorted(self._hellos, key=lambda hello: hello["data"]["cursor"])
            ]
            cursor = ",".join(one["cursor"] for one in data)
            channels = [channel for one in data for channel in one["channels"]]
            # Events that subscriptions got meanwhile came after their own hello.
            self.notices.insert(0, message | {"data": data[0] | {"cursor": cursor, "channels": channels}})

    async def report_seen(self, cursor: str) -> None:
        place = cursor.partition("=")[2]
        [frame] = [frame for frame in self._client.messages if _is_of(frame, place)]
        await self._client.send("ACK", {"id": frame.headers["ack"]})

    async def report_seen_alone(self, cursor: str) -> None:
        place, _, seq = cursor.rpartition(".")
        headers = {"id": "each", "destination": ORDERS, "ack": "client-individual"}
        await self._client.send("SUBSCRIBE", headers | {"after": f"{place}.{int(seq) - 1}"})
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while not (
                found := [one for one in self._client.messages if one.headers["subscription"] == "each"]
            ):
                await self.receive()
        await self._client.send("ACK", {"id": found[0].headers["ack"]})

    def end(self) -> End | None:
        return _ENDS.get(self._client.websocket.close_code or 0)  # type: ignore[call-overload, no-any-return]


def _is_of(frame: Frame, place: str) -> bool:
    return frame.headers["destination"] == ORDERS and frame.headers.get("place") == place


class StompDriver(Driver):
    name = "stomp"
    path = "/stomp"

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
        async with self._client(gateway, buffered=buffered) as client:
            destinations = [ORDERS, *(f"/topic/{topic}" for topic in _topics(token or ""))]
            conforming = StompConformanceClient(client, len(destinations))
            with contextlib.suppress(ConnectionClosed):
                await client.send("CONNECT", {"accept-version": "1.2", "passcode": token or ""})
                await client.send("SUBSCRIBE", {"id": "notices", "destination": NOTICES})
                for destination in destinations:
                    headers = {"id": destination, "destination": destination, "ack": "client"}
                    await client.send("SUBSCRIBE", headers | ({"after": after} if after else {}))
            if greeted:
                await conforming.receive_notice("hello")
            yield conforming

    @contextlib.asynccontextmanager
    async def _client(self, gateway: ReceiverProcess, *, buffered: bool) -> AsyncIterator[StompClient]:
        async with stomp(gateway, path=self.path, sock=socket_to(gateway, buffered=buffered)) as client:
            yield client

    def code(self, end: End) -> str:
        return str(int(CODES[end]))


class SockJsDriver(StompDriver):
    name = "sockjs"
    path = "/websocket/000/session/websocket"


class XhrDriver(StompDriver):
    """SockJS where no WebSocket passes: its first choice then is `xhr_streaming`."""

    name = "sockjs-xhr"

    @contextlib.asynccontextmanager
    async def _client(self, gateway: ReceiverProcess, *, buffered: bool) -> AsyncIterator[StompClient]:
        async with xhr_socket(gateway, buffered=buffered) as socket:
            yield StompClient(socket, sockjs=True)


def _topics(token: str) -> list[str]:
    """The topics that the token names; none if it is not a token."""
    parts = token.split(".")
    if len(parts) != 3:
        return []
    claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
    return list(claims.get("topics", []))
