"""From an HTTP upgrade to a socket of our own: the WebSocket handshake, RFC 6455 4.2.

It runs the ASGI app for routing, authentication and acceptance, as uvicorn's own classes do. What differs
is what comes after `websocket.accept`: the app takes the transport over (`take_over`) with a protocol of
its own, and this object goes, and with it the request's headers, scope and queue. A connection that lives
for hours then costs one small object, and what is sent to it passes no task, no queue and no ASGI message.

The app must take over right after accepting; an app that doesn't is closed with 1011. The answer to the
handshake leaves with the first that the new protocol writes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast
from urllib.parse import unquote

from receiver.transports.websocket.frames import close_frame

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

EXTENSION = "orderbell.take_over"
HANDSHAKE_SECONDS = 5.0
HOLD_SECONDS = 0.1  # for the answer to wait for what is said first; that may need a server that is away
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

logger = logging.getLogger(__name__)


class Taking(Protocol):
    """What may take a connection over: an `asyncio.Protocol` that writes to its `writer`."""

    writer: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...


P = TypeVar("P", bound=Taking)


class Handshake(asyncio.Protocol):
    """Has the connection until the app has accepted or refused."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
    ) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._connections = server_state.connections
        self._tasks = server_state.tasks
        self._transport: asyncio.Transport
        self._accept_key = b""
        self._refusal: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._acceptance = b""  # the answer that accepts
        self._over = False  # accepted and taken over, or refused, or lost
        self._connect_told = False
        self._lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by class
        self._connections.add(self)  # type: ignore[arg-type] # uvicorn lists only its own classes
        self._deadline = self._loop.call_later(HANDSHAKE_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._lost.set()

    def data_received(self, data: bytes) -> None:
        """Bytes that follow the head too soon, before the answer, break RFC 6455 4.1."""
        self._give_up()

    def begin(self, request: dict[str, Any], target: bytes) -> None:
        """With uvicorn's scope of the request, which lacks all that depends on its target."""
        if self._check(request["method"], dict(request["headers"])):
            scope = _scope(request, target)
            task = self._loop.create_task(self._run_app(scope))
            task.add_done_callback(self._tasks.discard)
            self._tasks.add(task)  # uvicorn owns it: it waits for it, and cancels it, when it shuts down

    def _check(self, method: str, headers: dict[bytes, bytes]) -> bool:
        if method != "GET":
            return self._answer(405, [(b"allow", b"GET")])
        if headers.get(b"sec-websocket-version") != b"13":
            return self._answer(426, [(b"sec-websocket-version", b"13"), (b"upgrade", b"websocket")])
        key = headers.get(b"sec-websocket-key", b"")
        try:
            valid = len(base64.b64decode(key, validate=True)) == 16
        except binascii.Error:
            valid = False
        if not valid:
            return self._answer(400, [])
        self._accept_key = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        return True

    async def _run_app(self, scope: dict[str, Any]) -> None:
        scope["extensions"] = {"websocket.http.response": {}, EXTENSION: self._take_over}
        try:
            await self._config.loaded_app(scope, self._receive, self._send)
        except Exception:
            # One request's failure; the server goes on. Nobody but the log is told what it was.
            logger.exception("the handshake failed")
        if self._over:
            return
        if self._acceptance:
            self._transport.write(self._acceptance + close_frame(1011, "not taken over"))
            self._transport.close()
        else:
            self._answer(500, [])

    async def _receive(self) -> dict[str, Any]:
        if not self._connect_told:
            self._connect_told = True
            return {"type": "websocket.connect"}
        await self._lost.wait()
        return {"type": "websocket.disconnect", "code": 1006}

    async def _send(self, message: Any) -> None:
        if self._over:
            raise OSError("the connection is gone or has been taken over")
        kind = message["type"]
        if kind == "websocket.accept" and not self._acceptance:
            self._accept(message.get("subprotocol"), message.get("headers", ()))
        elif kind == "websocket.close":
            self._answer(403, [])
        elif kind == "websocket.http.response.start":
            self._refusal = (message["status"], list(message.get("headers", ())))
        elif kind == "websocket.http.response.body" and self._refusal:
            self._answer(*self._refusal, message.get("body", b""))
        else:
            raise RuntimeError(f"the handshake does not send {kind!r}")

    def _accept(self, subprotocol: str | None, headers: Any) -> None:
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"upgrade: websocket",
            b"connection: Upgrade",
            b"sec-websocket-accept: " + self._accept_key,
        ]
        if subprotocol:
            lines.append(b"sec-websocket-protocol: " + subprotocol.encode())
        lines += [name + b": " + value for name, value in headers]
        self._acceptance = b"\r\n".join(lines) + b"\r\n\r\n"

    def _take_over(self, protocol: P) -> P:
        """Hand the socket to `protocol`; its `connection_made` is called at once."""
        assert self._acceptance
        if self._over:
            raise OSError("the connection is gone")
        self._transport.set_protocol(cast("asyncio.Protocol", protocol))
        self._end()
        protocol.connection_made(self._transport)
        protocol.writer = cast("asyncio.Transport", Held(protocol, self._transport, self._acceptance))
        return protocol

    def _answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> bool:
        lines = [b"HTTP/1.1 %d %b" % (status, HTTPStatus(status).phrase.encode()), b"connection: close"]
        lines += [n + b": " + v for n, v in headers if n.lower() not in (b"content-length", b"connection")]
        lines.append(b"content-length: %d" % len(body))
        self._transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        self._transport.close()
        self._end()
        return False

    def _give_up(self) -> None:
        self._transport.abort()
        self._end()

    def _end(self) -> None:
        self._over = True
        self._deadline.cancel()
        self._connections.discard(self)

    def shutdown(self) -> None:
        """uvicorn calls this when it ends while the handshake is under way."""
        if not self._over:
            self._answer(503, [])


class Held:
    """A transport in whose place the first bytes wait for those that follow: one system call and one segment
    less for each who connects. For `HOLD_SECONDS` at most, then they leave alone. Who sends past a transport
    must have written through it before: a connection is in no feed until it was told hello.
    """

    __slots__ = ("_first", "_protocol", "_timer", "_transport")

    def __init__(self, protocol: Taking, transport: asyncio.Transport, first: bytes) -> None:
        self._protocol = protocol
        self._transport = transport
        self._first = first
        self._timer = asyncio.get_running_loop().call_later(HOLD_SECONDS, self.write, b"")

    def write(self, data: bytes) -> None:
        self._timer.cancel()
        self._protocol.writer = self._transport
        if not self._transport.is_closing():
            self._transport.write(self._first + data)

    def close(self) -> None:
        self.write(b"")
        self._transport.close()

    def abort(self) -> None:
        self._timer.cancel()
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()


def _scope(request: dict[str, Any], target: bytes) -> dict[str, Any]:
    raw_path, _, query = target.partition(b"?")
    root_path: str = request["root_path"]
    offered = b",".join(value for name, value in request["headers"] if name == b"sec-websocket-protocol")
    return request | {
        "type": "websocket",
        "scheme": "wss" if request["scheme"] == "https" else "ws",
        "path": root_path + unquote(raw_path.decode("latin-1")),
        "raw_path": root_path.encode() + raw_path,
        "query_string": query,
        "subprotocols": [token.strip().decode("latin-1") for token in offered.split(b",") if token.strip()],
    }
