"""The server that receives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.webhooks.receiver import Receiver, receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def receiver(anyio_backend: object) -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver
