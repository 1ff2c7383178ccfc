"""`python -m tests.conformance` runs the suite and writes docs/transports.md: every transport, every test."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.conformance.conftest import DRIVERS
from tests.conformance.matrix import PAGE, Outcome, page

FOLDER = Path(__file__).parent


def outcomes(report: Path) -> dict[tuple[str, str], list[Outcome]]:
    """By test and transport, as pytest's report in JUnit's form has them."""
    found: defaultdict[tuple[str, str], list[Outcome]] = defaultdict(list)
    drivers = [driver.name for driver in DRIVERS]
    for case in ET.parse(report).iter("testcase"):
        name, _, parameters = case.attrib["name"].rstrip("]").partition("[")
        named = [one for one in drivers if parameters.startswith(one) or parameters.endswith(one)]
        if named:
            found[name, max(named, key=len)].append(_outcome({part.tag for part in case}))
    return found


def _outcome(tags: set[str]) -> Outcome:
    if tags & {"failure", "error"}:
        return "failed"
    return "skipped" if "skipped" in tags else "passed"


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [sys.executable, "-m", "pytest", str(FOLDER), "-q", f"--junitxml={report}", *sys.argv[1:]]
        result = subprocess.run(command, check=False).returncode
        PAGE.write_text(page(outcomes(report)), encoding="utf-8")
    print(f"docs/{PAGE.name} is written")
    return result


if __name__ == "__main__":
    raise SystemExit(main())
