"""The customer a connection belongs to, once proved."""

from __future__ import annotations

import math
from dataclasses import dataclass

from shared.channels import Channel, customer_channel, topic_channel
from shared.errors import CallerError, NeighbourError


class InvalidToken(CallerError):
    """A token that proves nothing now; a new one may. The message gives the reason and quotes no part of the
    token.
    """


class ForbiddenToken(InvalidToken):
    """A token that is never accepted here, nor any other of its kind: the settings and its issuer disagree.

    `detail` is for the log: what the token contains, and what the settings expect.
    """

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class KeysUnavailable(NeighbourError):
    """The issuer's keys could not be fetched; the token may be valid."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A customer, the topics they may read, and until when this holds (seconds since 1970)."""

    customer: str  # empty if a client needs no token: it has no channel of its own
    topics: tuple[str, ...]  # in order, each once; kept for each connection, so it should be small
    expires_at: float
    jti: str | None = None  # the token's own id, by which it can be revoked
    iat: float | None = None  # when it was issued, seconds since 1970

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Their own channel first, then the topics in order."""
        own = (customer_channel(self.customer),) if self.customer else ()
        return (*own, *map(topic_channel, self.topics))

    def owns(self, channel: Channel) -> bool:
        """Whether the channel is this customer's own."""
        return bool(self.customer) and customer_channel(self.customer) == channel


ANYBODY = Identity("", (), expires_at=math.inf)
