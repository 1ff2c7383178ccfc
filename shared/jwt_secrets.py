"""Secrets that customers' tokens are signed with by HS256."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import SecretStr

MIN_BYTES = 32  # RFC 7518 3.2: a key for HS256 has at least 256 bits


def check_jwt_secret(secret: SecretStr) -> None:
    """Raises `ValueError` if it is too short, or another kind of key, such as a public one."""
    if len(secret.get_secret_value().encode()) < MIN_BYTES:
        raise ValueError(f"needs at least {MIN_BYTES} bytes; `openssl rand -hex 32` makes one")
    import jwt  # here, because the sender does not need it
    from jwt.algorithms import HMACAlgorithm

    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret.get_secret_value())
        is_another = "-----BEGIN" in secret.get_secret_value()  # PyJWT recognises no half of one
    except jwt.InvalidKeyError:
        is_another = True
    if is_another:
        raise ValueError("a key of another kind (a public key?), not a secret")
