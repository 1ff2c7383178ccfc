"""Paths as they were sent: an encoded slash in an id must not split the route.

The server decodes the path before it hands it to the app; then the order `2026/1042` in
`/orders/2026%2F1042/complete` looks like two segments. So routes are matched against the path as it was sent,
and each parameter is decoded separately.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from shared.channels import Channel, InvalidChannel, as_in_a_channel, parse_channel

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")


class RawPaths:
    """Hands the app the path as it was sent, normalised by RFC 3986, 6.2.2."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if raw_path := scope.get("raw_path"):
            scope["path"] = _ESCAPE.sub(_normalise, raw_path.decode("latin-1"))
        await self._app(scope, receive, send)


def _normalise(escape: re.Match[str]) -> str:
    character = chr(int(escape[0][1:], 16))
    return character if _UNRESERVED.fullmatch(character) else escape[0].upper()


def name_in_path(request: Request, parameter: str) -> str | None:
    """The decoded parameter; None if it is not UTF-8."""
    sent: str = request.path_params[parameter]
    try:
        return unquote_to_bytes(sent.encode("latin-1")).decode()
    except UnicodeDecodeError:
        return None


def channel_in_path(request: Request, parameter: str) -> Channel:
    """A channel as it stands, or encoded a second time, see shared/cursors.py. Raises `InvalidChannel`."""
    sent: str = request.path_params[parameter]
    try:
        return parse_channel(as_in_a_channel(sent))
    except InvalidChannel:
        decoded = name_in_path(request, parameter)
        return parse_channel(sent if decoded is None else decoded)
