"""Secrets that webhooks are signed with, in the form of Standard Webhooks: `whsec_` and base64.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii

PREFIX = "whsec_"
_MIN_BYTES, _MAX_BYTES = 24, 64
_HOW = "`echo whsec_$(openssl rand -base64 32)` makes one"


def parse_webhook_secret(text: str) -> bytes:
    """The key. Raises `ValueError`; the message quotes nothing of the secret."""
    if not text.startswith(PREFIX):
        raise ValueError(f"a secret begins with {PREFIX}; {_HOW}")
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"what follows {PREFIX} is not base64; {_HOW}") from None
    if not _MIN_BYTES <= len(key) <= _MAX_BYTES:
        raise ValueError(f"a secret has {_MIN_BYTES} to {_MAX_BYTES} bytes; {_HOW}")
    return key
