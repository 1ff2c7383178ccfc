"""Shared by all switches."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Patch = Callable[[object, str, object], None]


async def nothing(*_: object, **__: object) -> None:
    pass


async def never(*_: object) -> None:
    await asyncio.Event().wait()
