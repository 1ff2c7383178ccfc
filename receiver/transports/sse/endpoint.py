"""`GET /events` with `Accept: text/event-stream`.

A browser's EventSource sends no header of the page's: the token comes as a same-site cookie, or as a ticket
in the URL. A ticket serves once, so a page opens a new EventSource with a new ticket where one has ended;
with a cookie EventSource comes back by itself. Any answer but 200 ends it for good.

`Last-Event-ID` counts more than `after`: a browser that comes back by itself sends the first with the URL of
its beginning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from receiver import metrics
from receiver.connections.connection import End
from receiver.transports.http import cors_of, cursors_of
from receiver.transports.sse.connection import EventStream
from shared.cursors import InvalidCursor
from shared.problems import Problem
from shared.process.edge import NotAlone

if TYPE_CHECKING:
    from starlette.requests import Request

    from receiver.access.doorkeeper import Doorkeeper
    from receiver.gateway import Gateway
    from shared.process.edge import Edge

MEDIA_TYPE = "text/event-stream"


class EventStreamTransport:
    name = EventStream.transport

    def __init__(self, gateway: Gateway, doorkeeper: Doorkeeper) -> None:
        self._gateway = gateway
        self._life = gateway.life
        self._doorkeeper = doorkeeper

    def wants(self, request: Request) -> bool:
        """Whether the client asks for an event stream."""
        accepted = ",".join(request.headers.getlist("accept")).split(",")
        return MEDIA_TYPE in (one.partition(";")[0].strip().lower() for one in accepted)

    async def endpoint(self, request: Request) -> Response:
        """Raises `Problem` for what is refused; else the answer was written by the connection itself."""
        address = self._gateway.capacity.address(request.client.host if request.client else "")
        if refusal := self._gateway.refusal(address):
            metrics.refused.labels(refusal.kind).inc()
            raise refusal
        identity = await self._doorkeeper.identify(request)
        try:
            cursors = cursors_of(request)
        except InvalidCursor as error:
            raise Problem(400, End.BAD_MESSAGE.value, str(error)) from None
        if request.method == "HEAD":
            return Response(media_type=MEDIA_TYPE)
        connection = _take_over(request, EventStream(self._life, cors_of(request)))
        connection.address, connection.identity = address, identity
        self._life.open(connection)
        try:
            await self._life.serve(connection, identity, cursors)
        except Exception:
            connection.end(End.INTERNAL_ERROR, "internal error")
            raise
        return Response()  # it is never sent: the socket is the connection's


def _take_over(request: Request, connection: EventStream) -> EventStream:
    edge: Edge = request.scope["state"]["edge"]
    try:
        edge.take_over(connection)
    except NotAlone:
        raise Problem(400, "not-alone", "Use a separate connection for an event stream.") from None
    except OSError:
        raise Problem(503, "gone", "The client has left.") from None
    return connection
