"""What browsers have shown, passed on to the sender.

The sender writes it to the database and then notifies the customer's other devices, this gateway's among
them. Reports of one moment travel together, and only the highest of each channel counts, so repeating
or losing one to a crash costs at most a repeated pop-up on a device that had shown nothing yet.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from receiver import metrics
from receiver.feeds.history import HistoryUnavailable
from shared.cursors import Cursor, Place

if TYPE_CHECKING:
    from receiver.feeds.history import History
    from shared.channels import Channel

_RETRY_SECONDS = 1.0
_CURSORS_PER_REPORT = 500

logger = structlog.get_logger(__name__)


class SeenReports:
    def __init__(self, history: History) -> None:
        self._history = history
        self._waiting: dict[Channel, Place] = {}
        self._reported = asyncio.Event()

    def report(self, channel: Channel, place: Place) -> None:
        waiting = self._waiting.get(channel)
        if waiting is None or place > waiting:
            self._waiting[channel] = place
            self._reported.set()

    async def run(self) -> None:
        while True:
            await self._reported.wait()
            self._reported.clear()
            while self._waiting:
                await self._send_some()

    async def _send_some(self) -> None:
        cursors = [Cursor(*item) for item in list(self._waiting.items())[:_CURSORS_PER_REPORT]]
        for cursor in cursors:
            del self._waiting[cursor.channel]
        try:
            await self._history.report_seen(cursors)
        except HistoryUnavailable as error:
            logger.debug("seen reports could not be passed on yet", reason=str(error))
            for cursor in cursors:
                self.report(*cursor)
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            metrics.seen_reports.inc(len(cursors))
