"""What browsers have shown, passed on to the sender.

The sender writes it to the database and then notifies the customer's other devices, this gateway's among
them. Reports of one moment travel together, merged as sets; repeating one is harmless, and losing one to a
crash costs at most a repeated pop-up on a device that had shown nothing yet.

A refused report is tried once more without what is beyond the cursors, because an older sender does not know
that form, and then dropped, so that it holds up no other report.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from receiver import metrics
from receiver.feeds.history import HistoryRefused, HistoryUnavailable
from shared.extents import Extent, Seen

if TYPE_CHECKING:
    from receiver.feeds.history import History
    from shared.channels import Channel

_RETRY_SECONDS = 1.0
_CURSORS_PER_REPORT = 500

logger = structlog.get_logger(__name__)


class SeenReports:
    def __init__(self, history: History) -> None:
        self._history = history
        self._waiting: dict[Channel, Extent] = {}
        self._reported = asyncio.Event()

    def report(self, channel: Channel, extent: Extent) -> None:
        waiting = self._waiting.get(channel)
        self._waiting[channel] = extent.union(waiting) if waiting is not None else extent
        self._reported.set()

    async def run(self) -> None:
        while True:
            await self._reported.wait()
            self._reported.clear()
            while self._waiting:
                await self._send_some()

    async def _send_some(self) -> None:
        seen = [Seen(*item) for item in list(self._waiting.items())[:_CURSORS_PER_REPORT]]
        for one in seen:
            del self._waiting[one.channel]
        try:
            await self._pass_on(seen)
        except HistoryUnavailable as error:
            logger.debug("seen reports could not be passed on yet", reason=str(error))
            for one in seen:
                self.report(*one)
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            metrics.seen_reports.inc(len(seen))

    async def _pass_on(self, seen: list[Seen]) -> None:
        """Raises `HistoryUnavailable`."""
        try:
            await self._history.report_seen(seen)
        except HistoryRefused as refusal:
            if not any(one.extent.beyond for one in seen):
                logger.warning("the sender refuses seen reports; they are dropped", reason=str(refusal))
                return
            await self._pass_on([Seen(channel, Extent(extent.place)) for channel, extent in seen])
