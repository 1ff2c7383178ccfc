"""The WebSocket handshake, RFC 6455 4.2: what a request must contain, and the answer that accepts it.

A connection that lives for hours costs one small object, and no task, queue or ASGI message is between it and
its socket: the edge hands the socket over (`accept`), and the request's objects are freed. The answer to the
handshake leaves together with the first bytes that the new protocol writes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar, cast

from shared.process.request_ids import request_id_in

if TYPE_CHECKING:
    from shared.process.edge import Edge
    from shared.process.head import Head, Header

HOLD_SECONDS = 0.1  # that the answer waits for the first message, which may need a server that is away
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Taking(Protocol):
    """A protocol that may take a connection over: an `asyncio.Protocol` that writes to its `writer`."""

    writer: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...


P = TypeVar("P", bound=Taking)


class Fault(NamedTuple):
    """An invalid handshake, and how to answer it."""

    status: int
    headers: list[Header]


def fault_of(head: Head) -> Fault | None:
    """What is wrong with a request that asks for a WebSocket; None for a valid handshake."""
    if head.method != "GET":
        return Fault(405, [(b"allow", b"GET")])
    if list(head.values(b"sec-websocket-version")) != [b"13"]:
        # RFC 9110 7.8: `Upgrade` goes with this option; the connection ends nevertheless.
        upgrade = [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
        return Fault(426, [(b"sec-websocket-version", b"13"), *upgrade])
    keys = head.values(b"sec-websocket-key")
    try:
        valid = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == 16
    except binascii.Error:
        valid = False
    return None if valid else Fault(400, [])


def offers(head: Head, subprotocol: str) -> bool:
    return subprotocol.encode() in head.tokens(b"sec-websocket-protocol")


def accept(edge: Edge, head: Head, subprotocol: str | None, protocol: P) -> P:
    """Hand the socket to `protocol`, behind the answer that accepts. The head must be valid.

    Raises as `Edge.take_over`.
    """
    key = head.values(b"sec-websocket-key")[0]
    accepted = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    answer = (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        b"sec-websocket-accept: %b\r\n" % accepted
    )
    if subprotocol is not None:
        answer += b"sec-websocket-protocol: %b\r\n" % subprotocol.encode()
    if request_id := request_id_in(head.headers):
        answer += b"x-request-id: %b\r\n" % request_id.encode()
    answer += b"\r\n"
    transport = edge.take_over(protocol)
    protocol.writer = cast("asyncio.Transport", Held(protocol, transport, answer))
    return protocol


class Held:
    """Takes a transport's place while the first bytes wait for those that follow, which saves each connection
    a system call and a packet. After `HOLD_SECONDS` at most they leave alone. Code that bypasses it must have
    written through it before: so a connection enters no feed before its hello.
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
