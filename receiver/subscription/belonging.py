"""Whether the Redis that we hear belongs to our own installation.

Two installations that were given the same server, database number and prefix would show one shop's events to
the other's customers. Senders keep each other from publishing (sender/publishing/ownership.py) and note in
Redis whose events it holds; a gateway compares that with the id of its own sender's database, before it
subscribes and with each probe. While they differ, Redis is not heard, and events are pulled from the sender.

A gateway that has never reached a sender can't know, and listens anyway: a sender that is away when a gateway
starts is common, two such installations are not.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from shared.redis.channel_log import AnotherInstallation

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.redis.channel_log import LogReader

_ASK_SECONDS = 1.0


class KnowsInstallation(Protocol):
    """The sender, as a gateway knows it."""

    installation: str  # empty until it is known

    async def ask_installation(self) -> None:
        """Look it up, if the sender can be reached."""


class Belonging:
    """`learn_epoch` is called before anything is heard: what Redis holds of older epochs is outdated."""

    def __init__(self, log: LogReader, sender: KnowsInstallation, learn_epoch: Callable[[int], None]) -> None:
        self._log = log
        self._sender = sender
        self._learn_epoch = learn_epoch

    async def check(self) -> None:
        """Raises `AnotherInstallation`; redis-py's errors and `TimeoutError` if Redis can't be asked."""
        theirs, epoch = await self._log.owner()
        if theirs and not self._sender.installation:
            try:
                async with asyncio.timeout(_ASK_SECONDS):
                    await self._sender.ask_installation()
            except TimeoutError:
                pass  # it is asked again with the next probe
        ours = self._sender.installation
        if theirs and ours and theirs != ours:
            raise AnotherInstallation(
                f"it holds the events of another installation ({theirs}), not those of our sender ({ours}):"
                " same database number, same ORDERBELL_KEY_PREFIX"
            )
        self._learn_epoch(epoch)
