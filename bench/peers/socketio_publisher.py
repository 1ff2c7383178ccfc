"""Publishes from another process: a write-only manager, as python-socketio's documentation has it.

A line in: [[customer or null, event], …]. A line out when they are on their way.
"""

from __future__ import annotations

import asyncio
import json
import sys

import socketio


async def main() -> None:
    manager = socketio.AsyncRedisManager(f"redis://127.0.0.1:{sys.argv[1]}/0", write_only=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        for customer, event in json.loads(line):
            await manager.emit("event", event, room=customer)
        print(flush=True)


if __name__ == "__main__":
    asyncio.run(main())
