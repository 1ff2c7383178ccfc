"""Which of our services answers at an address, because people often give the other one's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx2

if TYPE_CHECKING:
    import ssl

SECONDS = 5.0
GATEWAY_THERE = "{} is a gateway; --sender and ORDERBELL_SENDER_URL take the sender's address"
SENDER_THERE = "{} is a sender; --gateway takes a gateway's address"


def service_of(readiness: Any) -> str | None:
    """By the body of its /readyz."""
    if not isinstance(readiness, dict) or "ready" not in readiness:
        return None
    if "relay" in readiness:
        return "sender"
    return "gateway" if "serving" in readiness else None


def service_at(url: str, tls: ssl.SSLContext | bool = True) -> str | None:
    """None if neither can be recognised."""
    try:
        with httpx2.Client(trust_env=False, timeout=SECONDS, verify=tls) as client:
            return service_of(json.loads(client.get(f"{url.rstrip('/')}/readyz").content))
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        return None
