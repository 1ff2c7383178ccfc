"""`make autobahn`: Autobahn's test suite, 0.8.2, against our handshake and frames, for docs/security.md.

The suite runs on Python 2.7 alone, so it is not among what tests install:

    python2 -m pip install --target suite autobahntestsuite==0.8.2
    make autobahn ARGS="--suite suite"

It ends with 1 where a case behaves otherwise than RFC 6455 says, but for `BY_DECISION`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
import httpx2

from shared.commands.embedded import free_port

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "security.md"
BEGIN, END = "<!-- autobahn: begin -->\n", "<!-- autobahn: end -->\n"
AGENT = "orderbell"
GROUPS = {
    "1": "text and binary messages of all sizes",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "reserved opcodes",
    "5": "fragments, with control frames between them",
    "6": "UTF-8",
    "7": "closing",
    "9": "messages up to 16 MiB, whole and in fragments",
    "10": "automatic fragments",
}
BY_DECISION = {"6.4.3", "6.4.4"}  # UTF-8 is checked frame by frame, and a frame has at most 16 KiB
_COMPRESSION = ["12.*", "13.*"]  # it is never negotiated
_RUN = "import site; site.addsitedir({!r}); from autobahntestsuite.wstest import run; run()"

Results = dict[str, dict[str, Any]]


def run_suite(python: str, suite: Path, cases: list[str], directory: Path) -> Results:
    port = free_port()
    server = subprocess.Popen([sys.executable, "-m", "tests.interop.autobahn.echo", str(port)], cwd=ROOT)
    try:
        _wait_for(port)
        specification = {
            "outdir": str(directory),
            "servers": [{"agent": AGENT, "url": f"ws://127.0.0.1:{port}"}],
            "cases": cases,
            "exclude-cases": _COMPRESSION,
            "exclude-agent-cases": {},
        }
        (directory / "spec.json").write_text(json.dumps(specification))
        command = [python, "-c", _RUN.format(str(suite.resolve()))]
        subprocess.run([*command, "-m", "fuzzingclient", "-s", "spec.json"], cwd=directory, check=True)
    finally:
        server.terminate()
        server.wait(20)
    found: Results = json.loads((directory / "index.json").read_text())[AGENT]
    return found


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            httpx2.get(f"http://127.0.0.1:{port}/", trust_env=False)
        except httpx2.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # between two tries, while it starts
        else:
            return


def kind_of(result: dict[str, Any]) -> str:
    """What the suite says of a case: the worse of how it behaved and how it closed."""
    order = ["OK", "INFORMATIONAL", "NON-STRICT"]
    kinds = [str(result["behavior"]), str(result["behaviorClose"])]
    return max(kinds, key=lambda kind: order.index(kind) if kind in order else len(order))


def wrong(results: Results) -> dict[str, str]:
    """The cases that are neither right nor by decision."""
    kinds = {case: kind_of(result) for case, result in results.items()}
    return {
        case: kind
        for case, kind in kinds.items()
        if not (kind in ("OK", "INFORMATIONAL") or (kind == "NON-STRICT" and case in BY_DECISION))
    }


def table(results: Results) -> str:
    lines = ["| cases | of | OK | informational | non-strict | failed |", "|---|---|--:|--:|--:|--:|"]
    total = Counter[str]()
    for group, what in GROUPS.items():
        kinds = Counter(kind_of(result) for case, result in results.items() if case.split(".", 1)[0] == group)
        total += kinds
        lines.append(_row(group, what, kinds))
    return "\n".join([*lines, _row("all", "", total)]) + "\n"


def _row(group: str, what: str, kinds: Counter[str]) -> str:
    known = [kinds[kind] for kind in ("OK", "INFORMATIONAL", "NON-STRICT")]
    return f"| {group} | {what} | " + " | ".join(map(str, [*known, kinds.total() - sum(known)])) + " |"


@click.command()
@click.option("--suite", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--python", default="python2", show_default=True, help="A Python 2.7.")
@click.option("--cases", default="*", show_default=True, help="Such as 7.*; several with commas.")
@click.option("--page", is_flag=True, help="Write the table into docs/security.md.")
def main(suite: Path, python: str, cases: str, page: bool) -> None:
    """Run Autobahn's fuzzing client, installed in the directory --suite."""
    with tempfile.TemporaryDirectory(prefix="orderbell-autobahn-") as directory:
        results = run_suite(python, suite, cases.split(","), Path(directory))
    text = table(results)
    click.echo(text)
    if page:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}{text}{END}{after}", encoding="utf-8")
    if faults := wrong(results):
        raise click.ClickException(", ".join(f"{case}: {kind}" for case, kind in sorted(faults.items())))


if __name__ == "__main__":
    main(prog_name="python -m tests.interop.autobahn")
