"""Server-Sent Events, by a client of a few lines: HTML 9.2.6 on a raw socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import httpx2

from receiver.connections.connection import End
from tests.conformance.client import Client, Driver, Ended, end_of, socket_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.processes import ReceiverProcess


class EventStreamClient(Client):
    """`ids` are those of all events and notices, as a browser would send them back."""

    def __init__(self, reader: asyncio.StreamReader, gateway: ReceiverProcess, token: str | None) -> None:
        super().__init__()
        self._reader = reader
        self._gateway = gateway
        self._token = token
        self._end: End | None = None
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ids: list[str] = []
        self.kinds: list[str] = []
        self.retries_ms: list[int] = []

    async def receive_head(self) -> None:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if self.status != 200:
            size = int(self.headers["content-length"])
            problem = json.loads(await self._reader.readexactly(size))
            self._end = end_of(problem)

    async def receive(self) -> None:
        fields: dict[str, list[str]] = {"data": []}
        try:
            if not self.status:
                await self.receive_head()
            if self.status != 200:
                raise Ended
            while (line := (await self._reader.readuntil(b"\n")).decode().rstrip("\n")) != "":
                name, _, value = line.partition(":")
                fields.setdefault(name, []).append(value.removeprefix(" "))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Ended from None
        self.retries_ms += map(int, fields.get("retry", []))
        if fields["data"]:
            self.ids += fields.get("id", [])
            self.kinds += fields.get("event", ["message"])
            self.take(json.loads("\n".join(fields["data"])))

    def take(self, message: dict[str, Any]) -> None:
        super().take(message)
        if message["type"] == "orderbell.end":
            self._end = End(message["data"]["end"])

    async def report_seen(self, cursor: str) -> None:
        async with httpx2.AsyncClient(base_url=self._gateway.url, trust_env=False) as http:
            headers = {"Authorization": f"Bearer {self._token}"}
            answer = await http.post("/seen", json={"cursor": cursor}, headers=headers)
            assert answer.status_code == 202, answer.text

    def end(self) -> End | None:
        return self._end


class EventStreamDriver(Driver):
    name = "sse"

    @contextlib.asynccontextmanager
    async def connected(
        self,
        gateway: ReceiverProcess,
        token: str | None,
        *,
        after: str = "",
        greeted: bool = True,
        buffered: bool = True,
        headers: dict[str, str] | None = None,
    ) -> AsyncIterator[EventStreamClient]:
        lines = [
            f"GET /events{f'?after={after}' if after else ''} HTTP/1.1",
            f"Host: 127.0.0.1:{gateway.port}",
            "Accept: text/event-stream",
            *([f"Authorization: Bearer {token}"] if token else []),
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        sock = socket_to(gateway, buffered=buffered)
        sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=sock, limit=2**20 if buffered else 1024)
        writer.write("\r\n".join([*lines, "", ""]).encode())
        client = EventStreamClient(reader, gateway, token)
        try:
            if greeted:
                await client.receive_notice("hello")
            yield client
        finally:
            writer.close()

    def code(self, end: End) -> str:
        return end.value
