"""Which pages may connect. Browsers' CORS does not cover WebSockets."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import structlog

from shared.origins import InvalidOrigin, is_pattern, matches, parse_origin, parse_pattern
from shared.process.sampled import Sampled

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.requests import HTTPConnection

    from shared.origins import Origin

_SCHEMES = {"http": "http", "ws": "http", "https": "https", "wss": "https"}
_MAX_ORIGIN = 300  # characters; a name has 253
_MAX_LOGGED = 200  # characters of a client's text

logger = structlog.get_logger(__name__)


class Origins:
    """Which pages may use a customer's cookie or connect at all."""

    def __init__(self, allowed: Collection[str]) -> None:
        """Origins, and patterns of subdomains: see `shared.origins`."""
        parsed = [parse_pattern(text) for text in allowed]
        self._exact = frozenset(origin for origin in parsed if not is_pattern(origin))
        self._patterns = [origin for origin in parsed if is_pattern(origin)]
        self._sampled = Sampled(logger)

    @property
    def exact(self) -> list[str]:
        """The origins that are not patterns, as browsers send them."""
        return sorted(map(str, self._exact))

    @property
    def regex(self) -> str | None:
        """The patterns as one regular expression, for CORS; None if there are none."""
        texts = [re.escape(str(p)).replace(r"\*\.", r"[a-z0-9_.-]+\.", 1) for p in self._patterns]
        return "|".join(texts) or None

    def accept(self, request: HTTPConnection) -> bool:
        """The gateway's own origin, those in the settings, and clients that are not browsers."""
        origins = [value.decode("latin-1") for name, value in request.scope["headers"] if name == b"origin"]
        if not origins:
            return True
        if len(origins) == 1 and (self._allows(origins[0]) or _is_own(origins[0], request)):
            return True
        self._sampled.warning(
            "a page of a foreign origin was refused; is it missing from ORDERBELL_ALLOWED_ORIGINS?",
            origin=", ".join(origins)[:_MAX_LOGGED],
            host=request.headers.get("host", "")[:_MAX_LOGGED],
        )
        return False

    def _allows(self, text: str) -> bool:
        origin = _parse(text)
        if origin is None:
            return False
        return origin in self._exact or any(matches(origin, pattern) for pattern in self._patterns)


def origin_of(request: HTTPConnection) -> str:
    """The origin of the page that sent the request, in its one spelling; empty if the request names none."""
    origin = _parse(request.headers.get("origin", ""))
    return str(origin) if origin else ""


def comes_from(request: HTTPConnection, origin: str) -> bool:
    """Whether a page of this origin may have sent it.

    Browsers name the page's origin in every request but a plain GET to the page's own.
    """
    if "origin" in request.headers:
        return origin_of(request) == origin
    return "upgrade" not in request.headers and _is_own(origin, request)


def _is_own(text: str, request: HTTPConnection) -> bool:
    """Whether the page is one of ours: by host, port, and the scheme where we know our own.

    We know it where a trusted proxy reports it. Otherwise TLS may end in front of us unnoticed.
    """
    host = request.headers.get("host", "")
    origin = _parse(text)
    schemes = (known,) if (known := _known_scheme(request)) else ("http", "https")
    return origin is not None and any(origin == _parse(f"{scheme}://{host}") for scheme in schemes)


def _parse(text: str) -> Origin | None:
    return _parse_short(text) if len(text) <= _MAX_ORIGIN else None


@lru_cache(maxsize=1_000)  # nearly all requests name the same few
def _parse_short(text: str) -> Origin | None:
    try:
        return parse_origin(text)
    except InvalidOrigin:
        return None


def _known_scheme(request: HTTPConnection) -> str | None:
    scheme = _SCHEMES.get(request.scope["scheme"], "http")
    said = request.headers.get("x-forwarded-proto", "").strip().lower()
    return scheme if scheme == "https" or _SCHEMES.get(said) == scheme else None
