"""Common to the transports over plain HTTP: what they read from a request, and how they refuse one.

`Last-Event-ID` takes precedence over `after`: an EventSource that reconnects by itself sends the header along
with its first URL. In place of the header, which would cost them a preflight, polyfills and libraries add a
parameter to that URL (`LAST_EVENT_ID`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from receiver.connections.connection import End
from shared.cursors import parse_after, parse_cursors
from shared.problems import MEDIA_TYPE, Problem
from shared.process.answer import format_answer
from shared.process.edge import NotAlone
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

# Of event-source-polyfill; of clients of Mercure, now and before; and of AmvTek's polyfill.
LAST_EVENT_ID = ("lastEventId", "lastEventID", "Last-Event-ID", "evs_last_event_id")

_QUALITY = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)


def quality(request: Request, media_type: str) -> float:
    """How much the client wants this type by its Accept: 0, not at all, to 1. RFC 9110 12.4.2, 12.5.1.

    Wildcards don't count: they come from clients that know nothing of us.
    """
    found = 0.0
    for one in ",".join(request.headers.getlist("accept")).split(","):
        name, *parameters = (part.strip() for part in one.split(";"))
        if name.lower() == media_type:
            weights = [match[1] for part in parameters if (match := _QUALITY.fullmatch(part))]
            found = max(found, float(weights[-1]) if weights else 1.0)
    return found


def cursors_of(request: Request) -> dict[Channel, Place]:
    """Raises `InvalidCursor`."""
    if last := ",".join(filter(None, request.headers.getlist("last-event-id"))):
        return parse_cursors(last)
    query = request.scope["query_string"].decode("latin-1")
    for name in LAST_EVENT_ID:
        if places := parse_after(query, name=name):
            return places
    return parse_after(query)


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


def answer_head(headers: Sequence[Header]) -> Response:
    """The answer to a HEAD. Its GET's length is not known, and no other may be named: RFC 9110 8.6."""
    response = Response(headers={name.decode(): value.decode() for name, value in headers})
    del response.headers["content-length"]
    return response


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
