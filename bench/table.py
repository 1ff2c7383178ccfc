"""Results: a table for people, the same as JSON for programs."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Value = str | float | int | None


@dataclass
class Table:
    """`rows` have a value for each of `columns`; None is shown as a dash."""

    name: str  # of its files
    title: str
    columns: Sequence[str]
    notes: Sequence[str] = ()  # how it was measured
    rows: list[list[Value]] = field(default_factory=list)
    rounds: list[object] = field(default_factory=list)  # every round as it was, for the JSON alone

    def add(self, *values: Value) -> None:
        assert len(values) == len(self.columns), values
        self.rows.append(list(values))

    def text(self) -> str:
        cells = [list(self.columns), *([_shown(value) for value in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "| "
            + " | ".join(
                _aligned(cell, width, first=n == 0)
                for n, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            + " |"
            for row in cells
        ]
        rule = (
            "|"
            + "|".join(
                "-" * (width + 2) if n == 0 else "-" * (width + 1) + ":" for n, width in enumerate(widths)
            )
            + "|"
        )
        return "\n".join([f"### {self.title}", "", lines[0], rule, *lines[1:], "", *self.notes])

    def write(self, directory: Path, machine: dict[str, str]) -> str:
        """Both files; the text."""
        directory.mkdir(parents=True, exist_ok=True)
        measured_on = "Measured on " + " · ".join(f"{name} {value}" for name, value in machine.items()) + "."
        text = f"{self.text()}\n\n{measured_on}\n"
        (directory / f"{self.name}.md").write_text(text, encoding="utf-8")
        content = {
            "title": self.title,
            "columns": list(self.columns),
            "rows": self.rows,
            "notes": list(self.notes),
            "rounds": self.rounds,
            "machine": machine,
        }
        (directory / f"{self.name}.json").write_text(
            json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        return text


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def median_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """Of each round's value to the other's in the same round."""
    return median([value / other for value, other in zip(values, others, strict=True)])


def percentile(values: Sequence[float], fraction: float) -> float:
    """The smallest value that at least this fraction of all do not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(fraction * len(ordered)) - 1]


def _shown(value: Value) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
        return f"{value:,.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else value


def _aligned(cell: str, width: int, *, first: bool) -> str:
    return cell.ljust(width) if first else cell.rjust(width)
