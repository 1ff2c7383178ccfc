"""The gateway's routes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from receiver import metrics
from receiver.access import tickets as ticket_module
from receiver.access.doorkeeper import Doorkeeper
from receiver.access.origins import origin_of
from receiver.pages.routes import page_routes
from receiver.serving import asyncapi, openapi
from receiver.serving.alerts import AlertsOverHttp
from receiver.transports.polling.endpoint import PER_MINUTE, PollingTransport
from receiver.transports.seen import SeenOverHttp
from receiver.transports.sockjs import information
from receiver.transports.sockjs.endpoint import XhrTransport
from receiver.transports.sse.endpoint import EventStreamTransport
from receiver.transports.stomp.endpoint import SOCKJS_PREFIXES
from shared.problems import HANDLERS, Problem
from shared.process.exposition import expose

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from prometheus_client import CollectorRegistry
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from receiver.access.admission import Admission
    from receiver.access.authentication import Authentication
    from receiver.access.origins import Origins
    from receiver.access.tickets import Tickets
    from receiver.connections.life import Life
    from receiver.gateway import Gateway
    from receiver.pages.development import Development
    from receiver.serving.readiness import Readiness
    from receiver.transports.stomp.spring import Spring


def create_app(
    gateway: Gateway,
    readiness: Readiness,
    authentication: Authentication,
    tickets: Tickets,
    origins: Origins,
    development: Development | None,
    registry: CollectorRegistry | None,
    admission: Admission | None = None,
    spring: Spring | None = None,
    *,
    lists_per_minute: int = 600,
    polls_per_minute: int = PER_MINUTE,
) -> Starlette:
    """`development` is given only in development mode, `spring` only with ORDERBELL_SPRING_COMPAT.

    WebSockets are not routes: the edge takes them first, see receiver/transports/websocket/endpoint.py.
    """
    doorkeeper = Doorkeeper(authentication, origins)
    http = Http(readiness, doorkeeper, tickets, registry)
    seen = SeenOverHttp(gateway.seen, doorkeeper)
    polling = PollingTransport(gateway, doorkeeper, per_minute=polls_per_minute)
    events = Events(EventStreamTransport(gateway, doorkeeper), polling, gateway.life, admission)
    alerts = AlertsOverHttp(gateway.history, doorkeeper, per_minute=lists_per_minute)
    xhr = XhrTransport(gateway, authentication, origins, spring, admission)
    routes: list[BaseRoute] = [
        _shared("/events", events.endpoint, ["GET", "DELETE"], origins),
        _shared("/seen", seen.endpoint, ["POST"], origins),
        _shared("/alerts", alerts.list_some, ["GET"], origins),
        _shared("/read", alerts.mark_read, ["POST"], origins),
        _shared("/tickets", http.issue_ticket, ["POST"], origins),
        Route("/stomp", refuse_without_upgrade),
        *(route for prefix in SOCKJS_PREFIXES for route in _sockjs_routes(prefix, xhr, origins)),
        Route("/openapi.json", _document(openapi.document())),
        Route("/asyncapi.json", _document(asyncapi.document(gateway.names))),
        Route("/livez", http.livez),
        Route("/readyz", http.readyz),
        *([Route("/metrics", http.metrics)] if registry is not None else []),
        *((Route("/submit", spring.submit, methods=["POST"]),) if spring else ()),
        *(development.routes() if development else ()),
        *page_routes(development=development is not None),
    ]
    app = Starlette(routes=routes, exception_handlers=HANDLERS)
    # A redirect would repeat whatever host the request named.
    app.router.redirect_slashes = False
    return app


def _sockjs_routes(prefix: str, xhr: XhrTransport, origins: Origins) -> Iterator[Route]:
    yield Route(prefix, information.welcome)
    yield Route(f"{prefix}/", information.welcome)
    yield _shared(f"{prefix}/info", information.inform, ["GET"], origins)
    yield Route(f"{prefix}/websocket", refuse_without_upgrade)
    yield Route(f"{prefix}/iframe.html", information.refuse_iframe)
    yield Route(f"{prefix}/iframe{{version}}.html", information.refuse_iframe)
    session = f"{prefix}/{{server}}/{{session}}"
    yield Route(f"{session}/websocket", information.refuse_without_upgrade)
    for name, endpoint in xhr.endpoints.items():
        yield _shared(f"{session}/{name}", endpoint, ["POST"], origins)
    for name in information.NOT_SERVED:
        yield Route(f"{session}/{name}", information.refuse_transport, methods=["GET", "POST"])


async def refuse_without_upgrade(request: Request) -> Response:
    raise Problem(
        426,
        "upgrade-required",
        "This address is for STOMP over WebSocket.",
        {"upgrade": "websocket", "connection": "Upgrade"},
    )


def _document(document: dict[str, Any]) -> Callable[[Request], Awaitable[Response]]:
    text = msgspec.json.encode(document)

    async def endpoint(request: Request) -> Response:
        return Response(text, media_type="application/json")

    return endpoint


def _shared(
    path: str,
    endpoint: Callable[[Request], Awaitable[Response]],
    methods: list[str],
    origins: Origins,
) -> Route:
    """A route with CORS, because pages of other sites call it, too.

    WebSockets don't need it and would pay for it.
    """
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins.exact,
        allow_origin_regex=origins.regex,
        allow_methods=_METHODS,
        allow_headers=_ASKED_HEADERS,
        expose_headers=["etag", "retry-after", "x-request-id"],
        allow_credentials=True,
    )
    methods = [*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"]
    return Route(
        path, endpoint, methods=methods, middleware=[cors, Middleware(PlainOptions, ", ".join(methods))]
    )


_METHODS = ["GET", "POST", "DELETE"]
_ASKED_HEADERS = [
    *("authorization", "content-type", "if-none-match", "last-event-id", "x-request-id"),
    *("cache-control", "pragma", "x-requested-with"),  # which polyfills and libraries add by themselves
]


class PlainOptions:
    """Answers an OPTIONS that is not a preflight. Nothing else may happen, because it is a safe method."""

    def __init__(self, app: ASGIApp, allowed: str) -> None:
        self._app = app
        self._allowed = {"allow": allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = Response(None, 204, self._allowed) if scope["method"] == "OPTIONS" else self._app
        await app(scope, receive, send)


class HttpTransport(Protocol):
    """A transport at `/events` without an upgrade."""

    name: str

    def wants(self, request: Request) -> bool:
        """Whether the request asks for this one."""

    async def endpoint(self, request: Request) -> Response: ...


class Events:
    """`/events` without an upgrade: the first transport that the request asks for."""

    def __init__(
        self,
        stream: HttpTransport,
        polling: PollingTransport,
        life: Life,
        admission: Admission | None = None,
    ) -> None:
        self._transports: tuple[HttpTransport, ...] = stream, polling
        self._polling = polling
        self._life = life
        self._admission = admission

    async def endpoint(self, request: Request) -> Response:
        if request.method == "DELETE":
            return await self._polling.end_session(request)
        for transport in self._transports:
            if transport.wants(request):
                try:
                    if self._admission is not None:
                        await self._admission.check(request, transport.name)
                    return await transport.endpoint(request)
                except Problem as problem:
                    self._life.note_refusal(problem.kind, problem.detail, transport=transport.name)
                    raise
        raise Problem(
            426,
            "upgrade-required",
            "Connect with WebSocket (cloudevents.json), accept text/event-stream, or poll with ?wait=25.",
            {"upgrade": "websocket", "connection": "Upgrade"},
        )


class Http:
    """The endpoints that answer at once."""

    def __init__(
        self,
        readiness: Readiness,
        doorkeeper: Doorkeeper,
        tickets: Tickets,
        registry: CollectorRegistry | None,
    ) -> None:
        self._readiness = readiness
        self._doorkeeper = doorkeeper
        self._tickets = tickets
        self._registry = registry

    async def issue_ticket(self, request: Request) -> Response:
        identity = await self._doorkeeper.identify(request)
        try:
            ticket = await self._tickets.issue(identity, origin=origin_of(request))
        except ticket_module.TooManyTickets as error:
            metrics.requests_refused.labels("too-many-tickets").inc()
            later = {"retry-after": str(math.ceil(error.seconds))}
            raise Problem(429, "too-many-tickets", str(error), later) from None
        except (RedisError, OSError, TimeoutError):
            raise Problem(503, "unavailable", "Try again in a moment.", {"retry-after": "2"}) from None
        body = {"ticket": ticket, "expires_in": ticket_module.LIFETIME_SECONDS}
        return JSONResponse(body, 201, {"cache-control": "no-store"})

    async def livez(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """Whether new connections should come here. Open connections are served in any case."""
        body = self._readiness.body()
        return JSONResponse(body, 200 if body["ready"] else 503)

    async def metrics(self, request: Request) -> Response:
        assert self._registry is not None  # else there is no such route
        found = expose(self._registry, request.headers.get("accept", ""))
        return Response(found.text, media_type=found.media_type)
