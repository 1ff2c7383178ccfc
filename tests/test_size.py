"""`orderbell size`: what it computes follows from the figures that the pages state."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from shared.commands.cli import main
from shared.commands.size import Load, need

DOCS = Path(__file__).parent.parent / "docs"
USUAL = Load(
    customers=1_000_000, events_a_day=1, connected=0.05, peak=5, history_days=7, max_connections=10_000
)


@pytest.mark.parametrize("customers", [10_000, 1_000_000, 100_000_000])
def test_the_table_in_the_docs_is_what_the_command_computes(customers: int) -> None:
    found = need(dataclasses.replace(USUAL, customers=customers))
    page = (DOCS / "operations.md").read_text(encoding="utf-8")
    [row] = [line for line in page.splitlines() if line.startswith(f"| {customers:,} |")]
    _, _, rate, gateways, redis, rows, database, _ = [cell.strip() for cell in row.split("|")]
    redis_mib = float(re.split(" ", redis)[0]) * (1024 if "GiB" in redis else 1)
    assert float(rate.replace(",", "")) == pytest.approx(found.events_per_second, rel=0.05)
    assert int(gateways) == found.gateways
    assert redis_mib == pytest.approx(found.redis_mib, rel=0.05)
    assert int(rows.replace(",", "")) == found.rows
    assert float(database.split()[0]) == pytest.approx(found.database_gib, rel=0.2)


def test_a_lost_gateway_leaves_room_for_all_connections() -> None:
    for customers in (1, 1_000, 300_000, 5_000_000):
        found = need(dataclasses.replace(USUAL, customers=customers))
        assert (found.gateways - 1) * USUAL.max_connections >= found.connections


def test_more_of_anything_never_needs_less() -> None:
    before = need(USUAL)
    for more in (
        {"customers": 2_000_000},
        {"events_a_day": 3.0},
        {"connected": 0.5},
        {"peak": 50.0},
        {"history_days": 30.0},
    ):
        after = need(dataclasses.replace(USUAL, **more))
        assert all(
            now >= then
            for now, then in zip(dataclasses.astuple(after), dataclasses.astuple(before), strict=True)
        ), more


@pytest.mark.parametrize("wrong", [["--customers", "0"], ["--connected", "2"], ["--events-a-day", "0"]])
def test_what_cannot_be_is_refused(wrong: list[str]) -> None:
    assert CliRunner().invoke(main, ["size", *wrong]).exit_code == 2


def test_it_prints_each_part() -> None:
    printed = CliRunner().invoke(main, ["size"]).output
    assert [line.split()[0] for line in printed.splitlines()] == [
        "customers",
        "events",
        "gateways",
        "senders",
        "Redis",
        "database",
    ]
