"""Questions to a sender in the test's own process, or to a stand-in for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2

from receiver.sender_line import Answer, SenderSilent

if TYPE_CHECKING:
    from collections.abc import Mapping


class OverHttpx:
    """Asks over an httpx client, whose transport may be an ASGI app."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def request(
        self, method: str, url: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        try:
            answer = await self._client.request(method, url, content=content, headers=headers)
        except httpx2.HTTPError as error:
            raise SenderSilent(f"{type(error).__name__} {error}") from error
        return Answer(answer.status_code, answer.content)
