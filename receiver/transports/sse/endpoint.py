"""`GET /events` with `Accept: text/event-stream`.

A browser's EventSource cannot send headers of the page's, so the token comes as a same-site cookie, or as a
ticket in the URL. A ticket works once, so when an EventSource has ended, the page opens another with a new
ticket; with a cookie, it reconnects by itself. Any answer but 200 ends it for good.

`Last-Event-ID` takes precedence over `after`, because a browser that reconnects by itself sends the header
along with its first URL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from receiver import metrics
from receiver.connections.connection import End
from receiver.transports.http import answer_head, cursors_of, headers_of, quality, take_over
from receiver.transports.sse.connection import HEADERS, EventStream
from shared.cursors import InvalidCursor
from shared.problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request

    from receiver.access.doorkeeper import Doorkeeper
    from receiver.gateway import Gateway

MEDIA_TYPE = "text/event-stream"


class EventStreamTransport:
    name = EventStream.transport

    def __init__(self, gateway: Gateway, doorkeeper: Doorkeeper) -> None:
        self._gateway = gateway
        self._life = gateway.life
        self._doorkeeper = doorkeeper

    def wants(self, request: Request) -> bool:
        """Whether the client asks for an event stream, and not rather for JSON."""
        wanted = quality(request, MEDIA_TYPE)
        return wanted > 0 and wanted >= quality(request, "application/json")

    async def endpoint(self, request: Request) -> Response:
        """Raises `Problem` if refused; otherwise the connection itself writes the answer."""
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
            return answer_head(HEADERS)
        if refusal := self._gateway.refusal_now(address):  # its token may have waited for its key
            metrics.refused.labels(refusal.kind).inc()
            raise refusal
        connection = EventStream(self._life, headers_of(request))
        take_over(request, connection)
        connection.address, connection.identity = address, identity
        self._life.open(connection)
        try:
            await self._life.serve(connection, identity, cursors)
        except Exception:
            connection.end(End.INTERNAL_ERROR, "internal error")
            raise
        return Response()  # never sent: the connection has the socket
