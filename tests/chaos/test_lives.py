"""The checker's part for what became of alerts, on small ledgers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.events import EXPIRED, READ, RETRACTED
from tests.chaos import ledger
from tests.chaos.ledger import Change, Expiring, Heard, Listed, PopUp, Reset, Screen, StoredChange
from tests.chaos.test_checker import OF_ALICE, posted, shown, stored, verdict

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.ledger import Entry

CHANNEL = "customer:alice"
STATES = {"1": "retracted", "2": "expired", "3": "read", "4": "unseen"}


def heard(seq: int, kind: str, device: str = "alice/1", *, at: float = 12, orders: str = "") -> Heard:
    return Heard(at, device, CHANNEL, 1, seq, kind, orders.split())


def listed(
    states: dict[str, str] = STATES,
    *,
    at: float = 30,
    unread: int = 1,
    server: str = "sender",
    final: bool = True,
    whole: bool = True,
) -> Listed:
    return Listed(at, CHANNEL, server, "1.7", unread, states, whole, final)


def screens(states: dict[str, str] | None = None, *, unread: int | None = 1) -> list[Entry]:
    right = {order: "unread" if state == "unseen" else state for order, state in STATES.items()}
    return [Screen(device, unread, {**right, **(states or {})}) for device in OF_ALICE]


def changes() -> list[Entry]:
    kinds = ((5, RETRACTED, "1"), (6, READ, ""), (7, EXPIRED, ""))
    recorded: list[Entry] = [StoredChange(CHANNEL, 1, seq, kind) for seq, kind, _ in kinds]
    return recorded + [
        heard(seq, kind, device, orders=orders) for device in OF_ALICE for seq, kind, orders in kinds
    ]


def good() -> list[Entry]:
    """Four orders of Alice, on both of her devices: one taken back, one expired, one read."""
    entries: list[Entry] = []
    for seq in range(1, 5):
        entries += [*posted(str(seq)), stored(str(seq), seq)]
        for device in OF_ALICE:
            entries += [shown(str(seq), seq, device), PopUp(10.4, device, str(seq))]
    entries += [
        Change(11, "1", "retract", "invoke"),
        Change(11.1, "1", "retract", "ok"),
        Change(11, "3", "read", "ok"),
        Expiring("2", 13.0),
    ]
    return [*entries, *changes()]


def test_life_that_everybody_agrees_on_is_kept() -> None:
    found = verdict(good(), screens(), listed(), listed(server="gateway"))
    assert (found.kept, found.examples) == (True, [])
    assert (found.retracted, found.expired, found.read, found.popped_up, found.lists) == (1, 1, 1, 8, 2)


def test_change_that_a_device_did_not_hear_of_is_lost() -> None:
    entries = [entry for entry in good() if entry != heard(6, READ, "alice/2")]
    assert verdict(entries, screens(), listed()).lost == 1


def test_change_that_a_reset_covers_is_not_lost_in_silence() -> None:
    entries = [entry for entry in good() if entry != heard(6, READ, "alice/2")]
    found = verdict(entries, Reset(20, "alice/2", "pruned", "1.6"), allowed="pruned")
    assert (found.lost, found.excused) == (0, 1)


def test_change_that_comes_again_is_twice_and_before_an_earlier_one_is_out_of_order() -> None:
    assert verdict(good(), heard(7, EXPIRED)).twice == 1
    entries = good()
    entries.remove(heard(6, READ))
    assert verdict(entries, heard(6, READ)).out_of_order == 1


def test_alert_that_pops_up_after_it_was_taken_back_or_expired_has_reappeared() -> None:
    assert verdict(good(), PopUp(12.5, "alice/1", "1")).reappeared == 1
    assert verdict(good(), PopUp(12.5, "alice/1", "2")).reappeared == 0
    assert verdict(good(), PopUp(13.5, "alice/1", "2")).reappeared == 1


def test_alert_may_pop_up_on_a_device_that_has_not_heard_of_its_retraction() -> None:
    assert verdict(heard(5, RETRACTED, "alice/2", orders="1"), PopUp(12.5, "alice/1", "1")).reappeared == 0


@pytest.mark.parametrize(("order", "state"), [("1", "unread"), ("1", "read"), ("2", "unread"), ("2", "read")])
def test_what_is_over_and_still_on_a_device_is_left_standing(order: str, state: str) -> None:
    found = verdict(good(), screens({order: state}), listed())
    assert (found.left_standing, found.disagreeing, found.kept) == (2, 0, False)


@pytest.mark.parametrize(("order", "state"), [("3", "unread"), ("4", "read"), ("4", "retracted")])
def test_device_that_has_another_state_than_the_database_disagrees(order: str, state: str) -> None:
    found = verdict(good(), screens({order: state}), listed())
    assert (found.left_standing, found.disagreeing, found.kept) == (0, 2, False)


@pytest.mark.parametrize("unread", [0, 2, None])
def test_device_that_counts_otherwise_than_the_database_disagrees(unread: int | None) -> None:
    assert verdict(good(), screens(unread=unread), listed()).disagreeing == 2


def test_gateway_that_lists_otherwise_than_the_database_disagrees() -> None:
    other = listed({**STATES, "3": "seen"}, unread=2, server="gateway")
    found = verdict(good(), screens(), listed(), other)
    assert (found.disagreeing, found.miscounted) == (1, 0)


@pytest.mark.parametrize(
    ("order", "state"), [("1", "read"), ("1", "unseen"), ("3", "seen"), ("3", "expired")]
)
def test_change_that_was_answered_and_is_not_in_the_database_is_undone(order: str, state: str) -> None:
    assert verdict(good(), listed({**STATES, order: state})).undone == 1


def test_alert_that_was_read_and_then_taken_back_is_not_undone() -> None:
    assert verdict(good(), listed({**STATES, "3": "retracted"})).undone == 0


def test_change_that_is_refused_is_undone() -> None:
    assert verdict(good(), listed(), Change(12, "4", "read", "refused")).undone == 1


@pytest.mark.parametrize(
    ("state", "back"),
    [("unseen", 0), ("seen", 0), ("read", 0), ("expired", 1), ("retracted", 1)],
)
def test_state_that_an_earlier_one_follows_went_back(state: str, back: int) -> None:
    before = listed({"3": state}, at=20, unread=state in ("unseen", "seen"), final=False)
    assert verdict(good(), before, listed()).went_back == back


def test_list_whose_count_is_not_its_unread_alerts_is_miscounted() -> None:
    assert verdict(good(), listed(unread=2)).miscounted == 1
    assert verdict(good(), listed(unread=2, whole=False)).miscounted == 0
    assert verdict(good(), listed(), listed(unread=0, server="gateway")).miscounted == 1


def test_ledger_gives_back_what_became_of_alerts(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    entries = [*good(), *screens(), listed()]
    with ledger.LedgerWriter(path) as writer:
        for entry in entries:
            writer.write(entry)
    assert list(ledger.read([path])) == entries
