"""Quotas: exactly as many as allowed, for each name, in bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.quota import MAX_NAMES, Pace, Quota


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


@given(st.lists(st.floats(0, 0.7), max_size=200), st.integers(1, 20), st.floats(0, 10_000))
def test_a_pace_holds_in_every_second_wherever_it_begins(
    pauses: list[float], per_second: int, start: float
) -> None:
    clock = Clock()
    clock.now = start
    pace = Pace(per_second, clock)
    taken: list[float] = []
    for pause in pauses:
        clock.now += pause
        while pace.spend() == 0:
            taken.append(clock.now)
    for at in taken:
        assert sum(at <= other < at + 0.999 for other in taken) <= per_second


@given(st.integers(1, 20), st.floats(0, 10_000))
def test_a_pace_says_when_the_next_one_is_allowed_and_allows_nearly_as_many_as_it_says(
    per_second: int, start: float
) -> None:
    clock = Clock()
    clock.now = start
    pace = Pace(per_second, clock)
    taken = 0
    while clock.now < start + 10:
        wait = pace.spend()
        assert 0 <= wait <= 1.1
        taken += not wait
        clock.now += wait + 1e-6 if wait else 0
    assert taken >= 9 * per_second
