"""Runs one gateway: `python -m receiver`."""

from __future__ import annotations

import socket

import click
import httpx2

from receiver.app import create_app
from receiver.authentication import Authentication, Origins
from receiver.development import Development
from receiver.gateway import Gateway
from receiver.history import History
from receiver.server import prepare_process, serve
from receiver.tickets import Tickets
from shared.auth import create_verifier
from shared.cluster import connect, pipelines_to
from shared.listening import listen
from shared.log import Names
from shared.logs import configure_logs
from shared.settings import ReceiverSettings, load


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8091, show_default=True, help="Port to listen on; 0 takes a free one.")
def main(host: str, port: int) -> None:
    """Run one Orderbell gateway. Settings come from ORDERBELL_… environment variables."""
    settings = load(ReceiverSettings, host=host)
    listening = listen(host, port)
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
    name = f"{socket.gethostname()}:{listening.getsockname()[1]}"
    gateway = Gateway(redis, pipelines, History(sender), authentication, settings, name=name)
    development = Development(settings, authentication, sender) if settings.development else None
    resources = (redis, pipelines, sender)
    app = create_app(
        gateway, authentication, tickets, Origins(settings.allowed_origins), development, resources
    )
    prepare_process(settings.max_connections)
    serve(app, gateway, settings, listening)


if __name__ == "__main__":
    main()
