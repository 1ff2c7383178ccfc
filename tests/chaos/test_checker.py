"""The checker on small ledgers: each thing that can be wrong is seen, and nothing else is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos import ledger
from tests.chaos.checker import Verdict, check
from tests.chaos.ledger import End, Entry, Fault, Hello, Misplaced, Post, Reset, Show, Stored

if TYPE_CHECKING:
    from pathlib import Path

DEVICES = {"alice/1": "alice", "alice/2": "alice", "bob/1": "bob"}
OF_ALICE = ("alice/1", "alice/2")


def posted(order_id: str, customer: str = "alice", *, at: float = 10.0, ok: bool = True) -> list[Entry]:
    invoked = Post(at - 0.01, order_id, customer, "invoke")
    return [invoked, Post(at, order_id, customer, "ok")] if ok else [invoked]


def stored(order_id: str, seq: int, customer: str = "alice", *, epoch: int = 1) -> Stored:
    return Stored(f"customer:{customer}", epoch, seq, order_id)


def shown(
    order_id: str, seq: int, device: str = "alice/1", *, at: float = 10.1, epoch: int = 1, channel: str = ""
) -> Show:
    customer = device.partition("/")[0]
    return Show(at, device, customer, channel or f"customer:{customer}", epoch, seq, order_id)


def good() -> list[Entry]:
    """Two orders of Alice, on both of her devices."""
    entries = [*posted("1"), *posted("2"), stored("1", 1), stored("2", 2)]
    return [*entries, *(shown(str(seq), seq, device) for device in OF_ALICE for seq in (1, 2))]


def verdict(*entries: Entry | list[Entry], allowed: str = "") -> Verdict:
    flat = [entry for part in entries for entry in (part if isinstance(part, list) else [part])]
    return check(flat, DEVICES, allowed=frozenset(allowed.split()))


def test_kept_promise_is_kept() -> None:
    found = verdict(good())
    assert found.kept
    assert (found.answered, found.stored, found.shown, found.examples) == (2, 2, 4, [])


def test_event_that_one_device_did_not_show_is_lost() -> None:
    found = verdict([entry for entry in good() if entry != shown("2", 2, "alice/2")])
    assert (found.lost, found.kept) == (1, False)
    assert "alice/2 did not show 2" in found.examples[0]


def test_event_that_is_stored_is_owed_though_its_caller_got_no_answer() -> None:
    found = verdict(good(), posted("3", ok=False), stored("3", 3), shown("3", 3))
    assert (found.lost, found.unanswered) == (1, 1)


def test_order_that_got_no_answer_may_not_exist() -> None:
    found = verdict(good(), posted("3", ok=False))
    assert found.kept
    assert found.unanswered == 1


def test_answered_and_not_stored_is_unstored_and_lost() -> None:
    found = verdict(posted("1"))
    assert (found.unstored, found.lost) == (1, 2)


def test_event_shown_again_is_twice() -> None:
    found = verdict(good(), shown("2", 2))
    assert (found.twice, found.out_of_order, found.kept) == (1, 0, False)


def test_event_under_two_seqs_is_twice() -> None:
    assert verdict(good(), shown("2", 3)).twice == 1


def test_event_after_a_later_one_is_out_of_order() -> None:
    entries = [*posted("1"), *posted("2"), stored("1", 1), stored("2", 2)]
    for device in OF_ALICE:
        entries += [shown("2", 2, device), shown("1", 1, device)]
    found = verdict(entries)
    assert (found.out_of_order, found.twice, found.lost, found.kept) == (2, 0, 0, False)


def test_newer_epoch_is_later_though_its_seqs_are_lower() -> None:
    entries = [*posted("1"), *posted("2"), stored("2", 1, epoch=2)]
    for device in OF_ALICE:
        entries += [shown("1", 9, device), Reset(11, device, "epoch", "2.0"), shown("2", 1, device, epoch=2)]
    assert verdict(entries, allowed="epoch").kept


def test_event_of_another_customer_is_foreign() -> None:
    found = verdict(good(), shown("1", 1, "bob/1"))
    assert (found.foreign, found.kept) == (1, False)


def test_event_through_the_channel_of_another_customer_is_foreign() -> None:
    found = verdict(
        posted("1", "bob"), stored("1", 1, "bob"), shown("1", 1, "bob/1", channel="customer:alice")
    )
    assert found.foreign == 1


def test_event_that_nobody_asked_for_is_never_posted() -> None:
    found = verdict(good(), shown("made up", 3))
    assert (found.never_posted, found.kept) == (1, False)


def test_refused_order_is_reported() -> None:
    found = verdict(good(), Post(1, "3", "alice", "invoke"), Post(2, "3", "alice", "refused"))
    assert (found.refused, found.unanswered, found.kept) == (1, 0, False)


def test_what_a_reset_covers_is_not_lost_in_silence_and_what_follows_it_is() -> None:
    entries = [*posted("1"), *posted("2"), stored("1", 1), stored("2", 2), shown("1", 1), shown("2", 2)]
    found = verdict(entries, Reset(11, "alice/2", "pruned", "1.1"))
    assert (found.excused, found.lost, found.resets["pruned"]) == (1, 1, 1)


def test_hole_that_a_device_passed_over_by_itself_excuses_nothing() -> None:
    entries = good()
    entries.remove(shown("1", 1, "alice/2"))
    found = verdict(entries, Reset(11, "alice/2", "unavailable", "1.1", given_up=True))
    assert (found.lost, found.given_up, found.excused, found.resets) == (1, 1, 0, {})


def test_passing_over_a_hole_is_not_allowed_though_there_was_nothing_in_it() -> None:
    found = verdict(good(), Reset(11, "alice/2", "unavailable", "1.1", given_up=True), allowed="unavailable")
    assert (found.lost, found.given_up, found.kept) == (0, 1, False)


def test_misplaced_event_breaks_the_promise_though_it_cost_nobody_an_alert() -> None:
    found = verdict(good(), Misplaced(10, "alice/1", "1.1", "1.3"))
    assert (found.misplaced, found.lost, found.kept) == (1, 0, False)


@pytest.mark.parametrize("reason", ["epoch", "pruned", "future", "unavailable"])
def test_reset_is_kept_only_where_the_run_gives_its_reason(reason: str) -> None:
    entries = [*good(), Reset(11, "alice/1", reason, "1.2")]
    assert (verdict(entries).unexpected_resets, verdict(entries).kept) == (1, False)
    assert f"alice/1 got the reset {reason}" in verdict(entries).examples[0]
    assert verdict(entries, allowed=reason).kept


def test_answered_order_that_went_with_an_older_database_is_excused_by_the_reset_alone() -> None:
    """One of the two devices got the reset; the other waits for ever."""
    found = verdict(good(), posted("3"), Reset(11, "alice/1", "epoch", "2.0"), allowed="epoch")
    assert (found.unstored, found.excused, found.lost) == (0, 1, 1)


def test_reset_of_an_epoch_that_nobody_began_excuses_no_order_that_is_not_stored() -> None:
    found = verdict(good(), posted("3"), *(Reset(11, device, "epoch", "2.0") for device in OF_ALICE))
    assert (found.unstored, found.kept) == (1, False)


def test_device_that_left_before_the_end_owes_nothing_but_may_show_nothing_wrong() -> None:
    found = verdict(good(), shown("1", 1, "alice/gone"), shown("1", 1, "alice/gone"))
    assert (found.lost, found.twice) == (0, 1)


# --- how long it took


def late(order_id: str, seq: int, *, answered: float, at: float) -> list[Entry]:
    entries = [*posted(order_id, at=answered), stored(order_id, seq)]
    return [*entries, *(shown(order_id, seq, device, at=at) for device in OF_ALICE)]


def test_recovery_ends_with_the_last_that_was_late_because_of_the_fault() -> None:
    fault = Fault("redis killed", 100, 110)
    found = verdict(fault, late("1", 1, answered=105, at=112), late("2", 2, answered=109, at=113))
    assert found.recovered("redis killed") == (3, 3)
    (recovery,) = found.recoveries
    assert (recovery.devices, recovery.median) == (2, 3)


def test_what_is_on_time_needs_no_recovery() -> None:
    found = verdict(Fault("redis killed", 100, 110), late("1", 1, answered=105, at=105.2))
    assert found.recovered("redis killed") == (0, 0)
    assert found.late_without_fault == 0


def test_lateness_without_a_fault_is_counted_separately() -> None:
    found = verdict(Fault("redis killed", 100, 110), late("1", 1, answered=120, at=125))
    assert (found.recovered("redis killed"), found.late_without_fault) == ((0, 0), 2)


def test_one_late_thing_after_the_other_belongs_to_the_same_fault() -> None:
    chain = [late(str(n), n, answered=110 + n, at=112 + n) for n in range(1, 6)]
    found = verdict(Fault("redis killed", 100, 110), *chain)
    assert found.recovered("redis killed") == (7, 7)


def test_of_two_faults_the_one_that_ended_last_has_to_answer() -> None:
    faults = Fault("gateway frozen", 100, 104), Fault("redis killed", 102, 110)
    found = verdict(*faults, late("1", 1, answered=103, at=112))
    assert found.recovered("gateway frozen") == (0, 0)
    assert found.recovered("redis killed") == (2, 2)


def test_device_that_was_away_has_recovered_when_it_is_greeted_again() -> None:
    found = verdict(
        Fault("gateway killed", 100, 100),
        Hello(90, "alice/1", 0),
        End(100.1, "alice/1", 0, 1006),
        End(100.4, "alice/1", 1, 1006),
        Hello(101.5, "alice/1", 1),
    )
    assert found.recovered("gateway killed") == (1.5, 1.5)
    assert found.ends == {1006: 2}


def test_median_and_worst_are_of_all_faults_of_a_kind() -> None:
    entries: list[Entry] = []
    for n, seconds in enumerate((1, 2, 6), start=1):
        began = n * 100.0
        entries.append(Fault("redis killed", began, began + 10))
        entries += late(str(n), n, answered=began + 5, at=began + 10 + seconds)
    assert verdict(entries).recovered("redis killed") == (2, 6)


@pytest.mark.parametrize(("share", "seconds"), [(0.0, 1.0), (0.5, 3.0), (1.0, 5.0)])
def test_quantiles_are_of_the_time_from_answer_to_show(share: float, seconds: float) -> None:
    entries = [entry for n in range(1, 6) for entry in late(str(n), n, answered=n, at=2.0 * n)]
    assert verdict(entries).quantile(share) == pytest.approx(seconds)


def test_ledger_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    entries = [
        *good(),
        Fault("f", 1, 2, "w"),
        Hello(1, "d", 0),
        End(2, "d", 0, 1006),
        Misplaced(1, "d", "a", "b"),
    ]
    with ledger.LedgerWriter(path) as writer:
        for entry in entries:
            writer.write(entry)
    assert list(ledger.read([path])) == entries
