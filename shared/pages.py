"""Pages of our own services: their files, with the headers that every part of a page gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from starlette.types import Message, Receive, Scope, Send

CONNECT = "connect-src 'self'"
_POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; {CONNECT};"
    " base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # always asked for, rarely sent: the files have ETags
}


def in_development(page: str) -> str:
    """The page, marked so that its scripts know that it is in development mode."""
    return page.replace('data-development="false"', 'data-development="true"', 1)


class PageFiles(StaticFiles):
    """A directory's files, with `HEADERS` and others."""

    def __init__(self, directory: Path, others: Mapping[str, str] | None = None) -> None:
        super().__init__(directory=directory)
        self._headers = [(n.encode(), v.encode()) for n, v in {**HEADERS, **(others or {})}.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        await super().__call__(scope, receive, send_with_headers)
