"""What a service in this process has counted since a test began: other tests count in the same metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class Counted:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._before = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in registry.collect()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """The growth of a counter or a histogram; `name` as /metrics shows it."""
        return self.gauge(name, **labels) - self._before.get((name, frozenset(labels.items())), 0.0)

    def gauge(self, name: str, **labels: str) -> float:
        """The value now."""
        return self._registry.get_sample_value(name, labels) or 0.0
