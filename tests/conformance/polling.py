"""Long polling and polling, by a client that always asks again, as a browser's does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from typing import TYPE_CHECKING, Any

import httpx2

from receiver.connections.connection import End
from tests.conformance.client import Client, Driver, Ended, end_of
from tests.https import was_cut

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.processes import ReceiverProcess


class PollingClient(Client):
    """Every answer's notices come before its events."""

    def __init__(
        self, http: httpx2.AsyncClient, wait: int, pause_seconds: float, after: str, *, buffered: bool
    ) -> None:
        super().__init__()
        self._http = http
        self._wait = wait
        self._pause_seconds = pause_seconds  # between two plain polls
        self._session = uuid.uuid4().hex
        self._after = after
        self._end: End | None = None
        # The answers fetched; a client that does not read has one, and asks for no other.
        self._answers: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(0 if buffered else 1)
        self._messages: list[dict[str, Any]] = []

    async def ask_again_and_again(self) -> None:
        while True:
            # httpx would encode the percent signs of a cursor once more.
            query = f"?wait={self._wait}&session={self._session}" + (
                f"&after={self._after}" if self._after else ""
            )
            try:
                answer = await self._http.get("/events" + query)
            except Exception as error:
                if not was_cut(error):
                    raise
                break
            if answer.status_code != 200:
                self._end = end_of(answer.json())
                break
            body = json.loads(answer.content)
            assert body.keys() == {"events", "notices", "cursor"}
            self._after = body["cursor"]
            await self._answers.put(body)
            if ends := [one for one in body["notices"] if one["type"] == "orderbell.end"]:
                self._end = End(ends[0]["data"]["end"])
                break
            if not self._wait:
                await asyncio.sleep(self._pause_seconds)
        await self._answers.put(None)

    async def receive(self) -> None:
        while not self._messages:
            body = await self._answers.get()
            if body is None:
                self._answers.put_nowait(None)
                raise Ended
            self._messages = body["notices"] + body["events"]
        self.take(self._messages.pop(0))

    async def report_seen(self, cursor: str) -> None:
        answer = await self._http.post("/seen", json={"cursor": cursor})
        assert answer.status_code == 202, answer.text

    def end(self) -> End | None:
        return self._end

    async def leave(self) -> None:
        try:
            async with asyncio.timeout(5):
                await self._http.delete(f"/events?session={self._session}")
        except Exception as error:
            if not (was_cut(error) or isinstance(error, TimeoutError)):  # the gateway has gone
                raise


class PollingDriver(Driver):
    name = "polling"
    wait = 0

    def __init__(self, *, pause_seconds: float = 0.1) -> None:
        self._pause_seconds = pause_seconds

    @contextlib.asynccontextmanager
    async def connected(
        self,
        gateway: ReceiverProcess,
        token: str | None,
        *,
        after: str = "",
        greeted: bool = True,
        buffered: bool = True,
    ) -> AsyncIterator[PollingClient]:
        async with httpx2.AsyncClient(
            base_url=gateway.url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            trust_env=False,
            timeout=self.wait + 20,
        ) as http:
            client = PollingClient(http, self.wait, self._pause_seconds, after, buffered=buffered)
            asking = asyncio.create_task(client.ask_again_and_again())
            try:
                if greeted:
                    await client.receive_notice("hello")
                yield client
            finally:
                asking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asking
                await client.leave()

    def code(self, end: End) -> str:
        return end.value


class LongPollingDriver(PollingDriver):
    name = "long-polling"
    wait = 25
