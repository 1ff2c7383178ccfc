"""Errors as callers of our HTTP APIs get them: `application/problem+json`, RFC 9457."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from shared.errors import OrderbellError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

logger = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"


class Problem(OrderbellError):
    """Raised to end a request; `response` is the answer to its caller.

    `kind` is the last part of the problem's type, `urn:orderbell:problem:<kind>`, and stays the same
    between versions; `extra` are further members of the answer.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        **extra: object,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = headers
        self.extra = extra

    def members(self) -> dict[str, Any]:
        return {
            "type": f"urn:orderbell:problem:{self.kind}",
            "title": self.kind.replace("-", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            **self.extra,
        }

    def response(self) -> Response:
        return Response(
            msgspec.json.encode(self.members()), self.status, dict(self.headers or {}), media_type=MEDIA_TYPE
        )


def unauthenticated(detail: str) -> Problem:
    """The credentials are missing or invalid: the one 401 of both services."""
    return Problem(401, "unauthenticated", detail, {"WWW-Authenticate": "Bearer"})


async def answer_problem(request: Request, problem: Exception) -> Response:
    """Starlette's handler for `Problem`."""
    assert isinstance(problem, Problem)
    return problem.response()


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's handler for what its router refuses: no such path, no such method."""
    assert isinstance(error, HTTPException)
    kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    return Problem(error.status_code, kind, str(error.detail), error.headers).response()


async def answer_nobody(request: Request, error: Exception) -> Response:
    """Starlette's handler for a caller that hung up while its body was read, which is not a fault."""
    return Response(status_code=400)


async def answer_failure(request: Request, error: Exception) -> Response:
    """Starlette's handler for unexpected errors: logged in full, never shown to the caller."""
    logger.error("request failed", method=request.method, path=request.url.path, exc_info=error)
    return Problem(500, "internal-server-error", "The server failed; see its log.").response()


HANDLERS = {
    Problem: answer_problem,
    HTTPException: answer_http_exception,
    ClientDisconnect: answer_nobody,
    Exception: answer_failure,
}
