"""The shop page and the browser client, served as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

FOLDER = Path(__file__).parents[1] / "browser"

_CONNECT = "connect-src 'self'"
# Without a balancer each gateway is an origin of its own. `/?gateway=8092` lets tabs of one origin, which
# share what they have shown, connect to several gateways, as they would through a balancer.
_CONNECT_ANY_PORT = _CONNECT + " ws://127.0.0.1:* ws://localhost:*"
_POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; {_CONNECT};"
    " base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def page_routes(*, development: bool) -> list[BaseRoute]:
    page = (FOLDER / "shop.html").read_text(encoding="utf-8")
    headers = _HEADERS
    if development:
        page = page.replace('data-development="false"', 'data-development="true"')
        headers = {**_HEADERS, "content-security-policy": _POLICY.replace(_CONNECT, _CONNECT_ANY_PORT)}

    async def shop(request: Request) -> HTMLResponse:
        return HTMLResponse(page, headers=headers)

    files = _WithHeaders(StaticFiles(directory=FOLDER))
    return [Route("/", shop), Mount("/client/v1", files), Mount("/static", files)]


class _WithHeaders:
    """Files with the page's headers; scripts may be loaded by other sites' pages, as a client must."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = {**_HEADERS, "access-control-allow-origin": "*"}
                message["headers"] = [
                    *message["headers"],
                    *((n.encode(), v.encode()) for n, v in extra.items()),
                ]
            await send(message)

        await self._app(scope, receive, send_with_headers)
