"""Digests: short enough for an index, long enough to make collisions infeasible."""

from __future__ import annotations

import hashlib


def digest(*parts: bytes) -> str:
    framed = b""
    for part in parts:
        framed += b"%d:%b" % (len(part), part)
    return hashlib.blake2b(framed, digest_size=16).hexdigest()


def identity_of(source: str, event_id: str) -> str:
    """The identity of an event, the same for every caller that posts it."""
    return digest(source.encode(), event_id.encode())
