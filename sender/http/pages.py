"""The back office page: static files, and in development mode the API key that it uses.

There is no session and no cookie. In production, the user of the page types an API key in; in development
mode, which listens on loopback only, the page fetches one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from shared.loopback import host_of, is_loopback
from shared.pages import HEADERS, PageFiles, in_development

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import SecretStr
    from starlette.requests import Request


class OfficePage:
    def __init__(self, directory: Path, development_key: SecretStr | None) -> None:
        """`development_key` is given only in development mode."""
        self._index = directory / "index.html"
        self._key = development_key
        self.assets = PageFiles(directory)

    async def index(self, request: Request) -> Response:
        page = self._index.read_text(encoding="utf-8")
        if self._key is not None:
            page = in_development(page)
        return Response(page, headers=HEADERS, media_type="text/html")

    async def api_key(self, request: Request) -> Response:
        # The Host is checked because a foreign page can make its own name point here (DNS rebinding).
        if self._key is None or not is_loopback(host_of(request.headers.get("host", ""))):
            raise HTTPException(404)
        body = msgspec.json.encode({"api_key": self._key.get_secret_value()})
        return Response(body, headers={"Cache-Control": "no-store"}, media_type="application/json")
