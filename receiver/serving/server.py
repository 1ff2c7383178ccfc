"""uvicorn for sockets that live for hours, and for clients that mean no good.

What uvicorn 0.54 leaves open and what is done about it here (each with a test in test_server.py; the
versions are pinned in pyproject.toml, because this rests on its internals):

* a client that never ends its request's head keeps a connection for ever: `HEADER_SECONDS`, `MAX_HEAD`;
* WebSockets are closed all in the same moment when it shuts down: the gateway drains them first;
* it waits without end for connections that don't close: `timeout_graceful_shutdown`;
* after a clean shutdown it raises the signal again, and the exit status says that it was killed;
* it wakes up ten times a second to look for a signal, most of what an idle gateway does: `main_loop`.

What it leaves open behind the WebSocket handshake doesn't concern us:
receiver/transports/websocket/handshake.py takes over.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from typing import TYPE_CHECKING, Any, cast

import structlog
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import is_ssl

from receiver.transports.websocket.handshake import Handshake
from shared.process.garbage import spare_what_lives
from shared.process.listening import BACKLOG, url_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import FrameType

    from starlette.applications import Starlette

    from receiver.gateway import Gateway
    from shared.settings import ReceiverSettings

HEADER_SECONDS = 5.0  # for a request's whole head
MAX_HEAD = 32 * 1024  # bytes; room for a large cookie and a token
_OTHER_FILES = 100  # the listening socket, Redis, the sender, logs
GRACE_SECONDS = 5  # for plain requests that are under way when the drain is over
_TICK_SECONDS = 0.1  # between two looks whether the drain is to be cut short

logger = structlog.get_logger(__name__)


class BoundedHttp(HttpToolsProtocol):
    """HTTP/1.1 with a deadline and a limit for what comes before a body."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # What uvicorn's own does, but for the addresses: it takes them from the transport's socket object,
        # which uvloop then keeps, with both addresses, for as long as the connection lives.
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        self.server = transport.get_extra_info("sockname")[:2]
        self.client = transport.get_extra_info("peername")[:2]
        self.scheme = "https" if is_ssl(transport) else "http"
        self._head_bytes = 0
        self._in_head = True
        self._head_deadline = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_deadline.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._in_head:  # the next request of a connection that was kept alive
            self._in_head = True
            self._head_bytes = 0
            self._head_deadline = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def on_headers_complete(self) -> None:
        self._head_deadline.cancel()
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD:
            self._give_up()

    def handle_websocket_upgrade(self) -> None:
        # uvicorn's own writes the request out again, for its WebSocket classes to parse.
        self.connections.discard(self)
        handshake = Handshake(self.config, self.server_state)
        handshake.connection_made(self.transport)
        self.transport.set_protocol(handshake)
        handshake.begin(cast("dict[str, Any]", self.scope), self.url)

    def _give_up(self) -> None:
        self.transport.abort()


class Server(uvicorn.Server):
    """Drains the gateway before it shuts down, and exits with 0 when it was asked to end."""

    def __init__(
        self, config: uvicorn.Config, gateway: Gateway, drain_seconds: float, leaving: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._drain_seconds = drain_seconds
        self._leaving = leaving
        self._loop: asyncio.AbstractEventLoop | None = None  # while it serves
        self._leave = asyncio.Event()

    async def main_loop(self) -> None:
        """Until a signal comes. Each second, the time is set that answers carry."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._leave.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._leave.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gateway.draining = True  # not ready, before anybody is sent away
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        self._leaving()
        logger.info("draining", connections=self._gateway.heartbeat.count, seconds=self._drain_seconds)
        await self._drain()
        await super().shutdown(sockets)
        self._captured_signals.clear()

    async def _drain(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            drain = tasks.create_task(self._gateway.drain(self._drain_seconds))
            while not drain.done() and not self.force_exit:
                await asyncio.wait([drain], timeout=_TICK_SECONDS)
            drain.cancel()


def serve(
    app: Starlette,
    gateway: Gateway,
    settings: ReceiverSettings,
    listening: socket.socket,
    leaving: Callable[[], None],
) -> None:
    """Run until SIGTERM or SIGINT; a second SIGINT skips the drain. `leaving` is called before it."""
    config = uvicorn.Config(
        app,
        http=BoundedHttp,
        ws=Handshake,  # any but None: BoundedHttp makes it
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=list(settings.forwarded_allow_ips),
        timeout_graceful_shutdown=GRACE_SECONDS,
        backlog=BACKLOG,
    )
    logger.info("listening", url=url_of(listening))
    Server(config, gateway, settings.drain_seconds, leaving).run(sockets=[listening])


def prepare_process(max_connections: int) -> None:
    """Room for so many connections: files, and a garbage collector that leaves them alone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < max_connections + _OTHER_FILES:
        logger.warning("the limit of open files is below ORDERBELL_MAX_CONNECTIONS", limit=hard, was=soft)
    spare_what_lives()
