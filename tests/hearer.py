"""Takes what a subscription hears, and keeps it for the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from receiver.feeds.feed import Feed


class Hearer:
    def __init__(self) -> None:
        self.messages: list[tuple[Feed, bytes]] = []
        self.confirmations: list[Feed] = []
        self.changes = 0

    def hear(self, feed: Feed, message: bytes) -> None:
        self.messages.append((feed, message))

    def confirmed(self, feed: Feed) -> None:
        self.confirmations.append(feed)

    def hearing_changed(self) -> None:
        self.changes += 1
