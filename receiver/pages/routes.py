"""The shop page and the browser client, served as files."""

from __future__ import annotations

import re
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
_CONNECT_ANY_PORT = CONNECT + " ws://127.0.0.1:* ws://localhost:* http://127.0.0.1:* http://localhost:*"
# Scripts and styles may be loaded by other sites' pages, as a client must; by those that isolate themselves,
# too.
_ANYWHERE = {"access-control-allow-origin": "*", "cross-origin-resource-policy": "cross-origin"}
_IMPORT = re.compile(r'^(?:import|export) [^"]*? from "(\./[\w/.-]+)";$', re.MULTILINE)


def page_routes(*, development: bool) -> list[BaseRoute]:
    page = preloading((FOLDER / "shop.html").read_text(encoding="utf-8"), "static")
    headers = HEADERS
    if development:
        page = in_development(page)
        policy = HEADERS["content-security-policy"].replace(CONNECT, _CONNECT_ANY_PORT)
        headers = {**HEADERS, "content-security-policy": policy}

    async def shop(request: Request) -> HTMLResponse:
        return HTMLResponse(page, headers=headers)

    files = PageFiles(FOLDER, _ANYWHERE)
    return [Route("/", shop), Mount("/client/v1", files), Mount("/static", files)]


def modules(entry: str = "orderbell.js") -> list[str]:
    """The modules of the client that a page loads with this one, itself first."""
    found = [entry]
    for name in found:
        text = (FOLDER / name).read_text(encoding="utf-8")
        parts = dict.fromkeys(part.removeprefix("./") for part in _IMPORT.findall(text))
        found += [part for part in parts if part not in found]
    return found


def preloading(page: str, base: str) -> str:
    """The page, which asks for all modules at once instead of one level of imports after the other."""
    links = "".join(f'<link rel="modulepreload" href="{base}/{name}">' for name in modules())
    return page.replace("</head>", f"{links}</head>", 1)
