"""The revoked tokens that a gateway knows of, and how it learns of them.

The sender has the list. A gateway reads all of it at start, and what is new several times a second, without
Redis; so a revocation takes effect within a second at every gateway that reaches the sender, also after it
was cut off. `touches` is asked when a token is verified and when its connection enters its channels;
connections that are open already are ended when the revocation is read.

A token without `iat` counts as issued before any revocation of its customer.

While the sender can't be reached, the gateway learns of no new revocations; those it knows stay in force. An
older sender has no list: it answers 404 and is asked less often.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

import msgspec
import structlog

from receiver import metrics
from receiver.connections.connection import End
from receiver.connections.failing import end_one
from shared.errors import NeighbourError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from receiver.access.identity import Identity
    from receiver.connections.connection import Connection

ASK_SECONDS = 0.5
_RETRY_SECONDS = 0.5  # so that what was revoked counts within a second of the sender's return
_ANSWER_SECONDS = 3.0
_OLD_SENDER_SECONDS = 10.0
_FORGET_SECONDS = 60.0

logger = structlog.get_logger(__name__)


class RevocationsUnavailable(NeighbourError):
    """The sender gave no usable answer; it may give one later."""


class Revocation(msgspec.Struct, frozen=True):
    position: int
    kept_until: float  # seconds since 1970; then it is forgotten
    jti: str | None = None
    customer_id: str | None = None
    issued_before: float | None = None  # seconds since 1970


class Revocations:
    """What is revoked."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._tokens: dict[str, float] = {}  # by jti: until when it is kept
        self._customers: dict[str, tuple[float, float]] = {}  # issued before, and until when it is kept
        self._forget_at = 0.0

    def __len__(self) -> int:
        return len(self._tokens) + len(self._customers)

    def add(self, revocation: Revocation) -> None:
        if revocation.jti is not None:
            self._tokens[revocation.jti] = revocation.kept_until
        elif revocation.customer_id is not None:
            self._customers[revocation.customer_id] = (revocation.issued_before or 0.0, revocation.kept_until)

    def touches(self, identity: Identity) -> bool:
        if not (self._tokens or self._customers):
            return False
        if identity.jti is not None and identity.jti in self._tokens:
            return True
        issued_before, _ = self._customers.get(identity.customer, (0.0, 0.0))
        return issued_before > 0 and (identity.iat is None or identity.iat < issued_before)

    def forget_ended(self) -> None:
        """Drop revocations whose tokens have expired."""
        now = self._clock()
        if now < self._forget_at:
            return
        self._forget_at = now + _FORGET_SECONDS
        self._tokens = {jti: until for jti, until in self._tokens.items() if until > now}
        self._customers = {name: one for name, one in self._customers.items() if one[1] > now}


class Page(msgspec.Struct):
    revocations: list[Revocation]
    newest: int


class KnowsRevocations(Protocol):
    """The part of the sender that this needs."""

    async def revocations(self, after: int) -> Page | None:
        """The revocations after a position; None from an older sender. Raises `RevocationsUnavailable`."""


class RevocationList:
    """Keeps `Revocations` as the sender has them, and ends the connections that they touch."""

    def __init__(
        self,
        sender: KnowsRevocations,
        revocations: Revocations,
        connections: Callable[[], Iterable[Connection]],
        *,
        ask_seconds: float = ASK_SECONDS,
    ) -> None:
        self._sender = sender
        self._revocations = revocations
        self._connections = connections
        self._ask_seconds = ask_seconds
        self._position = 0

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    pause = await self._ask()
            except (RevocationsUnavailable, TimeoutError) as error:
                logger.debug("the revocations can't be read now", reason=str(error) or "no answer in time")
                pause = _RETRY_SECONDS
            await asyncio.sleep(pause)

    async def _ask(self) -> float:
        """Returns the seconds to wait before the next question."""
        page = await self._sender.revocations(self._position)
        if page is None:
            return _OLD_SENDER_SECONDS
        if page.newest < self._position:  # the database went back: all of it is read again
            self._position = 0
            return 0.0
        self._take(page)
        self._revocations.forget_ended()
        return 0.0 if page.revocations and self._position < page.newest else self._ask_seconds

    def _take(self, page: Page) -> None:
        if not page.revocations:
            self._position = page.newest
            return
        for revocation in page.revocations:
            self._revocations.add(revocation)
        self._position = page.revocations[-1].position
        touched = [
            one
            for one in self._connections()
            if one.identity is not None and self._revocations.touches(one.identity)
        ]
        for connection in touched:
            end_one(connection, End.UNAUTHENTICATED, "the token was revoked")
        metrics.revoked.inc(len(touched))
        logger.info("tokens were revoked", revocations=len(page.revocations), connections=len(touched))
