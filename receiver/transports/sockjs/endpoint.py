"""`/websocket/<server>/<session>/xhr`, `xhr_streaming` and `xhr_send`, as SockJS has them.

A session lives in one gateway's memory. At another gateway its client gets a new session (`o`), considers the
old one lost, and reconnects. With several gateways, the balancer should therefore send all requests of a
client to the same one; otherwise clients reconnect often. No event is lost either way.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import Response

from receiver import metrics
from receiver.access.authentication import TokenInUrl
from receiver.access.identity import InvalidToken, KeysUnavailable
from receiver.transports.http import headers_of, take_over
from receiver.transports.sockjs.information import TEXT
from receiver.transports.sockjs.receivers import HEADERS, PRELUDE, StreamReceiver, XhrReceiver
from receiver.transports.sockjs.session import SECOND_RECEIVER, XhrSession
from receiver.transports.stomp.endpoint import identifying
from receiver.transports.stomp.envelope import SOCKJS
from receiver.transports.stomp.frames import InvalidFrame
from shared.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from receiver.access.admission import Admission
    from receiver.access.authentication import Authentication
    from receiver.access.origins import Origins
    from receiver.gateway import Gateway
    from receiver.transports.stomp.spring import Spring
    from shared.process.edge import Edge

_NAME = re.compile(r"[^/.]{1,64}")


class XhrTransport:
    """`spring` is given only with ORDERBELL_SPRING_COMPAT."""

    def __init__(
        self,
        gateway: Gateway,
        authentication: Authentication,
        origins: Origins,
        spring: Spring | None = None,
        admission: Admission | None = None,
    ) -> None:
        self._admission = admission
        self._gateway = gateway
        self._life = gateway.life
        self._authentication = authentication
        self._origins = origins
        self._spring = spring
        self._sessions: dict[str, XhrSession] = {}

    @property
    def endpoints(self) -> dict[str, Callable[[Request], Awaitable[Response]]]:
        """The endpoints by the last part of their paths."""
        return {"xhr": self.xhr, "xhr_streaming": self.streaming, "xhr_send": self.send}

    async def xhr(self, request: Request) -> Response:
        await self._admit(request)
        return self._receive(request, await self._session_of(request), streams=False)

    async def streaming(self, request: Request) -> Response:
        await self._admit(request)
        return self._receive(request, await self._session_of(request), streams=True)

    async def send(self, request: Request) -> Response:
        """Answers 204, or the protocol's error for an invalid payload."""
        session = await self._session_of(request)
        if session is None or session.closed:
            raise HTTPException(404)
        body = await request.body()
        if session.closed:
            raise HTTPException(404)
        if len(body) > (most := self._gateway.stomp_limits.message_bytes):
            raise Problem(413, "content-too-large", f"At most {most} bytes.")
        if not body:
            return Response("Payload expected.", 500, media_type=TEXT)
        try:
            SOCKJS.unwrap(body)
        except InvalidFrame:
            return Response("Broken JSON encoding.", 500, media_type=TEXT)
        session.received(body)
        return Response(status_code=204, media_type=TEXT)

    async def _admit(self, request: Request) -> None:
        """Admit a request that would begin a session. Raises as `_name_of`."""
        if self._admission is not None and self._living(self._name_of(request)) is None:
            await self._admission.check(request, XhrSession.transport)

    async def _session_of(self, request: Request) -> XhrSession | None:
        """The session that the request names, if it is this client's; None if there is none.

        A session that began with a token, in a cookie or a header, is served only to its customer. Otherwise
        its name is all that identifies a client before CONNECT, as with every SockJS server.

        Raises `HTTPException` as where no such session is, and as `_name_of`.
        """
        session = self._living(self._name_of(request))
        if session is None or session.proof in (b"", self._proof_of(request)):
            return session
        try:
            identity = await self._authentication.identify(request)  # perhaps by a newer token
        except (InvalidToken, KeysUnavailable, TokenInUrl):
            identity = None
        if identity is None or session.identity is None or identity.customer != session.identity.customer:
            raise HTTPException(404)
        return session

    def _proof_of(self, request: Request) -> bytes:
        token = self._authentication.carried(request)
        return hashlib.blake2b(token.encode(), digest_size=16).digest() if token else b""

    def _name_of(self, request: Request) -> str:
        """Raises `Problem` and `HTTPException`."""
        if not self._origins.accept(request):
            problem = Problem(403, "foreign-origin", "This origin is not in ORDERBELL_ALLOWED_ORIGINS.")
            self._life.note_refusal(problem.kind, problem.detail, transport=XhrSession.transport)
            raise problem
        server, name = request.path_params["server"], request.path_params["session"]
        if not (_NAME.fullmatch(server) and _NAME.fullmatch(name)):
            raise HTTPException(404)
        return str(name)

    def _receive(self, request: Request, session: XhrSession | None, *, streams: bool) -> Response:
        name = self._name_of(request)
        # It has ended meanwhile, or another one has taken its name. To begin one, this request would have to
        # be admitted.
        if session is not self._living(name):
            raise HTTPException(404)
        if session is None:
            session = self._begin(name, request)
        if session.carriage.has_receiver:
            begins = PRELUDE if streams else b""
            return Response(begins + SECOND_RECEIVER, headers={n.decode(): v.decode() for n, v in HEADERS})
        edge: Edge = request.scope["state"]["edge"]
        headers = headers_of(request)
        receiver = StreamReceiver(session, headers) if streams else XhrReceiver(session, edge, headers)
        take_over(request, receiver)
        session.carriage.attach(receiver)
        return Response()  # never sent: the receiver has the socket

    def _living(self, name: str) -> XhrSession | None:
        """One that has ended is forgotten in the next turn of the loop."""
        session = self._sessions.get(name)
        return None if session is None or session.carriage.is_closing() else session

    def _begin(self, name: str, request: Request) -> XhrSession:
        address = self._gateway.capacity.address(request.client.host if request.client else "")
        if refusal := self._gateway.refusal(address):
            metrics.refused.labels(refusal.kind).inc()
            self._life.note_refusal(refusal.kind, refusal.detail, transport=XhrSession.transport)
            raise refusal
        session = self._sessions[name] = XhrSession(
            self._life,
            identifying(self._authentication, request, self._spring),
            lambda: self._forget(name, session),
            limits=self._gateway.stomp_limits,
            spring=self._spring,
        )
        session.address, session.proof = address, self._proof_of(request)
        self._life.open(session)
        session.carriage.wait_receiver()
        session.carriage.write(session.framed(session.envelope.opening))
        self._life.start(session, session.wait_connected())
        return session

    def _forget(self, name: str, session: XhrSession) -> None:
        if self._sessions.get(name) is session:
            del self._sessions[name]
