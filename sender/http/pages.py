"""The back office page: static files, and in development mode the API key it works with.

There is no session and no cookie. In production whoever opens the page types an API key in; in development
mode, which listens on loopback only, the page fetches one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from shared.loopback import host_of, is_loopback

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import SecretStr
    from starlette.requests import Request
    from starlette.types import Message, Receive, Scope, Send

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # always asked for, rarely sent: the files have ETags
}


class PageFiles:
    def __init__(self, directory: Path, development_key: SecretStr | None) -> None:
        """`development_key` is given in development mode alone."""
        self._index = directory / "index.html"
        self._key = development_key
        self.assets = _Assets(directory=directory)

    async def index(self, request: Request) -> Response:
        page = self._index.read_bytes()
        if self._key is not None:
            page = page.replace(b'data-development="false"', b'data-development="true"', 1)
        return Response(page, headers=_HEADERS, media_type="text/html")

    async def api_key(self, request: Request) -> Response:
        # The Host is checked because a foreign page can make its own name point here (DNS rebinding).
        if self._key is None or not is_loopback(host_of(request.headers.get("host", ""))):
            raise HTTPException(404)
        body = msgspec.json.encode({"api_key": self._key.get_secret_value()})
        return Response(body, headers={"Cache-Control": "no-store"}, media_type="application/json")


class _Assets(StaticFiles):
    """Static files with the headers that every part of a page gets."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(k.lower().encode(), v.encode()) for k, v in _HEADERS.items()]
            await send(message)

        await super().__call__(scope, receive, send_with_headers)
