"""The answer to each error: its status, and the problem that says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from sender import alerts, idempotency, orders, resending, retractions, revocations, seen
from sender.database import errors as database
from shared import problems
from shared.channels import InvalidChannel
from shared.cursors import InvalidCursor
from shared.events import EventTooLarge, InvalidEvent
from shared.json import InvalidJson
from shared.problems import Problem
from shared.process.caller import CallerLeft

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

RETRY_AFTER_SECONDS = 2

_LATER = {"Retry-After": str(RETRY_AFTER_SECONDS)}

# 4xx: the caller's fault; 5xx: ours.
_PROBLEMS: dict[type, tuple[int, str, dict[str, str] | None]] = {
    InvalidJson: (400, "invalid-body", None),
    InvalidEvent: (400, "invalid-event", None),
    EventTooLarge: (413, "event-too-large", None),
    InvalidChannel: (400, "invalid-channel", None),
    InvalidCursor: (400, "invalid-cursor", None),
    seen.NotSeeable: (400, "not-seeable", None),
    orders.InvalidOrder: (400, "invalid-order", None),
    revocations.InvalidRevocation: (400, "invalid-revocation", None),
    orders.UnknownOrder: (404, "unknown-order", None),
    orders.OrderCancelled: (409, "order-cancelled", None),
    retractions.UnknownAlert: (404, "unknown-alert", None),
    resending.NotResendable: (409, "not-resendable", None),
    alerts.NoAlerts: (400, "no-alerts", None),
    orders.OrderConflict: (409, "order-conflict", None),
    idempotency.InvalidKey: (400, "invalid-idempotency-key", None),
    idempotency.KeyReused: (422, "idempotency-key-reused", None),
    CallerLeft: (503, "overloaded", _LATER),  # for one that has only shut down its own side
    database.DatabaseUnavailable: (503, "database-unavailable", _LATER),
    database.DatabaseFull: (507, "database-full", _LATER),
}


async def _answer(request: Request, error: Exception) -> Response:
    kind = next(kind for kind in type(error).__mro__ if kind in _PROBLEMS)
    status, name, headers = _PROBLEMS[kind]
    return Problem(status, name, str(error), headers).response()


async def _answer_method(request: Request, error: Exception) -> Response:
    """405 with all methods of the path; the router knows only its first route's."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    paths = [route for route in routes if route.path_regex.match(request.url.path)]
    allowed = sorted({method for route in paths for method in route.methods or ()})
    detail = f"this path does not support {request.method}"
    return Problem(405, "method-not-allowed", detail, {"Allow": ", ".join(allowed)}).response()


HANDLERS: dict[Any, Any] = {**problems.HANDLERS, **dict.fromkeys(_PROBLEMS, _answer), 405: _answer_method}
