"""Ready means that customers are served, in whatever way.

A gateway that does not hear Redis pulls events from the sender and still serves; so Redis alone never makes
it unready. These do:

* draining: the signal has come;
* tokens can't be verified: the issuer's keys were never fetched;
* the sender refuses our API key, or what answers at its address is not a sender: the settings are wrong, and
  waiting won't help;
* the sender does not answer, and either never has, or Redis is not heard, or for longer than `Pace.grace`:
  new connections unknown to Redis can't be caught up. Shorter absences are a sender's restart, in which
  Redis serves nearly all.

Reasons are logged whenever they, or their details, change: what is known of a fault at first ("not fetched
yet") is not yet its cause. They are counted, and listed in the body of /readyz. What the sender's answers
mean: after 401 and 403 the key is wrong, after 404 and other 4xx the address; anything else is an absence.
The sender is asked again in any case.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from receiver import metrics
from receiver.sender_line import SenderSilent
from shared.redis.url import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from receiver.sender_line import Asking

_NOTHING = b'{"after":[]}'
_JSON = {"content-type": "application/json"}

logger = structlog.get_logger(__name__)


class Reason(StrEnum):
    DRAINING = "draining"
    STARTING = "starting"
    KEYS = "keys-unavailable"
    REFUSED = "sender-refuses-key"
    NOT_SENDER = "not-a-sender"
    SENDER = "sender-unreachable"


@dataclass(frozen=True)
class Pace:
    """Seconds."""

    check: float = 5.0  # between two questions to the sender
    retry: float = 1.0  # after one that failed
    answer: float = 3.0  # for its answer
    start: float = 3.0  # for Redis to be heard at first; after that we pull
    grace: float = 30.0  # that the sender may be away while Redis is heard
    quiet: float = 3.0  # after our start, in which a sender that starts beside us may be away unlogged


class Readiness:
    def __init__(
        self,
        sender: Asking,
        url: str,
        *,
        hears: Callable[[], bool],
        unable: Callable[[], str | None],
        pace: Pace | None = None,
    ) -> None:
        """`url`: the sender's, for messages. `hears`: whether events come from Redis. `unable`: why no token
        can be verified; None if tokens can be.
        """
        self._sender = sender
        self._url = shown(url)
        self._hears = hears
        self._unable = unable
        self._pace = pace or Pace()
        self._draining = False
        self._started_at = asyncio.get_running_loop().time()
        self._heard = False  # ever
        self._fault: tuple[Reason, str] | None = (Reason.STARTING, "the sender has not been asked yet")
        self._reached = False  # the sender, ever
        self._answered_at = 0.0  # loop time
        self._logged: dict[Reason, str] = {}

    def drain(self) -> None:
        self._draining = True
        self._note()

    @property
    def draining(self) -> bool:
        return self._draining

    async def run(self) -> None:
        """Ask the sender, again and again."""
        while True:
            await self._check()
            self._note()
            await asyncio.sleep(self._pace.retry if self._fault else self._pace.check)

    async def _check(self) -> None:
        url = self._url
        try:
            async with asyncio.timeout(self._pace.answer):
                answer = await self._sender.request("POST", "/history", content=_NOTHING, headers=_JSON)
        except (SenderSilent, TimeoutError) as error:
            why = f"ORDERBELL_SENDER_URL {url}: {str(error) or 'no answer in time'}"
            self._fault = (Reason.SENDER, why)
            return
        if answer.status_code in (401, 403):
            self._fault = (
                Reason.REFUSED,
                f"the sender at {url} refuses the first of ORDERBELL_API_KEYS ({answer.status_code})",
            )
        elif answer.status_code >= 500 or answer.status_code in (408, 429):
            self._fault = (Reason.SENDER, f"the sender at {url} answers {answer.status_code}")
        elif answer.status_code != 200 or not _is_history(answer.content):
            self._fault = (
                Reason.NOT_SENDER,
                f"what answers at ORDERBELL_SENDER_URL {url} is not a sender ({answer.status_code})",
            )
        else:
            self._fault = None
            self._reached = True
            self._answered_at = asyncio.get_running_loop().time()

    @property
    def reasons(self) -> dict[Reason, str]:
        """Why new connections can't be served; empty if they can."""
        reasons: dict[Reason, str] = {}
        now = asyncio.get_running_loop().time()
        hears = self._hears()
        self._heard = self._heard or hears
        if self._draining:
            reasons[Reason.DRAINING] = "this gateway is draining"
        if why := self._unable():
            reasons[Reason.KEYS] = why
        if self._fault is not None:
            reason, why = self._fault
            waits = reason is Reason.SENDER and self._reached and hears
            if not (waits and now - self._answered_at < self._pace.grace):
                reasons[reason] = why
        if not self._heard and now - self._started_at < self._pace.start:
            reasons.setdefault(Reason.STARTING, "redis has not been heard yet")
        return reasons

    def body(self) -> dict[str, Any]:
        """The body of /readyz."""
        reasons = self.reasons
        hears = self._hears()
        return {
            "ready": not reasons,
            "redis": hears,
            "draining": self._draining,
            "serving": "live" if hears else "pulling",
            "reasons": dict(reasons),
        }

    def _note(self) -> None:
        """Log and count what has changed."""
        reasons = self.reasons
        quiet = {Reason.STARTING, *({Reason.SENDER} if self._starts_beside_us() else ())}
        lasting: dict[Reason, str] = {reason: why for reason, why in reasons.items() if reason not in quiet}
        for reason, why in lasting.items():
            if self._logged.get(reason) != why and reason is not Reason.DRAINING:
                logger.warning("not ready", reason=str(reason), detail=why)
        if self._logged and not lasting:
            logger.info("ready again")
        self._logged = lasting
        for known in Reason:
            metrics.not_ready.labels(str(known)).set(known in reasons)

    def _starts_beside_us(self) -> bool:
        age = asyncio.get_running_loop().time() - self._started_at
        return not self._reached and age < self._pace.quiet


def _is_history(answer: bytes) -> bool:
    try:
        body = msgspec.json.decode(answer)
    except (ValueError, RecursionError):
        return False
    return isinstance(body, dict) and "channels" in body
