"""`make fuzz`: coverage-guided fuzzing of every parser, by Atheris (libFuzzer), each for a while.

    make fuzz ARGS="--seconds 300 stomp cursors"

A finding is printed with the bytes that cause it, kept in .fuzz/<target>/, and ends the run with 1.
Interesting inputs stay in .fuzz/<target>/corpus, where the next run continues.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import click

DIRECTORY = Path(".fuzz")
MAX_BYTES = 8 * 1024  # of one input
_SLOW_SECONDS = 5  # for one input


@click.command()
@click.argument("targets", nargs=-1)
@click.option("--seconds", default=60, show_default=True, help="For each target.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Targets at the same time.")
def main(targets: tuple[str, ...], seconds: int, jobs: int) -> None:
    """Fuzz the parsers of what comes from outside: all of them, or those named."""
    if find_spec("atheris") is None:
        raise click.ClickException("not run: Atheris is not installed; `make fuzz` does that where it can")
    from tests.fuzz.targets import SEEDS, TARGETS

    if unknown := set(targets) - TARGETS.keys():
        raise click.UsageError(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")

    def run(target: str) -> bool:
        directory = DIRECTORY / target
        corpus = directory / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        for n, seed in enumerate(SEEDS[target]):
            (corpus / f"seed-{n}").write_bytes(seed)
        options = [f"-max_total_time={seconds}", f"-timeout={_SLOW_SECONDS}", f"-max_len={MAX_BYTES}"]
        kept = [f"-artifact_prefix={directory}/", str(corpus)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.one", target, *options, *kept],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        lines = done.stdout.decode(errors="replace").strip().splitlines()
        last = next((line for line in reversed(lines) if line.startswith(("Done", "stat", "#"))), "")
        click.echo(f"{target}: {'nothing found' if done.returncode == 0 else 'FOUND'}; {last}")
        if done.returncode:
            click.echo("\n".join(lines[-60:]))
        return done.returncode == 0

    with ThreadPoolExecutor(jobs) as pool:
        if not all(list(pool.map(run, targets or TARGETS))):
            sys.exit(1)


if __name__ == "__main__":
    main(prog_name="python -m tests.fuzz")
