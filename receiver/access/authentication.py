"""Which customer a request or a connection is: from a header, a ticket or a same-site cookie.

Of several credentials in one request, what the client's own code gives counts before what a browser adds:
the token of STOMP's CONNECT, then `Authorization`, a ticket, the cookie. The first that is there decides; if
it is bad, the others are not tried. A connection never changes its customer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from starlette.datastructures import QueryParams

from receiver.access.identity import Identity, InvalidToken, KeysUnavailable
from receiver.access.origins import comes_from
from receiver.access.revocations import Revocations
from shared.errors import CallerError
from shared.process.head import first_value

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from receiver.access.tickets import Tickets
    from receiver.access.verifier import Verifier

# A URL ends up in logs, histories and Referer headers; a token in one is refused, even a valid one.
_REFUSED_PARAMETERS = frozenset(
    {"token", "access_token", "id_token", "auth_token", "jwt", "authorization", "bearer"}
)
_JWT = re.compile(r"(?:Bearer )?eyJ[\w-]+\.[\w-]+\.[\w-]*")  # whatever its parameter is called
_NO_QUERY = QueryParams()


HOST_PREFIX = "__Host-"  # RFC 6265bis 4.1.3.2
REVOKED = "the token was revoked"


class TokenInUrl(CallerError):
    """A request with a token in its URL, or something that looks like one."""


class Authentication:
    def __init__(self, verifier: Verifier, tickets: Tickets, *, cookie: str) -> None:
        self.revocations = Revocations()
        self._verifier = verifier
        self._tickets = tickets
        self._cookies = [_cookie_pattern(HOST_PREFIX + cookie), _cookie_pattern(cookie)]

    async def verify(
        self, *, token: str = "", ticket: str = "", request: HTTPConnection | None = None
    ) -> Identity:
        """`request` is the one that a ticket came with; without it, the ticket of any page is accepted.

        Raises `InvalidToken`, or `KeysUnavailable` if it can't be verified now.
        """
        identity = await (self._verifier.verify(token) if token else self._redeem(ticket, request))
        if self.revocations.touches(identity):
            raise InvalidToken(REVOKED)
        return identity

    async def _redeem(self, ticket: str, request: HTTPConnection | None) -> Identity:
        try:
            if request is None:
                return await self._tickets.redeem(ticket)
            return await self._tickets.redeem(ticket, lambda origin: comes_from(request, origin))
        except (RedisError, OSError, TimeoutError) as error:
            raise KeysUnavailable("tickets can't be checked now") from error

    async def identify(self, request: HTTPConnection) -> Identity | None:
        """The client's identity; None if the request proves none. Raises as `verify`, and `TokenInUrl`."""
        query = request.query_params if request.scope["query_string"] else _NO_QUERY
        if _has_token(query):
            raise TokenInUrl("a token must not be in a URL; POST /tickets issues a ticket for it")
        if token := bearer_token(request):
            return await self.verify(token=token)
        tickets = query.getlist("ticket") if query else []
        if len(tickets) > 1:
            raise InvalidToken("a request has one ticket at most")
        if tickets and (ticket := tickets[0]):
            return await self.verify(ticket=ticket, request=request)
        # Browsers send a cookie for every page; without an Origin the page is unknown.
        if (cookie := self._cookie_of(request)) and "origin" in request.headers:
            return await self.verify(token=cookie)
        return None

    def carried(self, request: HTTPConnection) -> str:
        """The token that a client sends with every request, unverified; empty if it sends none."""
        if token := bearer_token(request):
            return token
        try:
            return self._cookie_of(request)
        except InvalidToken:
            return ""

    def _cookie_of(self, request: HTTPConnection) -> str:
        """Empty if there is none. The `__Host-` cookie counts first: only we could have set it, over TLS.

        Raises `InvalidToken` if two differ: a page of another subdomain may have set one of them, and nothing
        says which (RFC 6265 8.6).
        """
        texts = [value for name, value in request.scope["headers"] if name == b"cookie"]
        if not texts:
            return ""
        text = b";".join(texts).decode("latin-1")
        for pattern in self._cookies:
            if found := {value for _, value in pattern.findall(text)} - {""}:
                if len(found) > 1:
                    raise InvalidToken("two cookies of one name")
                return str(found.pop())
        return ""

    async def identify_same_site(self, request: HTTPConnection) -> Identity:
        """As `identify`, for plain requests of our own pages: SameSite=Strict vouches for the cookie.

        Browsers send no Origin with a same-origin GET, and `Sec-Fetch-Site` with each; it counts where a
        shop's cookie is not Strict. Raises `InvalidToken` if the request proves nothing.
        """
        identity = await self.identify(request)
        foreign = request.headers.get("sec-fetch-site") == "cross-site"
        if identity is None and not foreign and (token := self._cookie_of(request)):
            identity = await self.verify(token=token)
        if identity is None:
            raise InvalidToken("a token is required")
        return identity


def _cookie_pattern(name: str) -> re.Pattern[str]:
    """Finds one cookie among all: parsers of the whole header took 15 ms for 30 kB of them."""
    return re.compile(rf'(?:^|;)[ \t]*+{re.escape(name)}[ \t]*+=[ \t]*+("?)([^;" \t]*+)\1[ \t]*+(?=;|$)')


def _has_token(query: QueryParams) -> bool:
    return any(
        name.lower() in _REFUSED_PARAMETERS or _JWT.fullmatch(value) for name, value in query.multi_items()
    )


def bearer_token(request: HTTPConnection) -> str:
    scheme, _, token = first_value(request.scope["headers"], b"authorization").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
