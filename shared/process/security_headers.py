"""Headers of every answer: `X-Content-Type-Options: nosniff`, over TLS `Strict-Transport-Security`, and
`Cache-Control: no-store` unless the answer has its own, because most answers are private.

Answers that a transport writes itself take theirs from the scope's state; the edge adds what has no setting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

NOSNIFF = (b"x-content-type-options", b"nosniff")
NO_STORE = (b"cache-control", b"no-store")
KEY = "security_headers"  # in the scope's state


class SecurityHeaders:
    """`hsts_seconds`: for which a browser uses HTTPS alone, RFC 6797; 0 leaves that to others.

    The scheme is the one that trusted proxies report.
    """

    def __init__(self, app: ASGIApp, *, hsts_seconds: int) -> None:
        self._app = app
        self._plain = [NOSNIFF]
        hsts = (b"strict-transport-security", b"max-age=%d" % hsts_seconds)
        self._secure = [NOSNIFF, hsts] if hsts_seconds else [NOSNIFF]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = self._secure if scope["scheme"] == "https" else self._plain
        scope.setdefault("state", {})[KEY] = headers

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = [name for name, _ in message["headers"]]
                # A 304 says nothing new of what the client has kept.
                ours = headers if message["status"] == 304 else [*headers, NO_STORE]
                message["headers"] = [*message["headers"], *(one for one in ours if one[0] not in given)]
            await send(message)

        await self._app(scope, receive, send_with_headers)
