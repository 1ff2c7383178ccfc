"""What a token must say, and what follows from it.

The rules are those of RFC 8725: algorithms are fixed by us and never by the token; `exp`, `aud` and `sub` are
required.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jwt

from receiver.access.identity import Identity, InvalidToken
from shared.channels import is_name
from shared.tokens import MAX_TOPICS

MAX_TOKEN_BYTES = 4096
LEEWAY_SECONDS = 30


def decode(token: str, key: Any, algorithms: list[str], audience: str, issuer: str | None) -> dict[str, Any]:
    if len(token) > MAX_TOKEN_BYTES:
        raise InvalidToken("the token is too long")
    required = ["exp", "aud", "sub", *(["iss"] if issuer else [])]
    try:
        return jwt.decode(
            token,
            key,
            algorithms=algorithms,
            audience=audience,
            issuer=issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": required},
        )
    except jwt.ExpiredSignatureError:
        raise InvalidToken("the token has expired") from None
    except jwt.InvalidAudienceError:
        raise InvalidToken("the token is for another audience") from None
    except jwt.InvalidIssuerError:
        raise InvalidToken("the token is from another issuer") from None
    except (jwt.PyJWTError, ValueError):
        raise InvalidToken("the token is not valid") from None


def identity_of(claims: dict[str, Any]) -> Identity:
    customer, topics = claims["sub"], claims.get("topics", [])
    if not isinstance(customer, str) or not is_name(customer):
        raise InvalidToken("the token's sub is no customer id")
    if not isinstance(topics, list) or len(topics) > MAX_TOPICS:
        raise InvalidToken(f"the token's topics are no list of at most {MAX_TOPICS} names")
    if not all(isinstance(topic, str) and is_name(topic) for topic in topics):
        raise InvalidToken("one of the token's topics is no name")
    return Identity(customer, _one_for_all(tuple(sorted(set(topics)))), float(claims["exp"]) + LEEWAY_SECONDS)


@lru_cache(maxsize=1_000)
def _one_for_all(topics: tuple[str, ...]) -> tuple[str, ...]:
    """Thousands of tokens name the same few; they share one object."""
    return topics
