"""Customers' tokens as their issuer makes them. receiver/access/ verifies them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import jwt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import SecretStr

    from shared.settings import ReceiverSettings

MAX_TOPICS = 99  # of one token: with the customer's own channel they fill a cursor text


class ClaimNames(NamedTuple):
    """The names of the claims we read."""

    customer: str = "sub"
    topics: str = "topics"
    audience: str = "aud"

    @staticmethod
    def of(settings: ReceiverSettings) -> ClaimNames:
        return ClaimNames(settings.jwt_customer_claim, settings.jwt_topics_claim, settings.jwt_audience_claim)


STANDARD = ClaimNames()


def mint_token(
    secret: SecretStr,
    customer: str,
    *,
    audience: str,
    issuer: str | None = None,
    topics: Iterable[str] = (),
    lifetime_seconds: float = 3600,
    names: ClaimNames = STANDARD,
) -> str:
    """A token as an issuer would sign it: for `orderbell token`, development mode and tests."""
    now = time.time()
    claims: dict[str, Any] = {
        names.customer: customer,
        names.audience: audience,
        "iat": int(now),
        "exp": int(now + lifetime_seconds),
    }
    if issuer:
        claims["iss"] = issuer
    if topics:
        claims[names.topics] = list(topics)
    return jwt.encode(claims, secret.get_secret_value(), algorithm="HS256")


def find_claim(claims: dict[str, Any], name: str) -> Any:
    """A claim by its name, else by its path from the outside in: `realm_access.roles`. None where missing."""
    value = claims.get(name)
    end = len(name)
    # The longest name first: `https://shop.example/claims.id` is `id` within `https://shop.example/claims`.
    while value is None and (end := name.rfind(".", 0, end)) > 0:
        within = claims.get(name[:end])
        if isinstance(within, dict):
            value = find_claim(within, name[end + 1 :])
    return value
