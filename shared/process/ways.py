"""The way of an event, a log line a step: recorded, published, handed over.

An event's trace id decides whether it is logged, so that sender and gateways log the same ones.
ORDERBELL_LOG_EVENTS is their share; at DEBUG (SIGUSR1 sets it in a running process) all are logged. No line
has an event's data.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import msgspec
import structlog

_BEGINNING = 4096  # bytes of an event or of a live message in which the attributes are
_TRACE = re.compile(rb'"traceparent":"00-([0-9a-f]{32})-')
_PLACE = re.compile(rb',"epoch":(\d+),"seq":(\d+)')
_ID, _CHANNEL = (re.compile(rb'"%b":("(?:[^"\\]|\\.)*")' % name) for name in (b"id", b"channel"))
_ALL = 2**32

logger = structlog.get_logger(__name__)
_root = logging.getLogger()


class Ways:
    def __init__(self, share: float = 0.0) -> None:
        self.share = share

    @property
    def share(self) -> float:
        return self._below / _ALL

    @share.setter
    def share(self, share: float) -> None:
        self._below = round(share * _ALL)

    @property
    def noted(self) -> bool:
        """Whether any event's way is logged now; to be asked before work is done for it."""
        return self._below > 0 or _root.isEnabledFor(logging.DEBUG)

    def note(self, step: str, event: bytes, **fields: Any) -> None:
        """One step of an event: its JSON, or a live message."""
        beginning = event[:_BEGINNING]
        trace_id = trace_id_of(beginning)
        sampled = int(trace_id[-8:] or "0", 16) < self._below
        if not sampled and not _root.isEnabledFor(logging.DEBUG):
            return
        line = logger.info if sampled else logger.debug
        place = _PLACE.search(beginning)
        if place is not None:
            fields["place"] = f"{place[1].decode()}.{place[2].decode()}"
        line(
            step,
            event_id=_text(_ID, beginning),
            channel=_text(_CHANNEL, beginning),
            trace_id=trace_id,
            **fields,
        )


def trace_id_of(event: bytes) -> str:
    """Of an event's JSON, or of a live message; empty if it has none."""
    trace = _TRACE.search(event, 0, _BEGINNING)
    return trace[1].decode() if trace else ""


def _text(pattern: re.Pattern[bytes], beginning: bytes) -> str:
    found = pattern.search(beginning)
    try:
        return msgspec.json.decode(found[1], type=str) if found else ""
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


ways = Ways()
