"""Common to the transports over plain HTTP: what they read from a request, and how they refuse one.

`Last-Event-ID` takes precedence over `after`: an EventSource that reconnects by itself sends the header along
with its first URL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from receiver.connections.connection import End
from shared.cursors import parse_after, parse_cursors
from shared.problems import MEDIA_TYPE, Problem
from shared.process.edge import NotAlone, format_answer
from shared.process.security_headers import KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from shared.channels import Channel
    from shared.cursors import Place
    from shared.process.edge import Edge, Taking
    from shared.process.head import Header

STATUSES = {
    End.INTERNAL_ERROR: 500,
    End.RESTART: 503,
    End.TRY_AGAIN_LATER: 503,
    End.BAD_MESSAGE: 400,
    End.UNAUTHENTICATED: 401,
    End.FORBIDDEN: 403,
    End.SLOW: 503,
    End.TOO_MANY_CONNECTIONS: 429,
    End.TOO_FAST: 429,
}


def cursors_of(request: Request) -> dict[Channel, Place]:
    """Raises `InvalidCursor`."""
    last = request.headers.get("last-event-id", "")
    return parse_cursors(last) if last else parse_after(request.scope["query_string"].decode("latin-1"))


def headers_of(request: Request) -> list[Header]:
    """Those of every answer, and those that let the page read this one, because its origin was accepted."""
    common: list[Header] = request.scope["state"].get(KEY, [])
    origin = request.headers.get("origin", "").encode()
    if not origin:
        return common
    return [
        *common,
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-credentials", b"true"),
        (b"vary", b"origin"),
    ]


def take_over(request: Request, protocol: Taking) -> None:
    """Hand the request's socket to `protocol`, which answers. Raises `Problem` where that cannot be."""
    edge: Edge = request.scope["state"]["edge"]
    try:
        edge.take_over(protocol)
    except NotAlone:
        raise Problem(400, "not-alone", "Wait for an answer before the next request.") from None
    except OSError:
        raise Problem(503, "gone", "The client has left.") from None


def refusal(end: End, reason: str) -> Problem:
    """An end as an HTTP status: 401 asks for a new token, 429 and 503 say when to come back."""
    status = STATUSES[end]
    headers = {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if status in (429, 503):
        headers["retry-after"] = "2"
    return Problem(status, end.value, reason, headers)


def format_problem(problem: Problem, headers: Sequence[Header]) -> bytes:
    """The whole answer. `headers` go with it."""
    own = [(name.encode(), value.encode()) for name, value in (problem.headers or {}).items()]
    more = [(b"content-type", MEDIA_TYPE.encode()), *own, *headers]
    return format_answer(problem.status, more, msgspec.json.encode(problem.members()))


def format_refusal(end: End, reason: str, headers: Sequence[Header]) -> bytes:
    """The answer to a request that ends with its connection."""
    return format_problem(refusal(end, reason), [(b"connection", b"close"), *headers])
