"""One run of the benchmarks: the arguments of all its parts."""

from __future__ import annotations

import itertools
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.stack import running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bench.contenders import Contender
    from bench.stack import Stack


@dataclass
class Run:
    redis_binary: Path
    binaries: Path  # of what bench/native/ compiles to
    directory: Path  # for databases and logs; gone afterwards
    group: int  # process group of everything that is started
    rounds: int
    seconds: float  # of one measurement, about
    contenders: Sequence[type[Contender]]  # the floor first
    streams: Sequence[type[Contender]] = ()  # peers whose clients speak no WebSocket
    largest: int = 1_000_000  # events in a database that is filled before
    databases: Path | None = None  # filled ones are kept there
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _started: float = field(default_factory=time.monotonic)

    def progress(self, text: str) -> None:
        print(f"[{time.monotonic() - self._started:7.1f} s] {text}", file=sys.stderr, flush=True)

    def turns(self, what: str) -> Iterator[type[Contender]]:
        """Each contender once a round, the floor first.

        The speed of a shared machine changes within minutes; within one round it is nearly the same for all.
        """
        for number in range(1, self.rounds + 1):
            for make in self.contenders:
                self.progress(f"{what}: {make.name}, round {number} of {self.rounds}")
                yield make

    def new_directory(self, name: str) -> Path:
        """A path that does not exist yet."""
        return self.directory / f"{name}-{next(self._numbers)}"

    def stack(self, *, gateways: int, database_url: str = "") -> AbstractContextManager[Stack]:
        return running_stack(
            self.redis_binary,
            self.new_directory("stack"),
            self.group,
            gateways=gateways,
            database_url=database_url,
        )

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.progress(name)
        started = time.monotonic()
        yield
        self.progress(f"{name}: done in {time.monotonic() - started:.0f} s")
