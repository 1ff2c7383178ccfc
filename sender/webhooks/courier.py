"""The courier: sends deliveries to the shop's server, and tries again what failed.

2xx is delivered, anything else a failure. Which of the receiver's answers mean what:

* Each delivery that failed is tried again later and later, with jitter, and given up after some days.
* While the receiver as a whole fails, one delivery at a time is tried, and rarely: the first success opens
  the way for the others. So a receiver that is away costs one attempt a minute, however much waits.
* 429 and 503 may say when to come again (`Retry-After`); nothing is sent before.
* 410 says that the address is no longer in use: that delivery is given up, and nothing is sent for an hour.
* Redirects are failures. The URL is the operator's word on where customers' ids may go.

Everything here runs beside requests and shares only the database with them, in short transactions.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

import structlog

from sender import metrics
from sender.database.errors import DatabaseError
from sender.webhooks import deliveries
from sender.webhooks.deliveries import Outcome, Result
from sender.webhooks.message import MEDIA_TYPE, Kind
from sender.webhooks.signature import signed_headers
from shared import __version__
from shared.outbound import UnusableProxy, proxy_for
from shared.reasons import reason_of
from shared.redis.url import shown
from shared.times import format_time
from shared.webhook_secrets import parse_webhook_secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import httpx2

    from sender.database.protocol import Database
    from sender.webhooks.deliveries import Taken
    from shared.settings import SenderSettings

logger = structlog.get_logger(__name__)

_LATER = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)  # whose Retry-After counts
_MAX_ANSWER_BYTES = 16 * 1024  # read so that the connection can be used again; beyond, it is closed
_GIVEN_UP_AT_ONCE = 500
_IDLE_SECONDS = 2.0


@dataclass(frozen=True)
class Pace:
    """Seconds, unless it says otherwise."""

    poll: float = 1.0  # between looks for what other senders recorded, or what is due again
    answer: float = 15.0  # for the receiver's whole answer
    at_once: int = 8  # attempts
    again: tuple[float, ...] = (
        5,
        30,
        300,
        1_800,
        7_200,
        18_000,
        36_000,
    )  # after each failure; the last stays
    jitter: float = 0.2  # of that, more or less
    give_up: float = 3 * 86_400  # after the delivery was recorded
    pause: float = 1.0  # of everything, after a failure; doubled after each further one
    max_pause: float = 60.0
    gone: float = 3_600.0  # of everything, after 410
    max_retry_after: float = 86_400.0  # of what a receiver asks for
    lease_slack: float = 15.0  # beyond the time for an answer, until another sender takes a delivery over


USUAL = Pace()


@dataclass(frozen=True)
class Target:
    """The shop's server, and what it wants to know."""

    url: str
    keys: tuple[bytes, ...]  # each signs every message
    kinds: frozenset[Kind]
    not_shown_seconds: float

    @classmethod
    def of(cls, settings: SenderSettings) -> Target | None:
        """None where no webhook is set up."""
        if settings.webhook_url is None:
            return None
        return cls(
            str(settings.webhook_url),
            tuple(parse_webhook_secret(one.get_secret_value()) for one in settings.webhook_secrets),
            frozenset(map(Kind, settings.webhook_events)),
            settings.webhook_not_shown_seconds,
        )


class Answer(NamedTuple):
    """What an attempt brought. Without a status there was no answer."""

    status: int | None
    why: str = ""
    retry_after: float = 0.0

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def result(self) -> str:
        if self.delivered:
            return "delivered"
        return "unreachable" if self.status is None else "refused"


