from __future__ import annotations

import pytest

from sender.portions import Limits, Portions

LIMITS = Limits(least=20, most=100, seconds=0.004, rest=2, rate=1_000, times=12)


def grown(portions: Portions) -> Portions:
    for _ in range(20):
        portions.note(portions.rows, worked=0.1, elapsed=0.2)
    return portions


def test_portions_that_are_too_few_for_the_rate_grow_up_to_the_most() -> None:
    portions = Portions(LIMITS)
    assert portions.rows == 20
    portions.note(20, worked=0.001, elapsed=0.025)  # they waited for callers: 740 rows a second
    assert portions.rows == 30
    assert grown(portions).rows == 100


def test_small_portions_that_keep_up_stay_small() -> None:
    portions = Portions(LIMITS)
    portions.note(20, worked=0.001, elapsed=0.002)
    assert portions.rows == 20


def test_slow_portion_is_halved_down_to_the_least_if_half_of_it_keeps_up() -> None:
    portions = grown(Portions(LIMITS))
    portions.note(100, worked=0.005, elapsed=0.006)
    assert portions.rows == 50
    portions.note(50, worked=0.005, elapsed=0.021)  # half of it would take 26 ms with its rest
    assert portions.rows == 50
    portions.note(50, worked=0.005, elapsed=0.006)
    portions.note(25, worked=0.005, elapsed=0.006)
    assert portions.rows == 20


def test_portion_that_is_too_small_for_the_rate_grows_though_it_is_slow() -> None:
    portions = Portions(LIMITS)
    portions.note(20, worked=0.01, elapsed=0.012)  # with its rest 32 ms: 625 rows a second
    assert portions.rows == 30


def test_small_remainder_of_a_window_says_nothing_of_larger_portions() -> None:
    portions = grown(Portions(LIMITS))
    portions.note(3, worked=0.01, elapsed=0.012)
    assert portions.rows == 100


def test_rest_is_longer_than_the_work_and_keeps_the_rate() -> None:
    portions = Portions(LIMITS)
    assert portions.note(100, worked=0.03, elapsed=0.035) == pytest.approx(0.065)  # 100 rows in 0.1 s
    assert portions.note(20, worked=0.001, elapsed=0.005) == pytest.approx(0.015)


def test_portion_that_took_long_is_made_up_for_by_shorter_rests() -> None:
    portions = Portions(LIMITS)
    assert portions.note(20, worked=0.001, elapsed=0.030) == 0.0005  # 20 ms would have been right
    assert portions.note(20, worked=0.001, elapsed=0.005) == pytest.approx(0.0045)
    assert portions.note(20, worked=0.001, elapsed=0.005) == pytest.approx(0.015)


def test_rest_is_shorter_where_the_rate_is_not_reached() -> None:
    assert Portions(LIMITS).note(20, worked=0.02, elapsed=0.025) == 0.01


def test_rate_is_a_multiple_of_what_is_recorded_and_never_below_the_least() -> None:
    portions = Portions(LIMITS)
    portions.note_recorded(10.0, 5_000)
    assert portions.rate == 1_000
    portions.note_recorded(15.0, 6_500)
    assert portions.rate == 12 * 300
    portions.note_recorded(20.0, 6_510)
    assert portions.rate == 1_000
