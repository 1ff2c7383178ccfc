"""Starlette + redis-py, an afternoon's work: a Pub/Sub channel a customer, a set of WebSockets a channel."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.websockets import WebSocket

PORT, REDIS_PORT = map(int, sys.argv[1:])
redis = Redis(port=REDIS_PORT)
pubsub = redis.pubsub()
channels: dict[str, set[WebSocket]] = {"all": set()}


async def listen() -> None:
    async for message in pubsub.listen():
        if message["type"] == "message":
            text = message["data"].decode()
            for websocket in list(channels.get(message["channel"].decode(), ())):
                await websocket.send_text(text)


async def events(websocket: WebSocket) -> None:
    customer = f"one:{websocket.path_params['customer']}"
    await websocket.accept()
    if customer not in channels:
        channels[customer] = set()
        await pubsub.subscribe(customer)
    channels[customer].add(websocket)
    channels["all"].add(websocket)
    try:
        async for _ in websocket.iter_text():
            pass
    finally:
        channels["all"].discard(websocket)
        channels[customer].discard(websocket)
        if not channels[customer]:
            del channels[customer]
            await pubsub.unsubscribe(customer)


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    await pubsub.subscribe("all")
    listening = asyncio.create_task(listen())
    yield
    listening.cancel()


app = Starlette(routes=[WebSocketRoute("/{customer}", events)], lifespan=lifespan)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning", backlog=4096)
