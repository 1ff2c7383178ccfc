"""Who is asking: API keys for services that call the sender, JWTs for customers that connect to a gateway.

The rules for JWTs are those of RFC 8725: algorithms fixed by us and never by the token, `exp`, `aud` and
`sub` required, keys only from our settings.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import jwt
from jwt.algorithms import HMACAlgorithm
from jwt.utils import base64url_encode

from shared.channels import Channel, customer_channel, is_name, topic_channel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import SecretStr

    from shared.settings import ReceiverSettings

MAX_TOKEN_BYTES = 4096
MAX_TOPICS = 99  # of one token: with the customer's own channel a cursor text is at its limit
LEEWAY_SECONDS = 30
KEYS_SECONDS = 5.0  # for a token's key, those included who ask for theirs before
_JWKS_SECONDS = 300  # how long fetched keys are used before they are fetched again
_ISSUER_SECONDS = 4.0  # for the issuer's answer: below, so that it shows as failed to all who wait
_FAILED_SECONDS = 1.0  # after which an issuer that failed is asked again
_ASYMMETRIC = ["RS256", "ES256", "EdDSA"]


class InvalidToken(Exception):
    """A token that proves nothing; the message tells its owner why and quotes nothing of it."""


class KeysUnavailable(Exception):
    """The issuer's keys could not be fetched; the token may be good."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A customer, the topics they may read, and until when we know this (seconds since 1970)."""

    customer: str
    topics: tuple[str, ...]  # in order, each once; kept for each connection, so it should be small
    expires_at: float

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Their own channel first, then the topics in order."""
        return (customer_channel(self.customer), *map(topic_channel, self.topics))


class ApiKeys:
    """The keys that open the sender's API."""

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        self._keys = [key.get_secret_value().encode() for key in keys]

    def accept(self, key: str) -> bool:
        """Takes as long for a wrong key as for a right one."""
        presented = key.encode(errors="replace")
        return any([hmac.compare_digest(presented, key) for key in self._keys])  # noqa: C419 - all are compared


class Verifier(Protocol):
    async def verify(self, token: str) -> Identity:
        """Raises `InvalidToken` or `KeysUnavailable`."""
        ...


class SecretVerifier:
    """Tokens signed with a secret that we share with their issuer: HS256."""

    def __init__(self, secret: SecretStr, audience: str, issuer: str | None) -> None:
        text = secret.get_secret_value().encode()
        self._key = jwt.PyJWK({"kty": "oct", "k": base64url_encode(text).decode()}, "HS256")
        self._key.Algorithm = _OneSecret(text)
        self._audience = audience
        self._issuer = issuer

    async def verify(self, token: str) -> Identity:
        return _identity(_decode(token, self._key, ["HS256"], self._audience, self._issuer))


class _OneSecret(HMACAlgorithm):
    """HS256 with a secret that stays. PyJWT looks with each token whether its secret is some other kind of
    key, which takes longer than all the rest of the verification.
    """

    def __init__(self, secret: bytes) -> None:
        super().__init__(HMACAlgorithm.SHA256)
        self._prepared = super().prepare_key(secret)

    def prepare_key(self, key: str | bytes) -> bytes:
        return self._prepared


def check_secret(secret: SecretStr) -> None:
    """Raises ValueError for what is another kind of key, for example a public one."""
    try:
        _OneSecret(secret.get_secret_value().encode())
    except jwt.InvalidKeyError:
        raise ValueError("it is a key of another kind, and no secret") from None


class _Issuer(jwt.PyJWKClient):
    """Where the keys come from. One that has failed fails for a while without being asked: or all who wait
    for it would wait for its time-out, one after the other.
    """

    _failed_at = float("-inf")

    def fetch_data(self) -> Any:
        if time.monotonic() - self._failed_at < _FAILED_SECONDS:
            raise jwt.PyJWKClientConnectionError("it failed a moment ago")
        try:
            return super().fetch_data()
        except Exception:
            self._failed_at = time.monotonic()
            raise


class JwksVerifier:
    """Tokens signed with a key that their issuer publishes: RS256, ES256, EdDSA."""

    def __init__(self, url: str, audience: str, issuer: str | None) -> None:
        self._client = _Issuer(url, lifespan=_JWKS_SECONDS, timeout=_ISSUER_SECONDS)
        self._audience = audience
        self._issuer = issuer
        self._fetching = asyncio.Lock()

    async def verify(self, token: str) -> Identity:
        if len(token) > MAX_TOKEN_BYTES:
            raise InvalidToken("the token is too long")
        # PyJWKClient blocks while it fetches; one at a time, or a crowd would fetch the same keys.
        try:
            async with asyncio.timeout(KEYS_SECONDS), self._fetching:
                key = await asyncio.to_thread(self._key_of, token)
        except TimeoutError:
            raise KeysUnavailable("the issuer's keys cannot be fetched in time") from None
        return _identity(_decode(token, key, _ASYMMETRIC, self._audience, self._issuer))

    def _key_of(self, token: str) -> jwt.PyJWK:
        try:
            kid = jwt.get_unverified_header(token).get("kid", "")
        except jwt.PyJWTError as error:
            raise InvalidToken("the token is not valid") from error
        try:
            self._client.get_signing_keys()
        except (jwt.PyJWTError, ValueError) as error:  # ValueError: it answered, but no JSON
            raise KeysUnavailable("the issuer's keys cannot be fetched") from error
        try:
            return self._client.get_signing_key(kid)
        except (jwt.PyJWKClientConnectionError, ValueError) as error:
            raise KeysUnavailable("the issuer's keys cannot be fetched") from error
        except jwt.PyJWTError as error:
            raise InvalidToken("the token's key is not one of its issuer's") from error


def create_verifier(settings: ReceiverSettings) -> Verifier:
    if settings.jwt_secret is not None:
        return SecretVerifier(settings.jwt_secret, settings.jwt_audience, settings.jwt_issuer)
    return JwksVerifier(str(settings.jwks_url), settings.jwt_audience, settings.jwt_issuer)


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


def _decode(token: str, key: Any, algorithms: list[str], audience: str, issuer: str | None) -> dict[str, Any]:
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


def _identity(claims: dict[str, Any]) -> Identity:
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
