"""What a token must claim, and what follows from it.

The rules are those of RFC 8725: nothing in the token chooses how it is verified; `exp`, an audience
and a customer are required, and which claims hold them is a setting, since issuers differ:

* most put the audience into `aud`, a text or a list; access tokens of Cognito, Clerk and many Keycloaks have
  no `aud` and name the client in `client_id` or `azp`;
* most put the customer into `sub`; Okta's access tokens have a login there and the id in `uid`;
* custom claims are named `https://shop.example/x` (Auth0), `custom:x` (Cognito), or lie within others:
  `realm_access.roles` (Keycloak).

A fault that another token of the same issuer would have, too, is a `ForbiddenToken`; one that passes with
time, or with a new token, is an `InvalidToken`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jwt
import msgspec
from jwt import api_jws

from receiver.access.identity import ForbiddenToken, Identity, InvalidToken
from shared.channels import is_name
from shared.tokens import MAX_TOPICS, STANDARD, ClaimNames, find_claim

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.settings import ReceiverSettings

MAX_TOKEN_BYTES = 4096
LEEWAY_SECONDS = 30
_MAX_TIME = 253_402_300_800  # the year 10000; also rejects milliseconds given as seconds

_decode_claims = msgspec.json.Decoder(dict[str, Any]).decode


def check_length(token: str) -> None:
    """Raises `ForbiddenToken`."""
    if len(token) > MAX_TOKEN_BYTES:
        raise ForbiddenToken(f"the token is too long: more than {MAX_TOKEN_BYTES} bytes")


def header_of(token: str) -> dict[str, Any]:
    """The token's header, unverified. Raises `InvalidToken`."""
    try:
        return jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError):
        raise InvalidToken("the token is not valid") from None


def verified_payload(token: str, key: Any, algorithms: Sequence[str]) -> bytes:
    """The payload, if it is signed with `key` and one of the algorithms. Raises `InvalidToken`."""
    try:
        payload: bytes = api_jws.decode(token, key, algorithms=algorithms)
    except jwt.InvalidAlgorithmError:
        raise ForbiddenToken(f"the token is not signed with {' or '.join(algorithms)}") from None
    except (jwt.PyJWTError, ValueError):
        raise InvalidToken("the token is not valid") from None
    return payload


