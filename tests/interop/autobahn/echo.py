"""A server that echoes, on the edge, the handshake and the connection of a gateway: for Autobahn's suite.

A gateway echoes nothing, takes no binary messages and ends floods; so that the suite finds only what the
codec does, this server has an echo, binary messages and no limits. Everything else is a gateway's own.

    python -m tests.interop.autobahn.echo 9001
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from uvicorn.loops.auto import auto_loop_factory
from websockets.frames import Frame, Opcode

from receiver.connections.clock import Clock
from receiver.connections.life import Life
from receiver.transports.limits import Allowance, WebSocketLimits
from receiver.transports.websocket import handshake
from receiver.transports.websocket.connection import Fragments, WebSocketConnection
from receiver.transports.websocket.frames import text_frame
from shared.process.listening import listen
from shared.process.server import Server, Service

if TYPE_CHECKING:
    from receiver.connections.connection import Connection
    from shared.process.edge import Edge
    from shared.process.head import Head

_ANY = 2**40
LIMITS = WebSocketLimits(
    buffer_bytes=_ANY,
    message_bytes=2**25,  # the suite's largest have 16 MiB
    message_fragments=_ANY,
    customers=Allowance(_ANY, _ANY, _ANY, _ANY),
    strangers=Allowance(_ANY, _ANY, _ANY, _ANY),
)


class EchoingLife(Life):
    """Sends each message back; nothing else of a gateway's life is needed here."""

    def __init__(self) -> None:
        self.clock = Clock(3600)

    def receive(self, connection: Connection, text: bytes) -> None:
        assert isinstance(connection, Echo)
        connection.write(text_frame(text))

    def leave(self, connection: Connection) -> None: ...

    def lost(self, connection: Connection) -> None:
        self.clock.discard(connection)


class Echo(WebSocketConnection):
    __slots__ = ("_binary",)

    def __init__(self, life: EchoingLife) -> None:
        super().__init__(life, LIMITS)
        self._binary: list[bytes] | None = None

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.BINARY:
            self._binary, self._fragments = (
                [],
                Fragments(is_text=False),
            )  # between two frames the parser must stay
        elif frame.opcode is not Opcode.CONT or self._binary is None:
            super()._take(frame)
            return
        self._binary.append(bytes(frame.data))
        if frame.fin and not self.closed:
            message, self._binary, self._fragments = b"".join(self._binary), None, None
            self.write(b"\x82" + text_frame(message)[1:])


async def serve(port: int) -> None:
    life = EchoingLife()

    def take(head: Head, edge: Edge) -> bool:
        if handshake.fault_of(head):
            return False
        echo = handshake.accept(edge, head, None, Echo(life))
        life.clock.add(echo)
        echo.writer.write(b"")  # the answer to the handshake
        return True

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 426, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with listen("127.0.0.1", port) as listening:
        ticking = asyncio.create_task(life.clock.run())
        await Server(Service(app, (), lambda _: None, take=take)).serve(sockets=[listening])
        ticking.cancel()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(serve(int(sys.argv[1])))
