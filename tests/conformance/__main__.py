"""`python -m tests.conformance` runs the suite and writes docs/transports.md: every transport, every test."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.conformance.conftest import DRIVERS
from tests.conformance.matrix import PAGE, Outcome, page

FOLDER = Path(__file__).parent


class Outcomes:
    """What became of each test with each transport."""

    def __init__(self) -> None:
        self.of: defaultdict[tuple[str, str], list[Outcome]] = defaultdict(list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        name, _, parameters = report.nodeid.rpartition("::")[2].rstrip("]").partition("[")
        named = [
            one.name for one in DRIVERS if parameters.startswith(one.name) or parameters.endswith(one.name)
        ]
        if named:
            outcome: Outcome = "passed" if report.passed else "skipped" if report.skipped else "failed"
            self.of[name, max(named, key=len)].append(outcome)


def main() -> int:
    outcomes = Outcomes()
    result = pytest.main([str(FOLDER), "-q", *sys.argv[1:]], plugins=[outcomes])
    PAGE.write_text(page(outcomes.of), encoding="utf-8")
    print(f"{PAGE.name} is written")
    return int(result)


if __name__ == "__main__":
    raise SystemExit(main())
