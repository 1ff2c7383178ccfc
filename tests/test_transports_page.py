"""docs/transports.md has every transport and every test of the suite, and all of them passed."""

from __future__ import annotations

from tests.conformance.conftest import DRIVERS
from tests.conformance.matrix import MARKS, PAGE, claim, names, page

TEXT = PAGE.read_text(encoding="utf-8")


def test_page_is_what_the_command_writes_where_all_pass() -> None:
    """After a change of tests or transports, or a failure: run `python -m tests.conformance` again."""
    passed = {(name, driver.name): ["passed"] for name in names() for driver in DRIVERS}
    assert page(passed) == TEXT  # type: ignore[arg-type] # a list of one word


def test_failure_and_a_test_that_was_not_run_show() -> None:
    name, driver = names()[0], DRIVERS[0].name
    row = f"| {claim(name)} |"
    failed = page({(name, driver): ["passed", "failed"]})
    assert f"{row} {MARKS['failed']} |" in failed
    assert f"{row}  |" in page({})
