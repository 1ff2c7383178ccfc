"""`GET /events` as WebSocket, subprotocol `cloudevents.json`: the CloudEvents WebSocket binding,
structured mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.access.authentication import TokenInUrl
from receiver.access.identity import ForbiddenToken, InvalidToken, KeysUnavailable
from receiver.connections.connection import End
from receiver.transports.websocket import handshake
from receiver.transports.websocket.connection import WebSocketConnection
from receiver.transports.websocket.upgrade import UnknownSubprotocol, UpgradeEndpoint
from shared.cursors import InvalidCursor, parse_after, parse_cursors
from shared.process.head import first_value

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from receiver.access.identity import Identity
    from shared.channels import Channel
    from shared.cursors import Place
    from shared.process.head import Head

PATH = b"/events"
SUBPROTOCOL = "cloudevents.json"


class WebSocketTransport(UpgradeEndpoint):
    def serves(self, path: bytes) -> bool:
        return path == PATH

    def subprotocol(self, head: Head) -> str:
        if not handshake.offers(head, SUBPROTOCOL):
            raise UnknownSubprotocol(f"Offer the subprotocol {SUBPROTOCOL}.")
        return SUBPROTOCOL

    def name(self, head: Head) -> str:
        return WebSocketConnection.transport

    def connection(self, request: HTTPConnection) -> WebSocketConnection:
        return WebSocketConnection(self._life, self._gateway.websocket_limits)

    async def begin(self, request: HTTPConnection, connection: WebSocketConnection) -> None:
        """Authenticate, then serve. Faults of the request become close codes."""
        try:
            cursors = _cursors(request)
            identity = await self._authentication.identify(request)
            if identity is None:
                identity = await self._authenticate_in_band(connection, request)
        except (InvalidCursor, TokenInUrl) as error:
            connection.end(End.BAD_MESSAGE, str(error))
        except ForbiddenToken as error:
            connection.end(End.FORBIDDEN, str(error))
        except InvalidToken as error:
            connection.end(End.UNAUTHENTICATED, str(error))
        except KeysUnavailable as error:
            connection.end(End.TRY_AGAIN_LATER, str(error))
        else:
            if identity is not None:
                await self._life.serve(connection, identity, cursors)

    async def _authenticate_in_band(
        self, connection: WebSocketConnection, request: HTTPConnection
    ) -> Identity | None:
        """The identity of its first message; None where the connection ended first."""
        connection.writer.write(b"")  # sends the answer to the handshake, for which the client waits
        return await self._life.wait_proof(connection, request)


def _cursors(request: HTTPConnection) -> dict[Channel, Place]:
    after = parse_after(request.scope["query_string"].decode("latin-1"))
    return after or parse_cursors(first_value(request.scope["headers"], b"last-event-id"))
