"""WebSocket, subprotocol `cloudevents.json`: the CloudEvents WebSocket binding, structured mode.

Refused before accepting is what no page should retry in the same way (a foreign origin, no subprotocol
that we know) and what a balancer should see (overload, a drain). What a page must be able to tell from
its own code, foremost a token that is no longer good, is said after accepting, with a close code: a
browser shows its page nothing of a refused handshake.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from receiver import metrics
from receiver.access.authentication import Authentication, TokenInUrl
from receiver.access.identity import InvalidToken, KeysUnavailable
from receiver.feeds.hub import Close
from receiver.transports.websocket.connection import Connection
from receiver.transports.websocket.handshake import EXTENSION
from shared.cursors import InvalidCursor, parse_cursors
from shared.problems import Problem

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from receiver.access.identity import Identity
    from receiver.access.origins import Origins
    from receiver.gateway import Gateway
    from shared.channels import Channel
    from shared.cursors import Place

SUBPROTOCOL = "cloudevents.json"
AUTHENTICATE_SECONDS = 5.0


class WebSocketTransport:
    """The endpoint `GET /events` with `Upgrade: websocket`."""

    def __init__(self, gateway: Gateway, authentication: Authentication, origins: Origins) -> None:
        self._gateway = gateway
        self._authentication = authentication
        self._origins = origins

    async def endpoint(self, websocket: WebSocket) -> None:
        if refusal := self._refusal(websocket):
            metrics.refused.labels(refusal.kind).inc()
            await websocket.send_denial_response(refusal.response())
            return
        await websocket.accept(SUBPROTOCOL)
        connection: Connection = websocket.scope["extensions"][EXTENSION](Connection(self._gateway))
        self._gateway.open(connection)
        try:
            await self._begin(websocket, connection)
        except Exception:
            connection.close(Close.INTERNAL_ERROR, "internal error")
            raise

    def _refusal(self, websocket: WebSocket) -> Problem | None:
        if not self._origins.accept(websocket):
            return Problem(403, "foreign-origin", "This origin is not in ORDERBELL_ALLOWED_ORIGINS.")
        if SUBPROTOCOL not in websocket.scope["subprotocols"]:
            return Problem(400, "unknown-subprotocol", f"Offer the subprotocol {SUBPROTOCOL}.")
        if self._gateway.draining or self._gateway.full:
            kind = "draining" if self._gateway.draining else "overloaded"
            return Problem(503, kind, "Come back in a moment.", {"retry-after": "2"})
        return None

    async def _begin(self, websocket: WebSocket, connection: Connection) -> None:
        """Authenticate, then serve; what is wrong with the request is a close code."""
        try:
            cursors = _cursors(websocket)
            identity = await self._authentication.identify(websocket)
            if identity is None:
                identity = await self._authenticate_in_band(connection)
        except (InvalidCursor, TokenInUrl) as error:
            connection.close(Close.BAD_MESSAGE, str(error))
        except InvalidToken as error:
            connection.close(Close.UNAUTHENTICATED, str(error))
        except KeysUnavailable as error:
            connection.close(Close.TRY_AGAIN_LATER, str(error))
        else:
            if identity is not None:
                await self._gateway.serve(connection, identity, cursors)

    async def _authenticate_in_band(self, connection: Connection) -> Identity | None:
        """The identity of its first message; None where the connection ended before it proved any."""
        connection.writer.write(b"")  # the answer to the handshake, for which it waits
        proof = self._gateway.authenticate(connection)
        await asyncio.wait([proof], timeout=AUTHENTICATE_SECONDS)
        if not proof.done():
            raise InvalidToken(f"no token within {AUTHENTICATE_SECONDS:g} s")
        return None if proof.cancelled() else proof.result()


def _cursors(websocket: WebSocket) -> dict[Channel, Place]:
    after = websocket.query_params.get("after") or websocket.headers.get("last-event-id", "")
    return parse_cursors(after)
