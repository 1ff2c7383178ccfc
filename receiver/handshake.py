"""From an HTTP upgrade to a socket of our own: the WebSocket handshake, RFC 6455 4.2.

uvicorn gives an upgraded connection to the class that its `ws` option names. This one runs the ASGI
app for routing, authentication and acceptance, as any other would. What differs is what comes after
`websocket.accept`: the app takes the transport over (`take_over`) with a protocol of its own, and this
object goes, and with it the request's headers, scope and queue. A connection that lives for hours then
costs one small object, and what is sent to it passes no task, no queue and no ASGI message.

The app must take over right after accepting; an app that doesn't is closed with 1011.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import unquote

from receiver.frames import close_frame

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

EXTENSION = "orderbell.take_over"
HANDSHAKE_SECONDS = 5.0
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

logger = logging.getLogger(__name__)
P = TypeVar("P", bound=asyncio.BaseProtocol)


class Handshake(asyncio.Protocol):
    """uvicorn's `ws` protocol class; it lives until the app has accepted or refused."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._connections = server_state.connections
        self._tasks = server_state.tasks
        self._transport: asyncio.Transport
        self._accept_key = b""
        self._refusal: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._accepted = False
        self._over = False  # accepted and taken over, or refused, or lost
        self._started = False
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
        """The request's head, which uvicorn's HTTP parser has checked and written out again.

        Bytes that follow it too soon, before the answer, break RFC 6455 4.1 and end the connection.
        """
        if self._started or self._over:
            self._give_up()
            return
        head, _, rest = data.partition(b"\r\n\r\n")
        request, *lines = head.split(b"\r\n")
        headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        if rest or not self._check(request, dict(headers)):
            return
        self._started = True
        task = self._loop.create_task(self._run_app(_scope(self._transport, self._config, request, headers)))
        task.add_done_callback(self._tasks.discard)
        self._tasks.add(task)  # uvicorn owns it: it waits for it, and cancels it, when it shuts down

    def _check(self, request: bytes, headers: dict[bytes, bytes]) -> bool:
        if not request.startswith(b"GET "):
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
        scope["extensions"][EXTENSION] = self._take_over
        scope["state"] = self._app_state.copy()
        try:
            await self._config.loaded_app(scope, self._receive, self._send)
        except Exception:
            # One request's failure; the server goes on. Nobody but the log is told what it was.
            logger.exception("the handshake failed")
        if self._over:
            return
        if self._accepted:
            self._transport.write(close_frame(1011, "not taken over"))
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
        if kind == "websocket.accept" and not self._accepted:
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
        self._transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
        self._accepted = True

    def _take_over(self, protocol: P) -> P:
        """Hand the socket to `protocol`; its `connection_made` is called at once."""
        assert self._accepted
        if self._over:
            raise OSError("the connection is gone")
        self._transport.set_protocol(protocol)
        self._end()
        protocol.connection_made(self._transport)
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


def _scope(
    transport: asyncio.Transport, config: Config, request: bytes, headers: list[tuple[bytes, bytes]]
) -> dict[str, Any]:
    target = request.split(b" ")[1]
    raw_path, _, query = target.partition(b"?")
    offered = b",".join(value for name, value in headers if name == b"sec-websocket-protocol")
    client, server = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    return {
        "type": "websocket",
        "asgi": {"version": config.asgi_version, "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "wss" if transport.get_extra_info("sslcontext") else "ws",
        "client": client[:2] if isinstance(client, tuple) else None,
        "server": server[:2] if isinstance(server, tuple) else None,
        "root_path": config.root_path,
        "path": config.root_path + unquote(raw_path.decode("latin-1")),
        "raw_path": config.root_path.encode() + raw_path,
        "query_string": query,
        "headers": headers,
        "subprotocols": [token.strip().decode("latin-1") for token in offered.split(b",") if token.strip()],
        "extensions": {"websocket.http.response": {}},
    }
