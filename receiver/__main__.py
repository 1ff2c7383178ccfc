"""Runs one gateway, or several that share a port: `python -m receiver`."""

from __future__ import annotations

import sys

import click

import orderbell_start  # noqa: F401 - first of ours: it makes sure that they are
from shared.process.listening import listening_on
from shared.settings import PREFIX, ReceiverSettings, load


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; :: means all.")
@click.option("--port", default=8091, show_default=True, help="Port to listen on; 0 picks a free one.")
@click.option("--uds", type=click.Path(), help="Unix socket to listen on, in place of host and port.")
@click.option(
    "--workers",
    type=click.IntRange(min=1, max=256),
    default=1,
    show_default=True,
    help="Processes that share the port, each a whole gateway: one per core. One that dies is replaced.",
)
def main(host: str, port: int, uds: str | None, workers: int) -> None:
    """Run one Orderbell gateway, or several on one port.

    Settings come from ORDERBELL_… environment variables; limits are those of each worker. SIGTERM,
    SIGHUP or Ctrl-C drains; a second Ctrl-C skips the drain.
    """
    settings = load(ReceiverSettings, host=None if uds else host, port=0 if uds else port)
    _check_hook(settings)
    # Imported where needed: the supervisor needs nothing of a gateway and stays small without it.
    if workers == 1:
        from receiver.serving.process import name_of, run

        with listening_on(host, port, uds) as listening:
            run(settings, listening, name=name_of(listening))
    elif uds:
        raise click.UsageError(
            "--workers share a port, and a Unix socket has none: start several, each with its own path"
        )
    elif sys.platform == "linux":
        from receiver.serving.supervisor import supervise

        sys.exit(supervise(settings, host, port, workers))
    else:
        raise click.UsageError("--workers needs Linux, which spreads connections over a port's sockets")


def _check_hook(settings: ReceiverSettings) -> None:
    """Before anything listens, and once for all workers: a wrong hook ends the process with 2."""
    if settings.admit is not None:
        from receiver.access.admission import InvalidHook, load_hook

        try:
            load_hook(settings.admit)
        except InvalidHook as error:
            print(f"orderbell: {PREFIX}ADMIT: {error}", file=sys.stderr)
            raise SystemExit(2) from None


if __name__ == "__main__":
    main()
