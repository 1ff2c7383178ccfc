"""Functions for ORDERBELL_ADMIT; a gateway of tests/test_admission.py imports them."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from receiver.access.admission import Handshake

NOT_CALLABLE = 7


def by_header(handshake: Handshake) -> Any:
    """Does what the client's header `X-How` says."""
    return _answer(handshake)


async def by_header_async(handshake: Handshake) -> Any:
    await asyncio.sleep(0)
    if handshake.headers.get("x-how") == "hang":
        await asyncio.sleep(3600)
    return _answer(handshake)


async def in_a_moment(handshake: Handshake) -> bool:
    await asyncio.sleep(0.2)  # long enough for several handshakes to wait together
    return True


def two(handshake: Handshake, more: int) -> bool:
    return True


def nobody(handshake: Handshake) -> str:
    return "nobody is admitted"


def yields(handshake: Handshake) -> Iterator[bool]:
    yield True


async def yields_async(handshake: Handshake) -> AsyncIterator[bool]:
    yield True


class Gate:
    async def __call__(self, handshake: Handshake) -> bool:
        return handshake.headers.get("x-how") == "yes"


gate = Gate()


def _answer(handshake: Handshake) -> Any:
    match handshake.headers.get("x-how", "yes"):
        case "yes":
            return True
        case "no":
            return False
        case "reason":
            return "come\nback on Monday"
        case "pair":
            return False, "closed"
        case "none":
            return None
        case "raise":
            raise ValueError(handshake.headers["authorization"])
        case "exit":
            sys.exit(3)
        case "stop":
            raise StopIteration
        case "cancel":
            raise asyncio.CancelledError
        case "hang":
            time.sleep(4)  # its thread can be used again afterwards
        case "change":
            handshake.path = "/other"  # type: ignore[misc] # it can't be
        case "see":
            return (
                f"{handshake.transport} {handshake.method} {handshake.path} {handshake.query} "
                f"{handshake.client} {handshake.scheme} {type(handshake.headers).__name__}"
            )
    return True
