"""Customers' lists of alerts, as senders and gateways answer them, for the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tests.chaos.ledger import Listed, now

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = 200  # alerts at a time


class _Event(msgspec.Struct):
    subject: str


class _Alert(msgspec.Struct):
    state: str
    event: _Event


class Page(msgspec.Struct):
    alerts: list[_Alert]
    unread: int
    as_of: str
    before: str | None


decode = msgspec.json.Decoder(Page).decode


def listed(channel: str, server: str, bodies: Sequence[bytes], *, final: bool = False) -> Listed:
    """One list, from its pages, the newest first. Count and place are those of the first page."""
    pages = [decode(body) for body in bodies]
    states = {alert.event.subject: alert.state for page in pages for alert in page.alerts}
    first, *_, last = [*pages, pages[-1]]
    as_of = first.as_of.partition("=")[2]
    whole = last.before is None
    return Listed(now(), channel, server, as_of, first.unread, states, whole=whole, final=final)
