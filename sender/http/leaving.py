"""`/readyz` of a sender that is about to end: a balancer should see that before the listener closes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send


class Leaving:
    """The app; after `begin`, `/readyz` answers 503, and answers that would go on for ever end."""

    def __init__(self, app: ASGIApp, end_streams: Callable[[], None]) -> None:
        self._app = app
        self._end_streams = end_streams
        self._begun = False

    def begin(self) -> None:
        self._begun = True
        self._end_streams()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._begun or scope["type"] != "http" or scope["path"] != "/readyz":
            return await self._app(scope, receive, send)
        body = msgspec.json.encode({"ready": False, "draining": True})
        await Response(body, 503, media_type="application/json")(scope, receive, send)
