"""Runs one gateway, or several that share a port: `python -m receiver`."""

from __future__ import annotations

import sys

import click

import orderbell_start  # noqa: F401 - first of ours: it makes sure that they are
from shared.process.listening import listen
from shared.settings import ReceiverSettings, load


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8091, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that share the port, each a whole gateway: one a core. One that dies is replaced.",
)
def main(host: str, port: int, workers: int) -> None:
    """Run one Orderbell gateway, or several on one port.

    Settings come from ORDERBELL_… environment variables; limits are those of each worker. SIGTERM or
    Ctrl-C drains; a second Ctrl-C skips the drain.
    """
    settings = load(ReceiverSettings, host=host)
    # Imported where needed: whoever watches over workers needs nothing of a gateway, and is small without.
    if workers == 1:
        from receiver.serving.process import name_of, run

        listening = listen(host, port)
        run(settings, listening, name=name_of(listening))
    elif sys.platform == "linux":
        from receiver.serving.supervisor import supervise

        sys.exit(supervise(settings, host, port, workers))
    else:
        raise click.UsageError("--workers needs Linux, which spreads connections over a port's sockets")


if __name__ == "__main__":
    main()
