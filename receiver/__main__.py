"""Runs one gateway: `python -m receiver`."""

from __future__ import annotations

import click

from receiver.process import name_of, run
from shared.listening import listen
from shared.settings import ReceiverSettings, load


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8091, show_default=True, help="Port to listen on; 0 takes a free one.")
def main(host: str, port: int) -> None:
    """Run one Orderbell gateway. Settings come from ORDERBELL_… environment variables."""
    settings = load(ReceiverSettings, host=host)
    listening = listen(host, port)
    run(settings, listening, name=name_of(listening))


if __name__ == "__main__":
    main()
