"""Tickets: proof of a token for clients that can send neither header nor cookie. Single use, 60 seconds.

Redis keeps a ticket's hash, never the ticket; reading Redis gives nobody a usable one. With
`ORDERBELL_LIVE_KEYS` its content is signed, so writing to Redis does not either.

A ticket is bound to the origin of the page that asked for it: if it leaks, it is of no use to a page of
another origin, nor to a client that names no origin. A ticket that was asked for without an Origin, by a
shop's server or an app, is bound to none, because the gateway cannot know which page it is for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import secrets
from typing import TYPE_CHECKING

import msgspec

from receiver.access.identity import Identity, InvalidToken
from shared.errors import CallerError
from shared.quota import Quota
from shared.redis.signatures import NO_SIGNATURES, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.redis.connect import AnyPipelines
    from shared.redis.keys import Names
    from shared.redis.signatures import Signatures

LIFETIME_SECONDS = 60
_TICKET = re.compile(r"[A-Za-z0-9_-]{43}")


class _Bound(msgspec.Struct):
    origin: str = ""  # of the only pages that may use it


class TooManyTickets(CallerError):
    """A customer has asked for too many tickets; `seconds` until there may be one more."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many tickets for this customer; try again in {math.ceil(seconds)} s")
        self.seconds = seconds


class Tickets:
    """Methods raise redis-py's errors and `TimeoutError` if Redis is away."""

    def __init__(
        self,
        pipelines: AnyPipelines,
        names: Names,
        signatures: Signatures = NO_SIGNATURES,
        *,
        per_minute: int = 60,
    ) -> None:
        """`per_minute` of each customer, at one gateway."""
        self._pipelines = pipelines
        self._names = names
        self._signatures = signatures
        self._quota = Quota(per_minute)

    async def issue(self, identity: Identity, *, origin: str = "") -> str:
        """`origin`: of the page that asks; empty if it is not known. Raises `TooManyTickets`."""
        if seconds := self._quota.spend(identity.customer):
            raise TooManyTickets(seconds)
        ticket = secrets.token_urlsafe(32)
        key = self._key(ticket)
        content = msgspec.structs.asdict(_Bound(origin)) | dataclasses.asdict(identity)
        value = self._signatures.seal(Kind.TICKET, key.encode(), msgspec.json.encode(content))
        await self._pipelines.execute([("SET", key, value, "EX", LIFETIME_SECONDS, "NX")])
        return ticket

    async def redeem(self, ticket: str, comes_from: Callable[[str], bool] = lambda _: True) -> Identity:
        """Raises `InvalidToken` if the ticket never existed, was used or has expired, or if the request does
        not come from the origin to which it is bound.
        """
        if not _TICKET.fullmatch(ticket):
            raise InvalidToken("not a ticket")
        key = self._key(ticket)
        [value] = await self._pipelines.execute([("GETDEL", key)])
        if value is None:
            raise InvalidToken("the ticket was already used or has expired")
        text = self._signatures.open(Kind.TICKET, key.encode(), value)
        if text is None:
            raise InvalidToken("malformed ticket")
        try:
            identity = msgspec.json.decode(text, type=Identity)
            bound = msgspec.json.decode(text, type=_Bound)
        except (ValueError, RecursionError):
            raise InvalidToken("malformed ticket") from None
        if bound.origin and not comes_from(bound.origin):
            raise InvalidToken("the ticket belongs to a page of another origin")
        return identity

    def _key(self, ticket: str) -> str:
        return self._names.ticket(hashlib.sha256(ticket.encode()).hexdigest())
