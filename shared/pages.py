"""Pages of our own services: their files, with the headers that every part of a page gets."""

from __future__ import annotations

import gzip
import hashlib
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from starlette.staticfiles import PathLike as StrPath
    from starlette.types import Message, Receive, Scope, Send

_TEXTS = (".js", ".css", ".svg")
CONNECT = "connect-src 'self'"
_POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; {CONNECT};"
    " base-uri 'none'; frame-ancestors 'none'; form-action 'self'; object-src 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"  # nothing here makes HTML of text
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # always asked for, rarely sent: the files have ETags
}


def in_development(page: str) -> str:
    """The page, marked so that its scripts know that it is in development mode."""
    return page.replace('data-development="false"', 'data-development="true"', 1)


class PageFiles(StaticFiles):
    """A directory's files, with `HEADERS` and others; texts are compressed, each once."""

    def __init__(self, directory: Path, others: Mapping[str, str] | None = None) -> None:
        super().__init__(directory=directory)
        self._headers = [(n.encode(), v.encode()) for n, v in {**HEADERS, **(others or {})}.items()]
        self._compressed: dict[tuple[str, float], bytes] = {}  # by path and time of the last change

    def file_response(
        self, full_path: StrPath, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        plain = super().file_response(full_path, stat_result, scope, status_code)
        if not str(full_path).endswith(_TEXTS):
            return plain
        plain.headers["vary"] = "accept-encoding"
        given = Headers(scope=scope)
        if "gzip" not in given.get("accept-encoding", ""):
            return plain
        text = self._compress(str(full_path), stat_result.st_mtime)
        etag = f'"{hashlib.sha256(text).hexdigest()[:32]}"'
        headers = {"content-encoding": "gzip", "vary": "accept-encoding", "etag": etag}
        if etag in given.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(text, status_code, headers, guess_type(full_path)[0])

    def _compress(self, path: str, changed: float) -> bytes:
        text = self._compressed.get((path, changed))
        if text is None:
            # No time within: every gateway gives the same bytes.
            text = self._compressed[path, changed] = gzip.compress(Path(path).read_bytes(), 9, mtime=0)
        return text

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        await super().__call__(scope, receive, send_with_headers)
