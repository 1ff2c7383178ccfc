"""Whether the names in Redis are our installation's: two that share them would mix their customers' events.

An installation is a database, which holds its id (`sender.generation.mint_installation`). All its senders
keep claiming the same names (same server, database number and prefix) under that id; a claim lasts some
seconds. What another installation's claim means depends on whether that installation is alive:

* The claim is not renewed. Its senders have died, and our database is a new one beside an old Redis: we wait
  for the claim to end, take the names and begin a new epoch.
* The claim is renewed. Two installations were given the same names, and ours came second: nothing is
  published, and gateways pull from us. We take the names only when the other has been away for minutes: its
  short outage must not hand them to a misconfigured neighbour.

A restored database has its old id, and so has a copy: a copy must not share the names either, but cannot be
distinguished from the original.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from sender.generation import installation, mint_installation
from shared.redis.channel_log import AnotherInstallation

if TYPE_CHECKING:
    from sender.database.protocol import Database
    from sender.publishing.pace import Pace
    from shared.redis.channel_log import Claim, LogWriter

logger = structlog.get_logger(__name__)

_SLACK_SECONDS = 0.5  # without a renewal, the measured end of a claim varies by less than this


class Ownership:
    def __init__(self, database: Database, log: LogWriter, pace: Pace) -> None:
        self._database = database
        self._log = log
        self._pace = pace
        self.id = ""
        self._settled = False
        self.inherits = False  # Redis holds the events of another installation, which is gone
        self._held_until = 0.0  # loop time
        self._other: _Other | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def contested(self) -> bool:
        """Another installation has the names."""
        return self._other is not None

    def begin(self) -> None:
        """Bar publishing until the names are ours."""
        self._log.barred = "no sender has claimed these names yet"

    async def identify(self) -> str:
        """The id of our installation."""
        if not self.id:
            known = await self._database.read(installation)
            self.id = known or await self._database.write(mint_installation)
        return self.id

    async def hold(self) -> None:
        """Claim or keep the names. Raises `AnotherInstallation`, and redis-py's errors."""
        now = self._loop.time()
        if now < self._held_until:
            return
        await self.identify()
        take = self._other is None or self._other.is_gone(now, self._pace.succeed_seconds)
        claim = await self._log.claim(self.id, self._pace.claim_seconds, take=take)
        if claim.owner != self.id:
            self._settled = False
            self._note_other(claim, now)
            raise AnotherInstallation(self._log.barred)
        if self._other is not None:
            logger.info(
                "the other installation is gone; the names in redis are ours now", other=self._other.id
            )
        self._other = None
        self._held_until = now + self._pace.hold_seconds
        self.inherits = claim.noted not in ("", self.id)
        if claim.noted == self.id:
            self._log.barred = ""
        elif claim.noted == "" and self._settled:  # Redis was emptied
            await self.settle()

    async def settle(self) -> None:
        """Redis was compared with the database: from now on its content is ours."""
        await self._log.claim(self.id, self._pace.claim_seconds, take=False, settle=True)
        self._settled, self.inherits, self._log.barred = True, False, ""

    async def release(self) -> None:
        """Give the names up, so that another installation need not wait. Raises redis-py's errors."""
        self._held_until = 0.0
        if self.id and self._other is None:
            await self._log.claim(self.id, 0, take=False)

    def _note_other(self, claim: Claim, now: float) -> None:
        if self._other is None or (claim.owner and claim.owner != self._other.id):
            self._other = _Other(claim.owner, now)
            self._log.barred = f"these names in redis are claimed by another installation, {claim.owner}"
        if self._other.see(claim, now):
            logger.error(
                "another installation uses the same redis, database number and prefix; nothing is published:"
                " give one of them another ORDERBELL_KEY_PREFIX or database number",
                other=claim.owner,
                ours=self.id,
            )


class _Other:
    """An installation that holds the names we need."""

    def __init__(self, id: str, now: float) -> None:
        self.id = id
        self._lives = False
        self._ends_at: float | None = None  # as measured at the first look
        self._seen_at = now

    def see(self, claim: Claim, now: float) -> bool:
        """Whether this look is the first to show that it is alive."""
        if not claim.owner:
            return False
        self._seen_at = now
        ends_at = now + claim.left_seconds
        if self._ends_at is None:
            self._ends_at = ends_at
        renewed = ends_at > self._ends_at + _SLACK_SECONDS
        found, self._lives = renewed and not self._lives, self._lives or renewed
        return found

    def is_gone(self, now: float, succeed_seconds: float) -> bool:
        return not self._lives or now - self._seen_at > succeed_seconds
