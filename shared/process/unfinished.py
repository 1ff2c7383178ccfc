"""Requests that are still under way when the server has to end.

uvicorn cancels them. An app that lets that through looks broken: each of them is answered with 500 and leaves
a traceback in the log, though the caller only has to send the request again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shared.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

ENDING = Problem(
    503,
    "leaving",
    "This server is ending; send the request again.",
    {"retry-after": "1", "connection": "close"},
)


class Unfinished:
    """The app; a request that is cancelled before its answer has begun is answered with 503."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except asyncio.CancelledError:  # nobody waits for this task but the server that is ending
            if begun or scope["type"] != "http":
                raise
            await ENDING.response()(scope, receive, send)
