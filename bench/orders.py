"""Orders and events to measure with."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Any

from bench.caller import callers, post

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.stack import Stack

_PLACERS = 32


class OrderRefused(Exception):
    """The sender's answer makes the measurement impossible."""


async def place(stack: Stack, orders: Sequence[tuple[str, str]]) -> None:
    """Place orders, given as order and customer."""
    waiting = iter(orders)
    async with callers(stack.sender.port, _PLACERS) as placers:

        async def run(n: int) -> None:
            for order, customer in waiting:
                body = json.dumps({"order_id": order, "customer_id": customer}).encode()
                answer = await placers[n].call(post("/orders", body, stack.api_key))
                if answer.status != 201:
                    raise OrderRefused(f"{answer.status} {answer.body.decode(errors='replace')}")

        async with asyncio.TaskGroup() as tasks:
            for n in range(_PLACERS):
                tasks.create_task(run(n))


def completion(stack: Stack, order: str) -> bytes:
    """The request that completes it."""
    return post(f"/orders/{order}/complete", b"", stack.api_key)


def event(channel: str, **data: Any) -> dict[str, Any]:
    """A CloudEvent that is about 330 bytes long once the sender has recorded it."""
    return {
        "specversion": "1.0",
        "id": uuid.uuid4().hex,
        "source": "/bench",
        "type": "order.completed",
        "channel": channel,
        "data": {"order_id": "1042", "message": "Order 1042 is complete", **data},
    }


def single(stack: Stack, one: dict[str, Any]) -> bytes:
    body = json.dumps(one, separators=(",", ":")).encode()
    return post("/events", body, stack.api_key, content_type="application/cloudevents+json")


def batch(stack: Stack, events: Iterable[dict[str, Any]]) -> bytes:
    body = json.dumps(list(events), separators=(",", ":")).encode()
    return post("/events", body, stack.api_key, content_type="application/cloudevents-batch+json")
