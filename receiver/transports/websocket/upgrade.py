"""From a request that wants to upgrade to an open connection, for every transport on a WebSocket.

Two kinds of requests are refused before accepting: those that no page should retry unchanged (a foreign
origin, no known subprotocol) and those that a balancer should see (overload, a drain). What a page's code
must learn, above all that its token has expired, is reported after accepting, in the transport's own form: of
a refused handshake, a browser shows its page nothing.

When all clients come back to a gateway, this is its hot path: there is no router, no middleware and no ASGI
on it.
"""

from __future__ import annotations

import abc
import logging
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import HTTPConnection
from structlog.contextvars import bind_contextvars

from receiver import metrics
from receiver.connections.connection import End
from receiver.transports.websocket import handshake
from shared.errors import CallerError
from shared.problems import MEDIA_TYPE, Problem
from shared.process.request_ids import HEADER, request_id_in

if TYPE_CHECKING:
    from receiver.access.admission import Admission
    from receiver.access.authentication import Authentication
    from receiver.access.origins import Origins
    from receiver.gateway import Gateway
    from receiver.transports.websocket.connection import WebSocketConnection
    from shared.process.edge import Edge
    from shared.process.head import Head

logger = logging.getLogger(__name__)


class UnknownSubprotocol(CallerError):
    """The client offers no subprotocol that the transport speaks."""


class UpgradeEndpoint(abc.ABC):
    def __init__(
        self,
        gateway: Gateway,
        authentication: Authentication,
        origins: Origins,
        admission: Admission | None = None,
    ) -> None:
        self._admission = admission
        self._gateway = gateway
        self._life = gateway.life
        self._authentication = authentication
        self._origins = origins

    @abc.abstractmethod
    def serves(self, path: bytes) -> bool: ...

    @abc.abstractmethod
    def subprotocol(self, head: Head) -> str | None:
        """The subprotocol to answer with, of those that the client offers. Raises `UnknownSubprotocol`."""

    @abc.abstractmethod
    def name(self, head: Head) -> str:
        """The name of the transport that the client asks for."""

    @abc.abstractmethod
    def connection(self, request: HTTPConnection) -> WebSocketConnection:
        """The connection that takes the socket over."""

    @abc.abstractmethod
    async def begin(self, request: HTTPConnection, connection: WebSocketConnection) -> None:
        """What is done first on an accepted connection, and may wait."""

    def take(self, head: Head, edge: Edge) -> bool:
        """Called by the edge with each request to upgrade. Returns whether it was for us."""
        if b"websocket" not in head.upgrade or not self.serves(head.path):
            return False
        if fault := handshake.fault_of(head):
            self._life.note_refusal("bad-handshake", "not a handshake of RFC 6455")
            metrics.refused.labels("bad-handshake").inc()
            edge.answer(*fault)
            return True
        request = HTTPConnection(head.scope())
        try:
            address = self._gateway.capacity.address(head.peer.host)
            if refusal := self._refusal(request, edge, address):
                raise refusal
            subprotocol = self.subprotocol(head)
        except UnknownSubprotocol as error:
            self._refuse(edge, head, Problem(400, "unknown-subprotocol", str(error)))
            return True
        except Problem as problem:
            self._refuse(edge, head, problem)
            return True
        if self._admission is None:
            self._accept(head, edge, request, subprotocol, address)
        else:
            edge.hold()
            edge.start(self._admit(self._admission, head, edge, request, subprotocol, address))
        return True

    def _accept(
        self, head: Head, edge: Edge, request: HTTPConnection, subprotocol: str | None, address: str
    ) -> None:
        """Raises as `Edge.take_over`."""
        connection = handshake.accept(edge, head, subprotocol, self.connection(request))
        connection.address = address
        self._life.open(connection)
        edge.start(self._run(request, connection))

    async def _admit(
        self,
        admission: Admission,
        head: Head,
        edge: Edge,
        request: HTTPConnection,
        subprotocol: str | None,
        address: str,
    ) -> None:
        try:
            await admission.check(request, self.name(head))
            if refusal := self._gateway.refusal_now(address):
                raise refusal
        except Problem as problem:
            if not edge.ended:
                self._refuse(edge, head, problem)
            return
        try:
            self._accept(head, edge, request, subprotocol, address)
        except OSError:
            pass  # the client has left

    async def _run(self, request: HTTPConnection, connection: WebSocketConnection) -> None:
        if request_id := request_id_in(request.scope["headers"]):
            bind_contextvars(request_id=request_id)  # of this task; the connection has an id of its own
        try:
            await self.begin(request, connection)
        except Exception:
            # One connection's failure; the gateway goes on. Only the log has the details.
            logger.exception("a connection could not be started")
            connection.end(End.INTERNAL_ERROR, "internal error")

    def _refusal(self, request: HTTPConnection, edge: Edge, address: str) -> Problem | None:
        if not self._origins.accept(request):
            return Problem(403, "foreign-origin", "This origin is not in ORDERBELL_ALLOWED_ORIGINS.")
        if edge.more:  # RFC 6455 4.1: a client waits for the answer before it sends a frame
            return Problem(400, "too-early", "Wait for the answer before you send frames.")
        return self._gateway.refusal(address)

    def _refuse(self, edge: Edge, head: Head, problem: Problem) -> None:
        self._life.note_refusal(problem.kind, problem.detail)
        metrics.refused.labels(problem.kind).inc()
        headers = [(name.encode(), value.encode()) for name, value in (problem.headers or {}).items()]
        if request_id := request_id_in(head.headers):
            headers.append((HEADER, request_id.encode()))
        edge.answer(
            problem.status,
            [(b"content-type", MEDIA_TYPE.encode()), *headers],
            msgspec.json.encode(problem.members()),
        )
