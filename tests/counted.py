"""What a service in this process has counted since a test began: other tests count in the same metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class Counted:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        # Histograms are left out: reading all their buckets takes most of the time.
        self._before = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for collector in registry._collector_to_names
            if isinstance(collector, Counter)
            for family in collector.collect()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """The growth of a counter; `name` as /metrics shows it."""
        assert name.endswith("_total"), "no counter"
        return self.value(name, **labels) - self._before.get((name, frozenset(labels.items())), 0.0)

    def value(self, name: str, **labels: str) -> float:
        """Of any metric, now."""
        return self._registry.get_sample_value(name, labels) or 0.0
