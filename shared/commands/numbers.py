"""The numbers that commands take: finite, and within bounds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from typing import Any


class Number(click.FloatRange):
    """A range with both ends: `nan` passes every comparison of a `FloatRange`, and `inf` an open end."""

    name = "number"

    def __init__(self, least: float, most: float, *, above: bool = False) -> None:
        """`above`: the least itself is refused."""
        super().__init__(least, most, min_open=above)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return float(super().convert(number, param, ctx))