@dataclass(frozen=True, slots=True)
class Rules:
    """Which claims to read, and what they must contain."""

    audiences: frozenset[str] = frozenset({"orderbell"})
    issuer: str | None = None
    names: ClaimNames = STANDARD
    max_topics: int = MAX_TOPICS
    type: str | None = None

    @staticmethod
    def of(settings: ReceiverSettings) -> Rules:
        return Rules(
            frozenset(settings.jwt_audiences),
            settings.jwt_issuer,
            ClaimNames.of(settings),
            settings.max_topics,
            settings.jwt_type,
        )

    def identity(self, payload: bytes) -> Identity:
        """The identity that a verified payload names. Raises `InvalidToken`, also as `ForbiddenToken`."""
        try:
            claims = _decode_claims(payload)
        except (ValueError, RecursionError):  # of the decoder, of UTF-8
            raise ForbiddenToken(
                "the token's claims are not a JSON object, or a number is out of range"
            ) from None
        self._check_issuer(claims)
        self._check_audience(claims)
        expires_at, issued_at = _check_times(claims)
        jti = claims.get("jti")
        if jti is not None and not isinstance(jti, str):
            raise ForbiddenToken("the token's jti is not text")
        return Identity(self._customer(claims), self._topics(claims), expires_at, jti, issued_at)

    def check_type(self, token: str) -> None:
        """RFC 8725 3.11: an issuer's tokens for other purposes have another type. The token is verified.

        Raises `ForbiddenToken`.
        """
        if self.type is not None and _media_type(given := header_of(token).get("typ")) != _media_type(
            self.type
        ):
            detail = f"its typ is {_shown(given)}, ORDERBELL_JWT_TYPE is {self.type!r}"
            raise ForbiddenToken("the token is of another type", detail)

    def _check_issuer(self, claims: dict[str, Any]) -> None:
        if self.issuer is not None and claims.get("iss") != self.issuer:
            detail = f"its iss is {_shown(claims.get('iss'))}, ORDERBELL_JWT_ISSUER is {self.issuer!r}"
            raise ForbiddenToken("the token is from another issuer", detail)

    def _check_audience(self, claims: dict[str, Any]) -> None:
        name = self.names.audience
        audience = find_claim(claims, name)
        if audience is None:
            others = {other: claims[other] for other in ("aud", "azp", "client_id") if other in claims}
            detail = f"it has {_shown(others)}; ORDERBELL_JWT_AUDIENCE_CLAIM names the claim that counts"
            raise ForbiddenToken(f"the token has no {name}", detail)
        named = audience if isinstance(audience, list) else [audience]
        if not any(isinstance(one, str) and one in self.audiences for one in named):
            expected = ",".join(sorted(self.audiences))
            detail = f"its {name} is {_shown(audience)}, ORDERBELL_JWT_AUDIENCE is {expected!r}"
            raise ForbiddenToken("the token is for another audience", detail)

    def _customer(self, claims: dict[str, Any]) -> str:
        customer = find_claim(claims, self.names.customer)
        if customer is None:
            detail = (
                f"it has {_shown(sorted(claims))}; ORDERBELL_JWT_CUSTOMER_CLAIM names the claim that counts"
            )
            raise ForbiddenToken(f"the token has no {self.names.customer}", detail)
        if not isinstance(customer, str) or not is_name(customer):
            raise ForbiddenToken(f"the token's {self.names.customer} is not a customer id")
        return customer

    def _topics(self, claims: dict[str, Any]) -> tuple[str, ...]:
        topics = find_claim(claims, self.names.topics)
        if topics is None:
            return ()
        if not isinstance(topics, list) or len(topics) > self.max_topics:
            raise ForbiddenToken(
                f"the token's {self.names.topics} is not a list of at most {self.max_topics} topics"
            )
        if not all(isinstance(topic, str) and is_name(topic) for topic in topics):
            raise ForbiddenToken(f"one of the token's {self.names.topics} is not a topic's name")
        return _one_for_all(tuple(sorted(set(topics))))


def _media_type(text: object) -> str:
    """RFC 7515 4.1.9: names are compared without case, and may leave `application/` out."""
    return text.lower().removeprefix("application/") if isinstance(text, str) else ""


def _check_times(claims: dict[str, Any]) -> tuple[float, float | None]:
    """Until when the token is valid, leeway included, and when it was issued."""
    now = time.time()
    expires_at, issued_at = _time(claims, "exp"), _time(claims, "iat")
    if expires_at is None:
        raise ForbiddenToken("the token has no exp")
    if expires_at + LEEWAY_SECONDS <= now:
        raise ExpiredToken(now - expires_at)
    for begins_at in (issued_at, _time(claims, "nbf")):
        if begins_at is not None and begins_at - LEEWAY_SECONDS > now:
            raise FutureToken(begins_at - now)
    return expires_at + LEEWAY_SECONDS, issued_at


class ExpiredToken(InvalidToken):
    """An expired token; or our clock is ahead."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the token expired {seconds:.0f} s ago")
        self.seconds = seconds


class FutureToken(InvalidToken):
    """A token that is not valid yet: its issuer's clock, or ours, is wrong."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the token is from the future, by {seconds:.0f} s")
        self.seconds = seconds


def _time(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    # Compared before it becomes a float: JSON's numbers have no limit.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MAX_TIME:
        raise ForbiddenToken(f"the token's {name} is not a time in seconds")
    return float(value)


def _shown(value: object) -> str:
    """A claim for the log: short, and on one line. It is signed, so it came from the issuer."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


@lru_cache(maxsize=1_000)
def _one_for_all(topics: tuple[str, ...]) -> tuple[str, ...]:
    """Thousands of tokens list the same few topics; they share one tuple."""
    return topics
