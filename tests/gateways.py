"""A whole gateway in the test's process: real Redis, sender and sockets; only the handshake is spared."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from receiver.access.authentication import Authentication
from receiver.access.identity import Identity
from receiver.access.tickets import Tickets
from receiver.access.verifier import create_verifier
from receiver.feeds.history import History
from receiver.gateway import Gateway
from receiver.inquiries import Inquiries
from receiver.transports.websocket.connection import WebSocketConnection
from shared.cursors import parse_cursors
from shared.redis.connect import connect, pipelines_to
from shared.redis.inquiries import Answerer
from shared.redis.keys import Names
from shared.redis.signatures import NO_SIGNATURES, Signatures
from shared.settings import ReceiverSettings
from tests.asking import OverHttpx
from tests.waiting import await_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    import httpx2

    from receiver.feeds.pace import Pace
    from receiver.subscription.subscription import Pace as HearingPace

_FOR_EVER = 4_000_000_000.0


@dataclass
class Browser:
    """The other end of a connection: everything it received, in order."""

    connection: WebSocketConnection
    socket: socket.socket
    protocol: ClientProtocol
    events: list[dict[str, Any]] = field(default_factory=list)
    notices: list[dict[str, Any]] = field(default_factory=list)
    types: list[str] = field(default_factory=list)  # of all of them, as they came
    close: int | None = None  # the code

    @property
    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.events]

    @property
    def resets(self) -> list[dict[str, Any]]:
        return [notice["data"] for notice in self.notices if notice["type"] == "orderbell.reset"]

    @property
    def seen(self) -> list[str]:
        """The cursors up to which another device has shown everything."""
        return [notice["data"]["cursor"] for notice in self.notices if notice["type"] == "orderbell.seen"]

    @property
    def greeted(self) -> bool:
        return any(notice["type"] == "orderbell.hello" for notice in self.notices)

    async def send(self, data: bytes) -> None:
        """Send these bytes as they are; `protocol` makes frames."""
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def listen(self) -> None:
        """Until the connection ends."""
        with contextlib.suppress(ConnectionError):
            while data := await asyncio.get_running_loop().sock_recv(self.socket, 65536):
                self.protocol.receive_data(data)
                for frame in self.protocol.events_received():
                    assert isinstance(frame, Frame)
                    self.take(frame)
                if answer := b"".join(self.protocol.data_to_send()):
                    await self.send(answer)

    def take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT:
            message = json.loads(bytes(frame.data))
            (self.events if "seq" in message else self.notices).append(message)
            self.types.append(message.get("type", "event"))
        elif frame.opcode is Opcode.CLOSE:
            self.close = int.from_bytes(frame.data[:2], "big") if frame.data else 1005

    async def wait_seqs(self, seqs: list[int]) -> None:
        """Wait for so many events; they must have these seqs."""
        await await_until(lambda: len(self.events) >= len(seqs) or self.close)
        assert self.seqs == seqs, (self.seqs, self.close)

    async def wait_greeted(self) -> None:
        await await_until(lambda: self.greeted or self.close)
        assert self.greeted, f"closed with {self.close}"

    async def wait_close(self) -> int:
        await await_until(lambda: self.close is not None)
        assert self.close is not None
        return self.close


class RunningGateway:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    @property
    def hears(self) -> bool:
        return self.gateway.hears

    @asynccontextmanager
    async def connected(
        self, customer: str = "alice", after: str = "", *, greeted: bool = True, reading: bool = True
    ) -> AsyncIterator[Browser]:
        """A browser of that customer, connected until this ends."""
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        connection = WebSocketConnection(self.gateway.life)
        await asyncio.get_running_loop().create_connection(lambda: connection, sock=ours)
        self.gateway.life.open(connection)
        protocol = ClientProtocol(parse_uri("ws://localhost/"), state=OPEN, max_size=None)
        browser = Browser(connection, theirs, protocol)
        identity = Identity(customer, (), expires_at=_FOR_EVER)
        serving = asyncio.create_task(self.gateway.life.serve(connection, identity, parse_cursors(after)))
        listening = asyncio.create_task(browser.listen()) if reading else None
        try:
            if greeted:
                await browser.wait_greeted()
            yield browser
        finally:
            for task in filter(None, (serving, listening)):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            connection.abort("the test is over")
            theirs.close()


@asynccontextmanager
async def run_gateway(
    sender: httpx2.AsyncClient,
    redis_url: str,
    key_prefix: str,
    *,
    hears: bool = True,
    pace: Pace | None = None,
    hearing_pace: HearingPace | None = None,
    not_ready: Iterable[str] = (),
    signatures: Signatures = NO_SIGNATURES,
    name: str = "in-process",
) -> AsyncIterator[RunningGateway]:
    """With `hears`, it is ready when this begins."""
    settings = ReceiverSettings(
        redis_url=redis_url,
        key_prefix=key_prefix,
        api_keys=(SecretStr("a-key-for-tests-only"),),
        jwt_secret=SecretStr("a-secret-of-thirty-two-bytes-or-more"),
    )
    async with connect(redis_url, retries=0) as redis, pipelines_to(redis) as pipelines:
        tickets = Tickets(pipelines, Names.of(redis_url, key_prefix))
        authentication = Authentication(create_verifier(settings), tickets, cookie=settings.jwt_cookie)
        gateway = Gateway(
            redis,
            pipelines,
            History(OverHttpx(sender)),
            authentication,
            settings,
            name=name,
            pace=pace,
            hearing_pace=hearing_pace,
            signatures=signatures,
        )
        answerer = Answerer(pipelines, Names.of(redis_url, key_prefix), signatures)
        inquiries = Inquiries(gateway, answerer, lambda: not_ready)
        running = asyncio.create_task(gateway.run())
        answering = asyncio.create_task(inquiries.run())
        try:
            if hears:
                await await_until(lambda: gateway.keeper.sources.asks_redis)
            yield RunningGateway(gateway)
        finally:
            for task in (running, answering):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
