"""The targets of `make fuzz` accept their seeds, and detect the faults that they are for."""

from __future__ import annotations

import pytest

from shared.process.framing import Chunked
from tests.fuzz import targets
from tests.fuzz.targets import SEEDS, TARGETS


def test_every_target_has_something_to_begin_with() -> None:
    assert SEEDS.keys() == TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_target_takes_its_seeds_and_pieces_of_them(name: str) -> None:
    for seed in SEEDS[name]:
        for size in range(0, len(seed) + 1, 1 + len(seed) // 50):
            TARGETS[name](seed[:size])
            TARGETS[name](seed[size:])
            TARGETS[name](seed[:size] + b"\xff" + seed[size:])


def test_body_that_means_something_else_in_pieces_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(Chunked):
        def take(self, data: bytes) -> int:
            self._line = b""  # of the piece before
            return super().take(data)

    monkeypatch.setattr(targets, "Chunked", Forgetful)
    with pytest.raises(AssertionError):
        targets.body(SEEDS["body"][0])
