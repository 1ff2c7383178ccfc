"""python-socketio with its Redis manager, as its documentation has it; a room a customer."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import parse_qs

import socketio
import uvicorn

PORT, REDIS_PORT = map(int, sys.argv[1:])
server = socketio.AsyncServer(
    async_mode="asgi", client_manager=socketio.AsyncRedisManager(f"redis://127.0.0.1:{REDIS_PORT}/0")
)


@server.event  # type: ignore[untyped-decorator,unused-ignore]
async def connect(sid: str, environ: dict[str, Any], auth: object) -> None:
    (customer,) = parse_qs(environ["QUERY_STRING"])["customer"]
    await server.enter_room(sid, customer)


if __name__ == "__main__":
    uvicorn.run(socketio.ASGIApp(server), host="127.0.0.1", port=PORT, log_level="warning", backlog=4096)
