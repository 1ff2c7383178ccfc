"""Where STOMP clients connect: `/stomp`, and, also with SockJS, `/gs-guide-websocket` and `/websocket`.

These are the names in Spring's guide and in the article on several applications, so a page that was written
for them needs only another host and a token; the guide's older page used SockJS. The token comes in CONNECT,
or with the handshake as for every WebSocket. SockJS clients ask `…/info` first; if WebSockets do not pass,
they use receiver/transports/sockjs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from receiver.access.authentication import TokenInUrl
from receiver.access.identity import ANYBODY, InvalidToken
from receiver.transports.stomp.connection import SockJsConnection, StompConnection
from receiver.transports.stomp.envelope import PLAIN, SOCKJS
from receiver.transports.websocket.frames import text_frame
from receiver.transports.websocket.upgrade import UpgradeEndpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import HTTPConnection

    from receiver.access.admission import Admission
    from receiver.access.authentication import Authentication
    from receiver.access.identity import Identity
    from receiver.access.origins import Origins
    from receiver.gateway import Gateway
    from receiver.transports.stomp.spring import Spring
    from receiver.transports.websocket.connection import WebSocketConnection
    from shared.process.head import Head

SUBPROTOCOLS = ("v12.stomp", "v11.stomp", "v10.stomp")  # the best first
SOCKJS_PREFIXES = ("/websocket", "/gs-guide-websocket")
_PATHS = frozenset(
    {b"/stomp", *(f"{prefix}{raw}".encode() for prefix in SOCKJS_PREFIXES for raw in ("", "/websocket"))}
)
_SOCKJS = re.compile(rb"/(?:gs-guide-)?websocket/[^/.]{1,64}/[^/.]{1,64}/websocket")  # server, session


class StompTransport(UpgradeEndpoint):
    """`spring` is given only with ORDERBELL_SPRING_COMPAT; a client then needs no token."""

    def __init__(
        self,
        gateway: Gateway,
        authentication: Authentication,
        origins: Origins,
        admission: Admission | None = None,
        spring: Spring | None = None,
    ) -> None:
        super().__init__(gateway, authentication, origins, admission)
        self._spring = spring

    def serves(self, path: bytes) -> bool:
        return path in _PATHS or _SOCKJS.fullmatch(path) is not None

    def subprotocol(self, head: Head) -> str | None:
        """Spring's Java client and SockJS offer none, so that is not a fault."""
        offered = head.tokens(b"sec-websocket-protocol")
        return next((name for name in SUBPROTOCOLS if name.encode() in offered), None)

    def name(self, head: Head) -> str:
        return (SockJsConnection if _SOCKJS.fullmatch(head.path) else StompConnection).transport

    def connection(self, request: HTTPConnection) -> StompConnection:
        identify = identifying(self._authentication, request, self._spring)
        if _SOCKJS.fullmatch(request.scope["raw_path"]):
            return SockJsConnection(
                self._life, SOCKJS, identify, self._gateway.stomp_limits, spring=self._spring
            )
        return StompConnection(self._life, PLAIN, identify, self._gateway.stomp_limits, spring=self._spring)

    async def begin(self, request: HTTPConnection, connection: WebSocketConnection) -> None:
        assert isinstance(connection, StompConnection)
        opening = connection.envelope.opening
        connection.writer.write(text_frame(opening) if opening else b"")
        await connection.wait_connected()


def identifying(
    authentication: Authentication, request: HTTPConnection, spring: Spring | None
) -> Callable[[str], Awaitable[Identity]]:
    """Identifies a client by the token of its CONNECT, else by the request with which it came."""

    async def identify(token: str) -> Identity:
        if token and not (spring and _is_password(token)):
            return await authentication.verify(token=token)
        try:
            identity = await authentication.identify(request)
        except TokenInUrl as error:
            raise InvalidToken(str(error)) from None
        if identity is None and spring:
            return ANYBODY
        if identity is None:
            raise InvalidToken("a token is required, as Authorization or passcode in CONNECT")
        return identity

    return identify


def _is_password(passcode: str) -> bool:
    """Spring's pages may send a password (`guest`), which Spring ignores. A JWT has three parts."""
    return passcode.count(".") != 2
