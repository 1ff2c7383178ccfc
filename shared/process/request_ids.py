"""`X-Request-ID`: an id for each request, in its answer and in the log lines that are written for it.

The caller's or a proxy's is used, cleaned: it ends up in logs, so it has at most `MAX_LENGTH` characters of a
few kinds. A request without one gets a random one. It is not unique: a caller may repeat ids.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

from structlog.contextvars import bind_contextvars

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_LENGTH = 128
HEADER = b"x-request-id"
_FOREIGN = re.compile(rb"[^A-Za-z0-9._:/+=@-]+")

_random = random.Random()  # seeded by the kernel, once


def request_id_in(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The one that the request came with, cleaned; empty if there is none. Of several, the first."""
    for name, value in headers:
        if name == HEADER:
            return _FOREIGN.sub(b"", value[: 4 * MAX_LENGTH])[:MAX_LENGTH].decode()
    return ""


class RequestIds:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        # Random ids need not be secret, and the kernel's randomness would cost a system call.
        request_id = request_id_in(scope["headers"]) or f"{_random.getrandbits(96):024x}"
        bind_contextvars(request_id=request_id)  # of this request's task, which ends with it
        header = (HEADER, request_id.encode())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], header]
            await send(message)

        await self._app(scope, receive, send_with_id)
