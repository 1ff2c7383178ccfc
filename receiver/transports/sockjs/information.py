"""What a SockJS endpoint answers beside its transports: its information, and what is not served here.

`htmlfile`, `eventsource`, `jsonp` and the iframe page are for browsers that have no CORS. sockjs-client tries
them after `xhr_streaming` and `xhr`, which every browser of today has; its iframe page would run a script of
another host in the gateway's own origin.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from shared.problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request

NOT_SERVED = ("eventsource", "htmlfile", "jsonp", "jsonp_send")

TEXT = "text/plain; charset=UTF-8"  # spelled as the protocol's own tests have it
_NOT_CACHED = "no-store, no-cache, no-transform, must-revalidate, max-age=0"


async def inform(request: Request) -> Response:
    """https://github.com/sockjs/sockjs-protocol, "Information"."""
    body = {
        "websocket": True,
        "cookie_needed": False,
        "origins": ["*:*"],  # as every SockJS server answers; origins are checked with the handshake
        "entropy": random.SystemRandom().randrange(2**32),
    }
    return JSONResponse(
        body, headers={"cache-control": _NOT_CACHED}, media_type="application/json; charset=UTF-8"
    )


async def welcome(request: Request) -> Response:
    """As every SockJS server greets a person with a browser."""
    return Response("Welcome to SockJS!\n", media_type=TEXT)


async def refuse_without_upgrade(request: Request) -> Response:
    """The protocol's answer to a plain request for its WebSocket."""
    return Response('Can "Upgrade" only to "WebSocket".', 400, media_type=TEXT)


async def refuse_transport(request: Request) -> Response:
    raise Problem(404, "not-found", "SockJS's transports here are websocket, xhr_streaming and xhr.")


async def refuse_iframe(request: Request) -> Response:
    raise Problem(404, "not-found", "There is no iframe page: use xhr_streaming or xhr, which need none.")
