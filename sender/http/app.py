"""The sender's HTTP app: calls and pages, and the check of API keys."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import structlog
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.routing import Mount, Route

from sender import metrics
from sender.http.paths import RawPaths
from sender.http.problems import HANDLERS
from sender.http.repeats import Repeats
from sender.http.routes import CALLS, SPRING_CALLS
from sender.http.scopes import ADMIN_ALONE, scopes_for
from shared.problems import Problem, unauthenticated
from shared.process.caller import KnowCaller
from shared.process.sampled import Sampled
from shared.quota import Quota

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Send
    from starlette.types import Scope as Scope_

    from sender.http.api import Api
    from sender.http.api_keys import ApiKeys
    from sender.http.calls import Call
    from sender.http.pages import OfficePage
    from shared.api_keys import ApiKey, Scope


logger = structlog.get_logger(__name__)


_REQUIRED = "an API key is required: Authorization: Bearer <key>"


def create_app(
    api: Api,
    pages: OfficePage,
    api_keys: ApiKeys,
    *,
    spring: bool = False,
    requests_per_minute: int = 600_000,
    metrics_here: bool = True,
) -> Starlette:
    """`spring` adds the calls of ORDERBELL_SPRING_COMPAT; `requests_per_minute` are each key's. Without
    `metrics_here` they are at an address of their own.
    """
    quota = Quota(requests_per_minute)
    all_calls: tuple[Call, ...] = (*CALLS, *SPRING_CALLS) if spring else CALLS
    calls = tuple(call for call in all_calls if metrics_here or call.path != "/metrics")
    routes = [
        *(_route(call, api, _keyed(call, api_keys, quota)) for call in calls),
        Route("/", pages.index),
        Route("/development/api-key", pages.api_key),
        Mount("/static", pages.assets),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(KnowCaller), Middleware(MeasureRequests), Middleware(RawPaths)],
        exception_handlers=HANDLERS,
    )
    app.state.repeats = Repeats()
    app.state.calls = calls  # as `/openapi.json` describes them
    # A redirect would repeat whatever host the request named.
    app.router.redirect_slashes = False
    return app


def _route(call: Call, api: Api, middleware: Sequence[Middleware] | None) -> Route:
    return Route(call.path, call.endpoint(api), methods=[call.method], middleware=middleware)


def _keyed(call: Call, api_keys: ApiKeys, quota: Quota) -> Sequence[Middleware] | None:
    if not call.keyed:
        return None
    return [Middleware(RequireKey, api_keys, quota, scopes_for(call.method, call.path))]


class RequireKey:
    """Passes requests that have an API key of the right scope, up to its limit a minute, and notes the key.

    Each call that needs `admin` leaves a line in the log: the key's name, and the outcome.
    """

    def __init__(self, app: ASGIApp, api_keys: ApiKeys, quota: Quota, scopes: frozenset[Scope]) -> None:
        self._app = app
        self._api_keys = api_keys
        self._quota = quota
        self._scopes = scopes
        self._strangers = Sampled(logger)

    async def __call__(self, scope: Scope_, receive: Receive, send: Send) -> None:
        scheme, _, presented = Headers(scope=scope).get("authorization", "").partition(" ")
        key = self._api_keys.find(presented.strip()) if scheme.lower() == "bearer" else None
        send = self._noted(scope, send, key)
        if key is None:
            bare = scheme.lower() != "bearer" or not presented.strip()
            detail = _REQUIRED if bare else "this API key is not known here"
            refusal = unauthenticated(detail)
            await refusal.response()(scope, receive, send)
            return
        if not self._scopes & key.scopes:
            needed = " or ".join(sorted(self._scopes))
            await Problem(403, "forbidden", f"this key lacks the scope {needed}").response()(
                scope, receive, send
            )
            return
        seconds, left = self._quota.spend_and_count(key.get_secret_value())
        send = self._quota_reported(send, left)
        if seconds:
            metrics.requests_refused.labels("too-many-requests").inc()
            later = {"Retry-After": str(math.ceil(seconds))}
            problem = Problem(429, "too-many-requests", "this key has made too many requests", later)
            await problem.response()(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["api_key"] = key.get_secret_value()
        state["api_key_name"] = key.name
        state["key_is_good"] = lambda: self._is_good(presented.strip())  # for answers that take long
        await self._app(scope, receive, send)

    def _is_good(self, presented: str) -> bool:
        key = self._api_keys.find(presented)
        return key is not None and bool(self._scopes & key.scopes)

    def _quota_reported(self, send: Send, left: int) -> Send:
        """https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/"""
        window = int(self._quota.window_seconds)
        headers = [
            (b"ratelimit-policy", b'"key";q=%d;w=%d' % (self._quota.most, window)),
            (b"ratelimit", b'"key";r=%d;t=%d' % (left, self._quota.seconds_to_all(left))),
        ]

        async def send_with_quota(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        return send_with_quota

    def _noted(self, scope: Scope_, send: Send, key: ApiKey | None) -> Send:
        if self._scopes != ADMIN_ALONE:
            return send

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The route and never the path, which may name a customer. Strangers could fill the log.
                line = logger.info if key is not None else self._strangers.info
                line(
                    "admin call",
                    key=(key.name or "unnamed") if key is not None else "none",
                    method=scope["method"],
                    route=getattr(scope.get("route"), "path", ""),
                    status=message["status"],
                    client=(scope.get("client") or ("",))[0],
                )
            await send(message)

        return send_and_note


class MeasureRequests:
    """Measures how long each request took, by its route, never by its path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope_, receive: Receive, send: Send) -> None:
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
            metrics.requests.labels(method, route, status).observe(taken)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
