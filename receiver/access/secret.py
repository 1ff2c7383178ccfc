"""A secret that we share with the issuer of tokens, HS256.

PyJWT judges tokens, but spends most of its time on what does not change: all tokens of an issuer have one
header. Once PyJWT has accepted a token, others with the very same header need only the checks of what
differs: the signature, and whether the payload is correct base64url. A token that does not pass these is left
to PyJWT, whatever the reason.
"""

from __future__ import annotations

import binascii
import hmac
from typing import TYPE_CHECKING

import jwt
from jwt.algorithms import HMACAlgorithm
from jwt.utils import base64url_encode

from receiver.access.claims import verified_payload

if TYPE_CHECKING:
    from pydantic import SecretStr

_MAX_HEADERS = 8  # an issuer has one; some add a key id, which changes with the secret
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_STANDARD = bytes.maketrans(b"-_", b"+/")


class Secret:
    def __init__(self, secret: SecretStr) -> None:
        self._secret = secret.get_secret_value().encode()
        self._key = jwt.PyJWK({"kty": "oct", "k": base64url_encode(self._secret).decode()}, "HS256")
        self._key.Algorithm = _OneSecret(self._secret)
        self._headers: set[bytes] = set()  # encoded, of tokens that PyJWT has accepted

    def payload(self, token: str) -> bytes:
        """The payload of a token that is signed with this secret. Raises `InvalidToken`."""
        text = token.encode(errors="replace")
        signed, _, signature = text.rpartition(b".")
        header, _, encoded = signed.partition(b".")
        if header in self._headers:
            expected = _encode(hmac.digest(self._secret, signed, "sha256"))
            if hmac.compare_digest(signature, expected) and (payload := _decode(encoded)) is not None:
                return payload
        payload = verified_payload(token, self._key, ["HS256"])
        if len(self._headers) < _MAX_HEADERS:
            self._headers.add(header)
        return payload


def _encode(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False).translate(_URL_SAFE).rstrip(b"=")


def _decode(text: bytes) -> bytes | None:
    """None if it is not the one text in base64url, without padding, of these bytes."""
    try:
        data = binascii.a2b_base64(text.translate(_STANDARD) + b"==")
    except binascii.Error:
        return None
    return data if _encode(data) == text else None


class _OneSecret(HMACAlgorithm):
    """HS256 with a secret that stays. With each token, PyJWT checks whether its secret is some other kind of
    key, which takes longer than all the rest of the verification.
    """

    def __init__(self, secret: bytes) -> None:
        super().__init__(HMACAlgorithm.SHA256)
        self._prepared = super().prepare_key(secret)

    def prepare_key(self, key: str | bytes) -> bytes:
        return self._prepared
