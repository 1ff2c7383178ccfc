"""Which pages may connect. Browsers' CORS does not cover WebSockets."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.requests import HTTPConnection


class Origins:
    """Which pages may use a customer's cookie or connect at all."""

    def __init__(self, allowed: Collection[str]) -> None:
        self.allowed = frozenset(allowed)

    def accept(self, request: HTTPConnection) -> bool:
        """The gateway's own origin, those in the settings, and clients that are no browser."""
        origins = request.headers.getlist("origin")
        if not origins:
            return True
        # Behind a proxy that ends TLS the scheme differs, so only host and port are compared with ours.
        own = request.headers.get("host", "").lower()
        return len(origins) == 1 and (origins[0] in self.allowed or urlsplit(origins[0]).netloc == own != "")
