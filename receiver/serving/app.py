"""The gateway's routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from receiver.access import tickets as ticket_module
from receiver.access.authentication import TokenInUrl
from receiver.access.identity import ForbiddenToken, InvalidToken, KeysUnavailable
from receiver.pages.routes import page_routes
from receiver.transports.stomp.endpoint import sockjs_info
from shared.problems import HANDLERS, Problem, unauthenticated

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from starlette.requests import Request

    from receiver.access.authentication import Authentication
    from receiver.access.origins import Origins
    from receiver.access.tickets import Tickets
    from receiver.pages.development import Development
    from receiver.serving.readiness import Readiness


def create_app(
    readiness: Readiness,
    authentication: Authentication,
    tickets: Tickets,
    origins: Origins,
    development: Development | None,
    registry: CollectorRegistry,
) -> Starlette:
    """`development` is given in development mode alone.

    WebSockets are no routes: the edge hands them over before, see receiver/transports/websocket/endpoint.py.
    """
    http = Http(readiness, authentication, tickets, origins, registry)
    routes: list[BaseRoute] = [
        Route("/events", http.upgrade_required),
        Route("/tickets", http.issue_ticket, methods=["POST", "OPTIONS"], middleware=[_cors(origins)]),
        Route("/websocket/info", sockjs_info, methods=["GET", "OPTIONS"], middleware=[_cors(origins)]),
        Route("/livez", http.livez),
        Route("/readyz", http.readyz),
        Route("/metrics", http.metrics),
        *(development.routes() if development else ()),
        *page_routes(development=development is not None),
    ]
    app = Starlette(routes=routes, exception_handlers=HANDLERS)
    # A redirect would name whatever host the request named.
    app.router.redirect_slashes = False
    return app


def _cors(origins: Origins) -> Middleware:
    """For the calls that other sites' pages make; a WebSocket would only pay for it."""
    return Middleware(
        CORSMiddleware,
        allow_origins=origins.exact,
        allow_origin_regex=origins.regex,
        allow_methods=["GET", "POST"],
        allow_headers=["authorization"],
        allow_credentials=True,
    )


class Http:
    """The endpoints that are answered at once."""

    def __init__(
        self,
        readiness: Readiness,
        authentication: Authentication,
        tickets: Tickets,
        origins: Origins,
        registry: CollectorRegistry,
    ) -> None:
        self._readiness = readiness
        self._authentication = authentication
        self._tickets = tickets
        self._origins = origins
        self._registry = registry

    async def upgrade_required(self, request: Request) -> Response:
        raise Problem(
            426,
            "upgrade-required",
            "Connect with WebSocket, subprotocol cloudevents.json.",
            {"upgrade": "websocket", "connection": "Upgrade"},
        )

    async def issue_ticket(self, request: Request) -> Response:
        if not self._origins.accept(request):
            raise Problem(403, "foreign-origin", "This origin is not in ORDERBELL_ALLOWED_ORIGINS.")
        try:
            identity = await self._authentication.identify(request)
            if identity is None:
                raise InvalidToken("a token is required")
            ticket = await self._tickets.issue(identity)
        except TokenInUrl as error:
            raise Problem(400, "token-in-url", str(error)) from None
        except ForbiddenToken as error:
            raise Problem(403, "forbidden-token", str(error)) from None
        except InvalidToken as error:
            raise unauthenticated(str(error)) from None
        except (KeysUnavailable, RedisError, OSError, TimeoutError):
            raise Problem(503, "unavailable", "Try again in a moment.", {"retry-after": "2"}) from None
        body = {"ticket": ticket, "expires_in": ticket_module.LIFETIME_SECONDS}
        return JSONResponse(body, 201, {"cache-control": "no-store"})

    async def livez(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """Whether new connections should come here. Those that are open are served either way."""
        body = self._readiness.body()
        return JSONResponse(body, 200 if body["ready"] else 503)

    async def metrics(self, request: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)
