"""`python -m tests.chaos`: ten minutes of everything that can go wrong, then the checker's table."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import click

from shared.process.guard import Guard
from tests.chaos import report, scenarios
from tests.chaos.callers import LIVELY, NONE
from tests.chaos.clients import TRANSPORTS
from tests.chaos.nemesis import plan
from tests.chaos.run import Load, mixed, running

SEED_VARIABLE = "ORDERBELL_CHAOS_SEED"


def _say(line: str) -> None:
    print(line, flush=True)


@click.group(invoke_without_command=True)
@click.option("--seconds", default=600.0, show_default=True, help="How long orders are placed.")
@click.option("--seed", type=int, help=f"Of a run to repeat; also {SEED_VARIABLE}. New otherwise.")
@click.option("--database", type=click.Choice(["sqlite", "postgres"]), default="sqlite", show_default=True)
@click.option("--senders", type=int, help="1 on SQLite, 2 on PostgreSQL if not given.")
@click.option("--gateways", default=2, show_default=True)
@click.option("--rate", type=float, help="Orders a second: 200 if not given, 50 over all transports.")
@click.option("--customers", type=int, help="500 if not given, 140 over all transports.")
@click.option(
    "--transports",
    type=click.Choice(["websocket", "all"]),
    default="websocket",
    show_default=True,
    help="Of the devices, in turn. Other clients than the WebSocket's cost more than the gateways.",
)
@click.option("--keep", is_flag=True, help="Keep ledgers and logs.")
@click.pass_context
def main(
    context: click.Context,
    seconds: float,
    seed: int | None,
    database: str,
    senders: int | None,
    gateways: int,
    rate: float | None,
    customers: int | None,
    transports: str,
    *,
    keep: bool,
) -> None:
    """Faults of all kinds under load; ends with 1 if anything was lost, shown twice or out of order."""
    if context.invoked_subcommand is not None:
        return
    if seed is None:
        seed = int(os.environ.get(SEED_VARIABLE) or random.randrange(2**31))
    _say(f"seed {seed}: to repeat this run, set {SEED_VARIABLE}={seed}")
    senders = senders or (2 if database == "postgres" else 1)
    directory = Path(tempfile.mkdtemp(prefix="orderbell-chaos-"))
    used = TRANSPORTS if transports == "all" else (transports,)
    customers = customers or (140 if len(used) > 1 else 500)
    rate = rate or (50.0 if len(used) > 1 else 200.0)
    life = LIVELY if used == ("websocket",) else NONE
    load = Load(customers=customers, rate=rate, second_devices=customers // 10, transports=used, life=life)
    with (
        Guard() as guard,
        running(
            directory,
            guard.group,
            load=load,
            say=_say,
            seed=seed,
            database=database,
            gateways=gateways,
            senders=senders,
        ) as run,
    ):
        verdict = mixed(run, plan(seed, seconds, database=database), seconds)
    _say(report.table(verdict))
    _say(f"seed {seed}, {database}, {senders} senders, {gateways} gateways, {seconds:g} s")
    report.clean_up(directory, keep=keep or not verdict.kept, say=_say)
    raise SystemExit(0 if verdict.kept else 1)


@main.command()
@click.argument("names", nargs=-1)
@click.option("--rate", default=200.0, show_default=True, help="Orders a second.")
@click.option("--customers", default=500, show_default=True)
@click.option("--times", type=int, help="How often the fault comes; each scenario has its own number.")
@click.option("--keep", is_flag=True, help="Keep ledgers and logs.")
def scenario(names: tuple[str, ...], rate: float, customers: int, times: int | None, *, keep: bool) -> None:
    """Run scenarios by NAME; without one, list them."""
    if not names:
        for name, story in scenarios.SCENARIOS.items():
            _say(f"{name:28} {(story.__doc__ or '').splitlines()[0]}")
        return
    good = True
    for name in names:
        directory = Path(tempfile.mkdtemp(prefix=f"orderbell-{name}-"))
        with Guard() as guard:
            stage = scenarios.Stage(
                directory, guard.group, Load(customers, rate, customers // 10), _say, times
            )
            outcome = scenarios.SCENARIOS[name](stage)
        _say(f"== {name}: {outcome}")
        good = good and outcome.good
        report.clean_up(directory, keep=keep or not outcome.good, say=_say)
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
