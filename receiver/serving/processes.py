"""`process_…` metrics of a gateway that has several workers: of all of them together, with their supervisor.

What workers count is in files that all of them read, but these figures come from the kernel: whichever worker
answers must add up those of the others.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

_SMALLEST = ("process_start_time_seconds", "process_max_fds")  # all others add up


class Processes(Collector):
    """`supervisor` is the process id of the workers' parent."""

    def __init__(self, supervisor: int) -> None:
        self._supervisor = supervisor

    def collect(self) -> Iterable[Metric]:
        found: dict[str, list[Metric]] = {}
        for pid in self._pids():
            for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc] # pid is an int
                found.setdefault(metric.name, []).append(metric)
        return [_together(metrics) for metrics in found.values()]

    def _pids(self) -> list[int]:
        """None where the supervisor has just ended."""
        path = Path(f"/proc/{self._supervisor}/task/{self._supervisor}/children")
        try:
            return [self._supervisor, *map(int, path.read_text(encoding="ascii").split())]
        except OSError:
            return [os.getpid()]


def _together(metrics: list[Metric]) -> Metric:
    first = metrics[0]
    values = [metric.samples[0].value for metric in metrics if metric.samples]
    value = min(values) if first.name in _SMALLEST else sum(values)
    family = CounterMetricFamily if first.type == "counter" else GaugeMetricFamily
    return family(first.name, first.documentation, value=value)
