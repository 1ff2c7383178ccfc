"""Which customer a token proves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import jwt
from jwt.algorithms import HMACAlgorithm
from jwt.utils import base64url_encode

from receiver.access.claims import decode, identity_of
from receiver.access.jwks import JwksVerifier

if TYPE_CHECKING:
    from pydantic import SecretStr

    from receiver.access.identity import Identity
    from shared.settings import ReceiverSettings


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
        return identity_of(decode(token, self._key, ["HS256"], self._audience, self._issuer))


class _OneSecret(HMACAlgorithm):
    """HS256 with a secret that stays. PyJWT looks with each token whether its secret is some other kind of
    key, which takes longer than all the rest of the verification.
    """

    def __init__(self, secret: bytes) -> None:
        super().__init__(HMACAlgorithm.SHA256)
        self._prepared = super().prepare_key(secret)

    def prepare_key(self, key: str | bytes) -> bytes:
        return self._prepared


def create_verifier(settings: ReceiverSettings) -> Verifier:
    if settings.jwt_secret is not None:
        return SecretVerifier(settings.jwt_secret, settings.jwt_audience, settings.jwt_issuer)
    return JwksVerifier(str(settings.jwks_url), settings.jwt_audience, settings.jwt_issuer)
