"""Quotas: exactly as many as allowed, for each name, in bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.quota import MAX_NAMES, Quota


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_so_many_at_once_and_then_one_after_the_other() -> None:
    clock = Clock()
    quota = Quota(6, clock)
    assert [quota.spend("alice") for _ in range(6)] == [0] * 6
    assert quota.spend("alice") == 10
    assert quota.spend("bob") == 0  # each has their own
    clock.now = 4
    assert quota.spend("alice") == 6
    clock.now = 10.001
    assert quota.spend("alice") == 0
    assert quota.spend("alice") > 9


@given(st.lists(st.floats(0, 30), max_size=200), st.integers(1, 100))
def test_never_more_than_it_says(pauses: list[float], per_minute: int) -> None:
    clock = Clock()
    quota = Quota(per_minute, clock)
    taken = 0
    for pause in pauses:
        clock.now += pause
        taken += quota.spend("alice") == 0
        assert taken <= per_minute + clock.now * per_minute / 60 + 1e-6


def test_names_without_end_take_no_memory_without_end() -> None:
    quota = Quota(1)
    for n in range(MAX_NAMES + 100):
        assert quota.spend(f"customer-{n}") == 0
    assert len(quota._left) == MAX_NAMES