class Courier:
    """Belongs to the loop it is made in."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        target: Target,
        pace: Pace = USUAL,
    ) -> None:
        self._database = database
        self._clock = clock
        self._target = target
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._failures = 0  # one after the other
        self._failed_at = 0.0  # loop time
        self._not_before = 0.0  # loop time

    def wake(self) -> None:
        """Something was recorded."""
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with self._client() as client, asyncio.TaskGroup() as tasks:
            while True:
                self._changed.clear()
                try:
                    taken = await self._take()
                except DatabaseError as error:  # the relay meets the same error, and logs it
                    logger.debug("webhooks cannot be read now", reason=str(error))
                    taken = []
                for one in taken:
                    task = tasks.create_task(self._deliver(client, one))
                    self._running.add(task)
                    task.add_done_callback(self._end)
                if not taken:
                    await self._wait()

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx2.AsyncClient]:
        import httpx2  # a sender without webhooks needs none of it

        async with httpx2.AsyncClient(
            headers={
                "user-agent": f"orderbell/{__version__}",
                "content-type": MEDIA_TYPE,
                "accept-encoding": "identity",
            },
            timeout=self._pace.answer,
            # Shorter than common servers keep an idle connection, or it would end under a request.
            limits=httpx2.Limits(max_connections=self._pace.at_once, keepalive_expiry=_IDLE_SECONDS),
            follow_redirects=False,
            proxy=self._proxy(),
            trust_env=False,
            verify=httpx2.create_ssl_context(),  # knows SSL_CERT_FILE, as the rest of the system does
        ) as client:
            yield client

    def _proxy(self) -> str | None:
        try:
            return proxy_for(self._target.url)
        except UnusableProxy as error:
            logger.warning("webhooks are sent without a proxy", reason=str(error))
            return None

    def _end(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._changed.set()

    async def _wait(self) -> None:
        """Until something was recorded or has ended, or it is time to look again."""
        seconds = max(self._pace.poll, self._not_before - self._loop.time())
        try:
            async with asyncio.timeout(seconds if not self._running else self._pace.poll):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _take(self) -> list[Taken]:
        """What is to be attempted now, as many as there is room for."""
        room = (1 if self._failures else self._pace.at_once) - len(self._running)
        if room <= 0 or self._loop.time() < self._not_before:
            return []
        now = self._clock()
        if not await self._database.read(partial(deliveries.is_any_due, now=now)):
            return []
        if self._failures:
            await self._give_up_old(now)
        work = partial(
            deliveries.take,
            now=now,
            until=now + timedelta(seconds=self._pace.answer + self._pace.lease_slack),
            limit=room,
            not_shown_seconds=self._target.not_shown_seconds,
        )
        while not (batch := await self._database.write(work)).taken and batch.looked:
            pass  # none of those was to be sent any more
        return batch.taken

    async def _give_up_old(self, now: datetime) -> None:
        """What has been due for days, without its turn."""
        before = now - timedelta(seconds=self._pace.give_up)
        work = partial(deliveries.give_up_old, before=before, now=now, limit=_GIVEN_UP_AT_ONCE)
        if count := await self._database.write(work):
            metrics.webhooks_given_up.inc(count)
            logger.error("webhooks were given up; the receiver was away for too long", count=count)

    async def _deliver(self, client: httpx2.AsyncClient, taken: Taken) -> None:
        """One attempt. Raises nothing: the next delivery may fare better."""
        began = self._loop.time()
        answer = await self._attempt(client, taken)
        metrics.webhook_attempts.labels(taken.key.kind.value, answer.result).inc()
        metrics.webhook_seconds.observe(self._loop.time() - began)
        self._note_receiver(answer, began)
        result = self._result(taken, answer)
        if result.outcome is Outcome.GIVEN_UP:
            metrics.webhooks_given_up.inc()
            logger.error(
                "a webhook was given up",
                type=taken.key.kind.value,
                id=taken.message_id,
                attempts=taken.attempt,
                reason=answer.why,
            )
        try:
            await self._database.write_together(deliveries.note_results, result)
        except DatabaseError as error:  # when its lease ends, it is delivered again
            logger.warning("the result of a webhook cannot be recorded", reason=str(error))

    async def _attempt(self, client: httpx2.AsyncClient, taken: Taken) -> Answer:
        import httpx2

        # By the clock of now, also at a repetition: receivers refuse what was signed minutes ago.
        timestamp = int(self._clock().timestamp())
        headers = signed_headers(self._target.keys, taken.message_id, timestamp, taken.body)
        answer = None  # its head decides; what becomes of its body does not matter
        try:
            async with (
                asyncio.timeout(self._pace.answer),
                client.stream("POST", self._target.url, content=taken.body, headers=headers) as response,
            ):
                answer = _answer(response, self._clock(), self._pace.max_retry_after)
                await _read_some(response)
        except (TimeoutError, httpx2.TimeoutException):
            return answer or Answer(None, f"no answer within {self._pace.answer:g} s")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            return answer or Answer(None, reason_of(error))
        except Exception:  # of one answer; the next may differ
            logger.exception("a webhook's answer could not be read", id=taken.message_id)
            return answer or Answer(None, "its answer could not be read")
        return answer

    def _note_receiver(self, answer: Answer, began: float) -> None:
        now = self._loop.time()
        if answer.delivered:
            if self._failures:
                logger.info("webhooks are delivered again", url=shown(self._target.url))
            self._failures, self._not_before = 0, 0.0
            metrics.webhook_failing.set(0)
            return
        metrics.webhook_failing.set(1)
        pause = min(self._pace.pause * 2.0 ** min(self._failures, 30), self._pace.max_pause)
        if answer.status == HTTPStatus.GONE:
            pause = self._pace.gone
        if began >= self._failed_at:  # attempts that failed side by side count once
            if not self._failures or answer.status == HTTPStatus.GONE:
                logger.warning("a webhook was not delivered", url=shown(self._target.url), reason=answer.why)
            self._failures += 1
            self._failed_at = now
        self._not_before = max(self._not_before, now + pause, now + min(answer.retry_after, self._pace.gone))

    def _result(self, taken: Taken, answer: Answer) -> Result:
        now = self._clock()
        if answer.delivered:
            return Result(taken.key, taken.attempt, format_time(now), Outcome.DELIVERED)
        wait = self._pace.again[min(taken.attempt, len(self._pace.again)) - 1]
        wait *= random.uniform(1 - self._pace.jitter, 1 + self._pace.jitter)
        due = now + timedelta(seconds=max(wait, answer.retry_after))
        too_late = due > datetime.fromisoformat(taken.noted_at) + timedelta(seconds=self._pace.give_up)
        if answer.status == HTTPStatus.GONE or too_late:
            return Result(taken.key, taken.attempt, format_time(now), Outcome.GIVEN_UP, detail=answer.why)
        return Result(taken.key, taken.attempt, format_time(now), None, format_time(due), answer.why)


async def _read_some(response: httpx2.Response) -> None:
    read = 0
    async for piece in response.aiter_raw():
        read += len(piece)
        if read > _MAX_ANSWER_BYTES:
            return


def _answer(response: httpx2.Response, now: datetime, most: float) -> Answer:
    status = response.status_code
    if 200 <= status < 300:
        return Answer(status)
    later = _seconds(response.headers.get("retry-after", ""), now) if status in _LATER else 0.0
    why = (
        "it answers 410: the address is no longer in use"
        if status == HTTPStatus.GONE
        else f"it answers {status}"
    )
    if 300 <= status < 400:
        why += ", a redirect, which is not followed"
    return Answer(status, why, min(later, most))


def _seconds(retry_after: str, now: datetime) -> float:
    """RFC 9110 10.2.3: seconds or a date; 0 for anything else."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())
