"""One safeguard switched off: a proof that it is needed, and that our tests see it.

In a process of its own, for runs under load:

    python -m tests.chaos.without repeat-dropping receiver --port 0

Each changes one thing of the real classes and nothing else; the services themselves have no such switch.
tests/failures/test_without.py shows what goes wrong without each. `patch` is `setattr`, or a test's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.without import crashes, receiver, sender

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.without.patches import Patch

SAFEGUARDS: dict[str, Callable[[Patch], None]] = {
    change.__name__.replace("_", "-"): change
    for change in (
        sender.gap_answer,
        sender.dup_answer,
        sender.stale_answer,
        sender.script_reload,
        sender.refill,
        sender.sweep,
        sender.tombstones,
        sender.epoch_reset,
        sender.future_reset,
        sender.pruned_reset,
        sender.database_comparison,
        sender.idempotency_keys,
        sender.channel_lock,
        sender.pruned_note,
        sender.poison_search,
        sender.rehearsal,
        sender.outbox_poll,
        sender.retraction_event,
        sender.expiry_event,
        sender.final_mark,
        sender.read_maximum,
        sender.unread_marks,
        receiver.heartbeat,
        receiver.frame_limit,
        receiver.gap_repair,
        receiver.repeat_dropping,
        receiver.position_check,
        receiver.newest_check,
        receiver.pull_mode,
        receiver.resubscription_catch_up,
        receiver.probe,
        receiver.log_check,
        receiver.place_comparison,
        receiver.slow_close,
        receiver.epoch_learning,
        receiver.heard_comparison,
        receiver.alignment,
        receiver.drain,
        receiver.sentinel_watch,
        receiver.role_check,
        receiver.slot_moves,
        crashes.crash_on_signal,
        crashes.crash_before_commit,
        crashes.crash_after_commit,
        crashes.crash_before_mark,
    )
}
