from __future__ import annotations

import os

SECRET_KEY = "only for measuring on loopback"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["daphne", "channels"]
ASGI_APPLICATION = "channels_site.asgi.application"
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {
            # redis-py 8 gives up after five seconds unless told otherwise, and this layer waits for five.
            "hosts": [{"host": "127.0.0.1", "port": int(os.environ["REDIS_PORT"]), "socket_timeout": None}],
            "capacity": 5_000,  # its default, 100 messages a process, loses some of every batch of a hundred
        },
    },
}
