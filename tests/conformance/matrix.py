"""docs/transports.md: transports × tests."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.conformance import test_alerts, test_transports
from tests.conformance.conftest import DRIVERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Outcome = Literal["passed", "failed", "skipped"]

PAGE = Path(__file__).parents[2] / "docs" / "transports.md"
MARKS = {"passed": "✓", "failed": "✗", "skipped": "not run"}

_HEAD = """# Transports

What every transport does, shown by one suite that is written once and run against each
([connections](../tests/conformance/test_transports.py), [alerts](../tests/conformance/test_alerts.py)).
`python -m tests.conformance` runs it and writes this page; `tests/test_transports_page.py` fails where a test
or a transport is missing here, or one has failed.

How each is spoken: [protocol](protocol.md). A cursor from one transport resumes on any other, at any gateway.

"""


def names() -> list[str]:
    """The suite's tests of any driver, in their order."""
    named = (item for module in (test_transports, test_alerts) for item in vars(module).items())
    return [name for name, one in named if name.startswith("test_") and _takes_a_driver(one)]


def _takes_a_driver(test: Callable[..., object]) -> bool:
    return "driver" in inspect.signature(test).parameters


def page(outcomes: Mapping[tuple[str, str], Sequence[Outcome]]) -> str:
    drivers = [driver.name for driver in DRIVERS]
    lines = [f"| test | {' | '.join(drivers)} |", "|---|" + ":-:|" * len(drivers)]
    for name in names():
        marks = [_mark(outcomes.get((name, driver), ())) for driver in drivers]
        lines.append(f"| {claim(name)} | {' | '.join(marks)} |")
    return _HEAD + "\n".join(lines) + "\n"


def claim(name: str) -> str:
    """As a sentence."""
    return re.sub(r"^test_(\d+_)?", "", name).replace("_", " ")


def _mark(outcomes: Sequence[Outcome]) -> str:
    """Of all the parameters of one test; nothing where it was not run."""
    if not outcomes:
        return ""
    worst: Outcome = next((one for one in ("failed", "skipped") if one in outcomes), "passed")
    return MARKS[worst]
