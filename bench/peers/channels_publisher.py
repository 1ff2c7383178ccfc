"""Publishes from another process, by `group_send`.

A line in: [[customer or null, event], …]. A line out when they are on their way.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import django
from channels.layers import get_channel_layer


async def main() -> None:
    layer = get_channel_layer()
    while line := await asyncio.to_thread(sys.stdin.readline):
        for customer, event in json.loads(line):
            message = {"type": "order.completed", "text": json.dumps(event, separators=(",", ":"))}
            await layer.group_send(customer or "all", message)
        print(flush=True)


if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "channels_site.settings"
    os.environ["REDIS_PORT"] = sys.argv[1]
    django.setup()
    asyncio.run(main())
