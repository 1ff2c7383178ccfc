"""The plan of faults: what a seed says, and nothing that can't be."""

from __future__ import annotations

import pytest

from tests.chaos.nemesis import EDGES, KINDS, TOXICS, plan


def test_same_seed_is_the_same_plan_and_another_is_another() -> None:
    assert plan(7, 600) == plan(7, 600)
    assert plan(7, 600) != plan(8, 600)


@pytest.mark.parametrize("seed", range(20))
def test_two_faults_that_touch_the_same_do_not_come_together(seed: int) -> None:
    planned = plan(seed, 600, database="postgres")
    for number, one in enumerate(planned):
        for other in planned[number + 1 :]:
            if other.at < one.at + one.seconds:
                assert KINDS[one.kind].touches != KINDS[other.kind].touches


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
@pytest.mark.parametrize("seed", range(5))
def test_ten_minutes_have_every_kind_that_the_database_allows_and_each_toxic_and_each_edge(
    database: str, seed: int
) -> None:
    planned = {planned.kind for planned in plan(seed, 600, database=database)}
    possible = {kind.name for kind in KINDS.values() if kind.database in ("", database)}
    of_edges = {f"{edge} {toxic}" for edge in EDGES for toxic in TOXICS}
    assert possible - of_edges <= planned <= possible
    for toxic in TOXICS:
        assert any(kind.endswith(f" {toxic}") for kind in planned & of_edges)
    for edge, of in EDGES.items():
        if of.database in ("", database):
            assert any(kind.startswith(f"{edge} ") for kind in planned & of_edges)


def test_some_seed_has_each_toxic_on_each_edge() -> None:
    planned = {planned.kind for seed in range(20) for planned in plan(seed, 600, database="postgres")}
    assert planned == KINDS.keys()
