"""WebSocket, subprotocol `cloudevents.json`: the CloudEvents WebSocket binding, structured mode.

Refused before accepting is what no page should retry in the same way (a foreign origin, no subprotocol
that we know) and what a balancer should see (overload, a drain). What a page must be able to tell from
its own code, foremost a token that is no longer good, is said after accepting, with a close code: a
browser shows its page nothing of a refused handshake.

The way from the edge is the hot path of a gateway to which everybody comes back: no router, no middleware
and no ASGI is on it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import HTTPConnection

from receiver import metrics
from receiver.access.authentication import Authentication, TokenInUrl
from receiver.access.identity import ForbiddenToken, InvalidToken, KeysUnavailable
from receiver.connections.connection import End
from receiver.transports.websocket import handshake
from receiver.transports.websocket.connection import WebSocketConnection
from shared.cursors import InvalidCursor, parse_after, parse_cursors
from shared.problems import MEDIA_TYPE, Problem

if TYPE_CHECKING:
    from receiver.access.identity import Identity
    from receiver.access.origins import Origins
    from receiver.gateway import Gateway
    from shared.channels import Channel
    from shared.cursors import Place
    from shared.process.edge import Edge, Head

PATH = b"/events"
SUBPROTOCOL = "cloudevents.json"

logger = logging.getLogger(__name__)


class WebSocketTransport:
    """`GET /events` with `Upgrade: websocket`."""

    def __init__(self, gateway: Gateway, authentication: Authentication, origins: Origins) -> None:
        self._gateway = gateway
        self._life = gateway.life
        self._authentication = authentication
        self._origins = origins

    def take(self, head: Head, edge: Edge) -> bool:
        """What the edge asks with each request that wants to upgrade: whether this one was ours."""
        if head.path != PATH or b"websocket" not in head.upgrade:
            return False
        if fault := handshake.fault_of(head):
            edge.answer(*fault)
            return True
        request = HTTPConnection(head.scope())
        if refusal := self._refusal(request, head, edge):
            metrics.refused.labels(refusal.kind).inc()
            _refuse(edge, refusal)
            return True
        connection = handshake.accept(edge, head, SUBPROTOCOL.encode(), WebSocketConnection(self._life))
        self._life.open(connection)
        edge.start(self._run(request, connection))
        return True

    async def _run(self, request: HTTPConnection, connection: WebSocketConnection) -> None:
        try:
            await self._begin(request, connection)
        except Exception:
            # One connection's failure; the gateway goes on. Nobody but the log is told what it was.
            logger.exception("a connection could not be begun")
            connection.end(End.INTERNAL_ERROR, "internal error")

    def _refusal(self, request: HTTPConnection, head: Head, edge: Edge) -> Problem | None:
        if not self._origins.accept(request):
            return Problem(403, "foreign-origin", "This origin is not in ORDERBELL_ALLOWED_ORIGINS.")
        if not handshake.offers(head, SUBPROTOCOL.encode()):
            return Problem(400, "unknown-subprotocol", f"Offer the subprotocol {SUBPROTOCOL}.")
        if edge.more:  # RFC 6455 4.1: a client waits for the answer before it sends a frame
            return Problem(400, "too-early", "Wait for the answer before you send frames.")
        if self._gateway.draining or self._gateway.full:
            kind = "draining" if self._gateway.draining else "overloaded"
            return Problem(503, kind, "Come back in a moment.", {"retry-after": "2"})
        return None

    async def _begin(self, request: HTTPConnection, connection: WebSocketConnection) -> None:
        """Authenticate, then serve; what is wrong with the request is a close code."""
        try:
            cursors = _cursors(request)
            identity = await self._authentication.identify(request)
            if identity is None:
                identity = await self._authenticate_in_band(connection)
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

    async def _authenticate_in_band(self, connection: WebSocketConnection) -> Identity | None:
        """The identity of its first message; None where the connection ended before it proved any."""
        connection.writer.write(b"")  # the answer to the handshake, for which it waits
        return await self._life.wait_proof(connection)


def _refuse(edge: Edge, problem: Problem) -> None:
    headers = [(name.encode(), value.encode()) for name, value in (problem.headers or {}).items()]
    edge.answer(
        problem.status,
        [(b"content-type", MEDIA_TYPE.encode()), *headers],
        msgspec.json.encode(problem.members()),
    )


def _cursors(request: HTTPConnection) -> dict[Channel, Place]:
    after = parse_after(request.scope["query_string"].decode("latin-1"))
    return after or parse_cursors(request.headers.get("last-event-id", ""))
