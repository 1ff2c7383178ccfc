"""The sender's HTTP app: calls and pages, and the check of API keys."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.routing import Mount, Route

from sender.http.paths import RawPaths
from sender.http.problems import HANDLERS
from sender.http.routes import CALLS, SPRING_CALLS
from shared.problems import unauthenticated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from sender.http.api import Api
    from sender.http.api_keys import ApiKeys
    from sender.http.pages import OfficePage
    from sender.http.routes import Call
    from sender.metrics import Metrics


def create_app(
    api: Api, pages: OfficePage, api_keys: ApiKeys, metrics: Metrics, *, spring: bool = False
) -> Starlette:
    """`spring` adds the calls of ORDERBELL_SPRING_COMPAT."""
    keyed = [Middleware(RequireKey, api_keys)]
    calls = (*CALLS, *SPRING_CALLS) if spring else CALLS
    routes = [
        *(_route(call, api, keyed if call.keyed else None) for call in calls),
        Route("/", pages.index),
        Route("/development/api-key", pages.api_key),
        Mount("/static", pages.assets),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(MeasureRequests, metrics), Middleware(RawPaths)],
        exception_handlers=HANDLERS,
    )
    app.state.calls = calls  # as `/openapi.json` describes them
    # A redirect would repeat whatever host the request named.
    app.router.redirect_slashes = False
    return app


def _route(call: Call, api: Api, middleware: Sequence[Middleware] | None) -> Route:
    return Route(call.path, call.endpoint(api), methods=[call.method], middleware=middleware)


class RequireKey:
    """Lets requests with one of the API keys through, and notes the key."""

    def __init__(self, app: ASGIApp, api_keys: ApiKeys) -> None:
        self._app = app
        self._api_keys = api_keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        key = key.strip()
        if scheme.lower() == "bearer" and self._api_keys.accept(key):
            scope.setdefault("state", {})["api_key"] = key
            await self._app(scope, receive, send)
        else:
            refusal = unauthenticated("an API key is required: Authorization: Bearer <key>")
            await refusal.response()(scope, receive, send)


class MeasureRequests:
    """Measures how long each request took, by its route, never by its path."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        start = time.perf_counter()
        status = 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            taken = time.perf_counter() - start
            self._metrics.requests.labels(method, route, status).observe(taken)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
