"""The shop page and the browser client, served as files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse
from starlette.routing import BaseRoute, Mount, Route

from receiver.pages.client import FOLDER, ClientFiles, built_files
from shared.pages import CONNECT, HEADERS, in_development

if TYPE_CHECKING:
    from starlette.requests import Request

# Without a balancer each gateway is a separate origin. `/?gateway=8092` lets tabs of one origin, which
# share what they have shown, connect to several gateways, as they would through a balancer.
_CONNECT_ANY_PORT = CONNECT + " ws://127.0.0.1:* ws://localhost:* http://127.0.0.1:* http://localhost:*"
_IMPORT = re.compile(r'^(?:import|export) [^"]*? from "(\./[\w/.-]+)";$', re.MULTILINE)


def page_routes(*, development: bool) -> list[BaseRoute]:
    built = built_files()
    client = ["orderbell.js"] if "orderbell.js" in built else modules()
    scripts = [*client, "elements.js", *modules("shop/shop.js")]
    page = preloading((FOLDER / "shop.html").read_text(encoding="utf-8"), "static", scripts)
    headers = HEADERS
    if development:
        page = in_development(page)
        policy = HEADERS["content-security-policy"].replace(CONNECT, _CONNECT_ANY_PORT)
        headers = {**HEADERS, "content-security-policy": policy}

    async def shop(request: Request) -> HTMLResponse:
        return HTMLResponse(page, headers=headers)

    files = ClientFiles(built)
    return [Route("/", shop), Mount("/client/v1", files), Mount("/static", files)]


def modules(entry: str = "orderbell.js") -> list[str]:
    """The module itself, then the modules of its folder that it imports, directly or through others."""
    found = [entry]
    folder = entry.rpartition("/")[0]
    for name in found:
        text = (FOLDER / name).read_text(encoding="utf-8")
        parts = dict.fromkeys(f"{folder}/{part[2:]}".lstrip("/") for part in _IMPORT.findall(text))
        found += [part for part in parts if part not in found]
    return found


def preloading(page: str, base: str, scripts: list[str]) -> str:
    """The page, with hints that make browsers load all its modules at once, not one level of imports after
    the other.
    """
    links = "".join(f'<link rel="modulepreload" href="{base}/{name}">' for name in scripts)
    return page.replace("</head>", f"{links}</head>", 1)
