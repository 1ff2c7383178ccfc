"""Which clients may make a plain HTTP request, and how every other is refused: one way for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.access.authentication import TokenInUrl
from receiver.access.identity import ForbiddenToken, InvalidToken, KeysUnavailable
from shared.problems import Problem, unauthenticated

if TYPE_CHECKING:
    from starlette.requests import Request

    from receiver.access.authentication import Authentication
    from receiver.access.identity import Identity
    from receiver.access.origins import Origins


class Doorkeeper:
    def __init__(self, authentication: Authentication, origins: Origins) -> None:
        self._authentication = authentication
        self._origins = origins

    async def identify(self, request: Request) -> Identity:
        """Raises `Problem`."""
        if not self._origins.accept(request):
            raise Problem(403, "foreign-origin", "This origin is not in ORDERBELL_ALLOWED_ORIGINS.")
        try:
            if request.method in ("GET", "HEAD"):
                return await self._authentication.identify_same_site(request)
            # With all other methods browsers send the page's origin, so a cookie counts only with one.
            if identity := await self._authentication.identify(request):
                return identity
            raise InvalidToken("a token is required")
        except TokenInUrl as error:
            raise Problem(400, "token-in-url", str(error)) from None
        except ForbiddenToken as error:
            raise Problem(403, "forbidden-token", str(error)) from None
        except InvalidToken as error:
            raise unauthenticated(str(error)) from None
        except KeysUnavailable as error:
            raise Problem(503, "unavailable", str(error), {"retry-after": "2"}) from None
