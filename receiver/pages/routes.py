"""The shop page and the browser client, served as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse
from starlette.routing import BaseRoute, Mount, Route

from shared.pages import CONNECT, HEADERS, PageFiles, in_development

if TYPE_CHECKING:
    from starlette.requests import Request

FOLDER = Path(__file__).parents[1] / "browser"

# Without a balancer each gateway is a separate origin. `/?gateway=8092` lets tabs of one origin, which
# share what they have shown, connect to several gateways, as they would through a balancer.
_CONNECT_ANY_PORT = CONNECT + " ws://127.0.0.1:* ws://localhost:*"
# Scripts may be loaded by other sites' pages, as a client must.
_ANYWHERE = {"access-control-allow-origin": "*"}


def page_routes(*, development: bool) -> list[BaseRoute]:
    page = (FOLDER / "shop.html").read_text(encoding="utf-8")
    headers = HEADERS
    if development:
        page = in_development(page)
        policy = HEADERS["content-security-policy"].replace(CONNECT, _CONNECT_ANY_PORT)
        headers = {**HEADERS, "content-security-policy": policy}

    async def shop(request: Request) -> HTMLResponse:
        return HTMLResponse(page, headers=headers)

    files = PageFiles(FOLDER, _ANYWHERE)
    return [Route("/", shop), Mount("/client/v1", files), Mount("/static", files)]
