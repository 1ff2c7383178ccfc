"""Files of our own services' pages, with the headers that every part of a page gets."""

from __future__ import annotations

import gzip
import hashlib
import re
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from starlette.staticfiles import PathLike as StrPath
    from starlette.types import Message, Receive, Scope, Send

SHARED = Path(__file__).parent / "page"
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
    "cache-control": "no-cache",  # browsers ask each time and rarely get the file again: it has an ETag
}


def in_development(page: str) -> str:
    """The page, marked for its scripts as in development mode."""
    return page.replace('data-development="false"', 'data-development="true"', 1)


class PageFiles(StaticFiles):
    """A directory's files and those that all our pages share, with `HEADERS` and others.

    Each text is compressed once. A file `name.br` is the Brotli form of the file `name`.
    """

    def __init__(self, directory: Path, others: Mapping[str, str] | None = None) -> None:
        super().__init__(directory=directory)
        self.all_directories = [*self.all_directories, SHARED]
        self._headers = [(n.encode(), v.encode()) for n, v in {**HEADERS, **(others or {})}.items()]
        self._compressed: dict[tuple[str, float], _Coded | None] = {}  # by path and time of last change

    def file_response(
        self, full_path: StrPath, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        plain = super().file_response(full_path, stat_result, scope, status_code)
        if not str(full_path).endswith(_TEXTS):
            return plain
        plain.headers["vary"] = "accept-encoding"
        given = Headers(scope=scope)
        taken = codings(given.get("accept-encoding", ""))
        coded = next((c for coding in taken if (c := self._coded(coding, str(full_path), stat_result))), None)
        if coded is None:
            return plain
        headers = {"content-encoding": coded.coding, "vary": "accept-encoding", "etag": coded.etag}
        if coded.etag in given.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(coded.body, status_code, headers, guess_type(full_path)[0])

    def _coded(self, coding: str, path: str, found: os.stat_result) -> _Coded | None:
        key = (f"{coding} {path}", found.st_mtime)
        if key not in self._compressed:
            body = _brotli(path) if coding == "br" else gzip.compress(Path(path).read_bytes(), 9, mtime=0)
            # No time inside, so that every gateway returns the same bytes.
            etag = body and f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            self._compressed[key] = _Coded(coding, body, etag) if body and etag else None
        return self._compressed[key]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                has = {name for name, _ in message["headers"]}
                ours = [(name, value) for name, value in self._headers if name not in has]
                message["headers"] = [*message["headers"], *ours]
            await send(message)

        await super().__call__(scope, receive, send_with_headers)


class _Coded(NamedTuple):
    coding: str
    body: bytes
    etag: str


def _brotli(path: str) -> bytes | None:
    made = Path(f"{path}.br")
    return made.read_bytes() if made.is_file() else None


def codings(accept_encoding: str) -> list[str]:
    """The codings that the client accepts, the smaller first. RFC 9110 12.5.3: a `q` of 0 refuses."""
    weights = {}
    for part in accept_encoding.lower().split(","):
        coding, _, weight = part.partition(";")
        refused = re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight) is not None
        weights[coding.strip()] = not refused
    return [coding for coding in ("br", "gzip") if weights.get(coding, weights.get("*", False))]
