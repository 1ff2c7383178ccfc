"""How late the event loop runs what is due: the first sign that a process has no processor time left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Histogram

EVERY_SECONDS = 1.0


class LoopLag:
    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + EVERY_SECONDS
            await asyncio.sleep(EVERY_SECONDS)
            self._histogram.observe(max(0.0, loop.time() - due))
