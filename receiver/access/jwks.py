"""Tokens signed with a key that their issuer publishes, and those keys."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import jwt

from receiver.access.claims import MAX_TOKEN_BYTES, decode, identity_of
from receiver.access.identity import Identity, InvalidToken, KeysUnavailable

KEYS_SECONDS = 5.0  # for a token's key, those included who ask for theirs before
_JWKS_SECONDS = 300  # how long fetched keys are used before they are fetched again
_ISSUER_SECONDS = 4.0  # for the issuer's answer: below, so that it shows as failed to all who wait
_FAILED_SECONDS = 1.0  # after which an issuer that failed is asked again
_ASYMMETRIC = ["RS256", "ES256", "EdDSA"]


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
        return identity_of(decode(token, key, _ASYMMETRIC, self._audience, self._issuer))

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
