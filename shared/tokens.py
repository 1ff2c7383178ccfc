"""Customers' tokens as their issuer makes them. receiver/access/ verifies them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import jwt
from jwt.algorithms import HMACAlgorithm

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import SecretStr

MAX_TOPICS = 99  # of one token: with the customer's own channel a cursor text is at its limit


def check_secret(secret: SecretStr) -> None:
    """Raises ValueError for what is another kind of key, for example a public one."""
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret.get_secret_value())
    except jwt.InvalidKeyError:
        raise ValueError("it is a key of another kind, and no secret") from None


def mint_token(
    secret: SecretStr,
    customer: str,
    *,
    audience: str,
    issuer: str | None = None,
    topics: Iterable[str] = (),
    lifetime_seconds: float = 3600,
) -> str:
    """A token as an issuer would sign it: for `orderbell token`, development mode and tests."""
    now = time.time()
    claims: dict[str, Any] = {
        "sub": customer,
        "aud": audience,
        "iat": int(now),
        "exp": int(now + lifetime_seconds),
    }
    if issuer:
        claims["iss"] = issuer
    if topics:
        claims["topics"] = list(topics)
    return jwt.encode(claims, secret.get_secret_value(), algorithm="HS256")
