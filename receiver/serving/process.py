"""One gateway's process: its parts are built, served until a signal comes, and closed."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import httpx2
from prometheus_client import REGISTRY

from receiver.access.authentication import Authentication
from receiver.access.origins import Origins
from receiver.access.tickets import Tickets
from receiver.access.verifier import create_verifier
from receiver.feeds.history import History
from receiver.gateway import Gateway
from receiver.pages.development import Development
from receiver.serving.app import create_app
from receiver.serving.server import prepare_process, serve
from shared.process.logs import configure_logs
from shared.redis.channel_log import Names
from shared.redis.cluster import connect, pipelines_to

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from shared.settings import ReceiverSettings


def name_of(listening: socket.socket) -> str:
    return f"{socket.gethostname()}:{listening.getsockname()[1]}"


def run(
    settings: ReceiverSettings,
    listening: socket.socket,
    *,
    name: str,
    registry: CollectorRegistry = REGISTRY,
    leaving: Callable[[], None] = lambda: None,
) -> None:
    """`registry` is what /metrics tells. `leaving` is called before the drain: it takes nobody any more."""
    configure_logs(settings.log_format, settings.log_level, "receiver")
    # No retries: while Redis fails, the sender's history is asked instead.
    redis = connect(settings.redis_url, retries=0)
    pipelines = pipelines_to(redis)
    sender = httpx2.AsyncClient(
        base_url=str(settings.sender_url),
        headers={"authorization": f"Bearer {settings.api_keys[0].get_secret_value()}"},
        timeout=5,
        trust_env=False,  # a proxy for the way out of a company is none for the way to its own sender
    )
    tickets = Tickets(pipelines, Names(settings.key_prefix))
    authentication = Authentication(create_verifier(settings), tickets, cookie=settings.jwt_cookie)
    gateway = Gateway(redis, pipelines, History(sender), authentication, settings, name=name)
    development = Development(settings, authentication, sender) if settings.development else None
    resources = (redis, pipelines, sender)
    origins = Origins(settings.allowed_origins)
    app = create_app(gateway, authentication, tickets, origins, development, resources, registry)
    prepare_process(settings.max_connections)
    serve(app, gateway, settings, listening, leaving)
