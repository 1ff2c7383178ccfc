"""Which gateways have asked a sender lately."""

from __future__ import annotations

from sender.roll import LATELY_SECONDS, Caller, Roll


def test_gateway_is_known_until_it_has_not_asked_for_a_while() -> None:
    now = 0.0
    roll = Roll(lambda: now)
    roll.note("b:8091", pulls=False)
    roll.note("a:8091/2", pulls=True)
    assert roll.lately() == [Caller("a:8091/2", True), Caller("b:8091", False)]
    now = LATELY_SECONDS
    roll.note("b:8091", pulls=True)
    now += 1
    assert roll.lately() == [Caller("b:8091", True)]


def test_names_come_quoted_and_what_is_none_is_passed_over() -> None:
    roll = Roll(lambda: 0.0)
    roll.note("g%C3%BC:8091", pulls=False)
    for other in ("", "two words", "x" * 201, "line\nline"):
        roll.note(other, pulls=False)
    assert [one.name for one in roll.lately()] == ["gü:8091"]


def test_no_more_are_kept_than_a_thousand() -> None:
    roll = Roll(lambda: 0.0)
    for number in range(1_001):
        roll.note(f"g{number}", pulls=False)
    assert len(roll.lately()) == 1_000
    assert Caller("g0", False) not in roll.lately()
