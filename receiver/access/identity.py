"""Who a connection belongs to, once something has proved it."""

from __future__ import annotations

from dataclasses import dataclass

from shared.channels import Channel, customer_channel, topic_channel


class InvalidToken(Exception):
    """A token that proves nothing; the message says why, to its owner, and quotes nothing of it."""


class KeysUnavailable(Exception):
    """The issuer's keys could not be fetched; the token may be good."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A customer, the topics they may read, and until when we know this (seconds since 1970)."""

    customer: str
    topics: tuple[str, ...]  # in order, each once; kept for each connection, so it should be small
    expires_at: float
    jti: str | None = None  # the token's own id, by which it can be revoked
    iat: float | None = None  # when it was issued, seconds since 1970

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Their own channel first, then the topics in order."""
        return (customer_channel(self.customer), *map(topic_channel, self.topics))
