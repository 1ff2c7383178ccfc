"""`/metrics` as its reader asks for it: as text, or as OpenMetrics, which also shows exemplars."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class Exposition(NamedTuple):
    text: bytes
    media_type: str


def expose(registry: CollectorRegistry, accept: str) -> Exposition:
    """`accept` is the request's header; without one it is the text format."""
    encode, media_type = choose_encoder(accept)
    return Exposition(encode(registry), media_type)
