"""python listen.py CLIENT URL TOKEN: an unmodified client that prints the `n` of each event on a line.

CLIENT: websockets, websocket-client, aiohttp (WebSocket), aiohttp-sse. Each comes back with its cursor.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

client, url, token = sys.argv[1:]
headers = {"Authorization": f"Bearer {token}"}
places: dict[str, str] = {}


def hear(text: str) -> None:
    event = json.loads(text)
    if "seq" in event:
        places[event["channel"]] = f"{event['epoch']}.{event['seq']}"
        print(event["data"]["n"], flush=True)


def address() -> str:
    cursor = ",".join(f"{channel}={place}" for channel, place in places.items())
    return url + (f"?after={cursor}" if cursor else "")


async def with_websockets() -> None:
    import websockets

    subprotocol = websockets.Subprotocol("cloudevents.json")
    while True:
        try:
            async with websockets.connect(
                address(), subprotocols=[subprotocol], additional_headers=headers, proxy=None
            ) as websocket:
                async for message in websocket:
                    hear(str(message))
        except (OSError, websockets.WebSocketException):
            pass
        await asyncio.sleep(0.2)


def with_websocket_client() -> None:
    import websocket

    while True:
        try:
            connection = websocket.create_connection(
                address(), header=headers, subprotocols=["cloudevents.json"], suppress_origin=True
            )
            while text := connection.recv():
                hear(str(text))
        except (OSError, websocket.WebSocketException):
            pass
        time.sleep(0.2)


async def with_aiohttp(*, streams: bool) -> None:
    import aiohttp

    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=None)) as session:
        while True:
            try:
                if streams:
                    async with session.get(address(), headers={"Accept": "text/event-stream"}) as answer:
                        async for line in answer.content:
                            if line.startswith(b"data: "):
                                hear(line.decode().removeprefix("data: "))
                else:
                    async with session.ws_connect(address(), protocols=["cloudevents.json"]) as connection:
                        async for message in connection:
                            hear(str(message.data))
            except (OSError, aiohttp.ClientError):
                pass
            await asyncio.sleep(0.2)


if client == "websockets":
    asyncio.run(with_websockets())
elif client == "websocket-client":
    with_websocket_client()
else:
    asyncio.run(with_aiohttp(streams=client == "aiohttp-sse"))
