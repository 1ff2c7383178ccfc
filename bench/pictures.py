"""Pictures of the tables: PNG for pages that show no SVG, SVG for all others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_OURS, _FLOOR, _PEERS = "#d9480f", "#868e96", "#4c6ef5"


def draw(results: Path, directory: Path) -> list[Path]:
    """A picture of each table in `results` that has one; the files made. Raises `ImportError`."""
    made: list[Path] = []
    for name, picture in _PICTURES.items():
        path = results / f"{name}.json"
        if path.exists():
            made += picture(json.loads(path.read_text(encoding="utf-8")), directory / f"bench-{name}")
    return made


def draw_compared(results: Path, directory: Path) -> list[Path]:
    """The charts of `make compare`: a line for each way, over the messages that a connection gets."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "orderbell", "font.size": 9}
    from matplotlib import pyplot

    table = json.loads((results / "compare-busy.json").read_text(encoding="utf-8"))
    measures = {
        "bytes": "bytes a message",
        "CPU µs": "gateway CPU, µs a message",
        "delay p50 ms": "delay p50, ms",
    }
    figure, axes = pyplot.subplots(1, len(measures), figsize=(11, 3.6), layout="constrained")
    ways = list(dict.fromkeys(row[1] for row in table["rows"]))
    for axis, (column, title) in zip(axes, measures.items(), strict=True):
        at = table["columns"].index(column)
        for way in ways:
            rows = [row for row in table["rows"] if row[1] == way]
            counts = [row[0] for row in rows]
            per = [1 if column.startswith("delay") else count for count in counts]
            axis.plot(counts, [row[at] / n for row, n in zip(rows, per, strict=True)], marker="o", label=way)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_title(title)
        axis.set_xlabel("messages a connection")
        axis.grid(visible=True, alpha=0.3)
    axes[0].legend(fontsize=8)
    path = directory / "compare.svg"
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return [path]


def _fan_out(table: dict[str, Any], path: Path) -> list[Path]:
    columns = ("to all", "to one, flat out", "to one, 4 gateways")
    titles = ("One event to all", "One event to one customer", "The same over 4 gateways")
    return _bars(table, path, columns, titles, "gateway CPU, µs a delivery; less is better")


def _connecting(table: dict[str, Any], path: Path) -> list[Path]:
    columns = ("KiB an idle connection", "CPU µs to connect")
    return _bars(
        table, path, columns, ("Memory", "Connecting"), "KiB an idle connection · µs of CPU a connect"
    )


def _latency(table: dict[str, Any], path: Path) -> list[Path]:
    columns = ("p50 ms", "p99 ms")
    return _bars(
        table, path, columns, ("Median", "99th percentile"), "ms from Redis to the client at 2,000 events/s"
    )


def _bars(
    table: dict[str, Any], path: Path, columns: Sequence[str], titles: Sequence[str], label: str
) -> list[Path]:
    """Contenders below each other, a measure beside the other; logarithmic, as the slowest are far away."""
    import matplotlib as mpl

    mpl.use("Agg")
    # Text stays text in the SVG, and two runs of the same figures give the same file.
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "orderbell", "font.size": 9}
    from matplotlib import pyplot

    names = [row[0] for row in table["rows"]]
    figure, axes = pyplot.subplots(
        1, len(columns), sharey=True, figsize=(10, 0.6 + 0.36 * len(names)), layout="constrained"
    )
    for axis, column, title in zip(axes, columns, titles, strict=True):
        values = [row[table["columns"].index(column)] or 0 for row in table["rows"]]
        bars = axis.barh(names, values, color=[_color(name) for name in names])
        axis.bar_label(bars, [_shown(value) for value in values], padding=3)
        axis.set_xscale("symlog", linthresh=1)
        axis.set_title(title)
        axis.set_xlim(0, max(values) * 4)
        axis.set_xticks([])
        axis.minorticks_off()
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    axes[0].invert_yaxis()
    figure.supxlabel(f"{label}; logarithmic", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = [path.with_suffix(".png"), path.with_suffix(".svg")]
    figure.savefig(made[0], dpi=160)
    figure.savefig(made[1], metadata={"Date": None})
    pyplot.close(figure)
    return made


def _color(name: str) -> str:
    return _OURS if name.startswith("Orderbell") else _FLOOR if name.startswith("floor") else _PEERS


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


_PICTURES: dict[str, Callable[[dict[str, Any], Path], list[Path]]] = {
    "fan-out": _fan_out,
    "connecting": _connecting,
    "latency": _latency,
}
