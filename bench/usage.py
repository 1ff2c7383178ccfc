"""What processes have used: processor time and memory, as Linux counts them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of all their threads."""
    return sum(map(_cpu_seconds, pids))


def resident_bytes(pids: Iterable[int]) -> int:
    return sum(map(_resident_bytes, pids))


class Usage:
    """Processor time of some processes, from now on."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = tuple(pids)
        self._cpu = cpu_seconds(self._pids)
        self._started = time.monotonic()

    @property
    def cpu(self) -> float:
        return cpu_seconds(self._pids) - self._cpu

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started


def _cpu_seconds(pid: int) -> float:
    """To the nanosecond, from the scheduler: /proc/<pid>/stat counts in hundredths of a second."""
    # A thread's time is lost when it ends, so threads must not end while measured; the gateways' don't.
    threads = [
        path.read_text(encoding="ascii").split() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")
    ]
    return sum(int(fields[0]) for fields in threads) / 1e9


def _resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no Rss")
