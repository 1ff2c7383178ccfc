"""When Redis' log can be trusted."""

from __future__ import annotations

import pytest

from receiver.feeds.sources import follows
from shared.cursors import Place
from shared.redis.channel_log import LogRead
from tests.catch_up.world import entries


@pytest.mark.parametrize(
    ("head", "seqs", "believed"),
    [
        (Place(1, 42), [], True),  # nothing newer
        (Place(1, 44), [43, 44], True),
        (Place(1, 99), [43, 44], True),  # a first part
        (None, [], False),  # emptied
        (Place(1, 44), [44], False),  # trimmed: 43 is missing
        (Place(1, 45), [43, 45], False),  # a hole
        (Place(1, 45), [], False),  # the log expired before its head
        (Place(1, 40), [], False),  # a replica that lacks the tail
        (Place(2, 44), [43, 44], False),  # another epoch
    ],
)
def test_log_is_used_only_where_it_shows_that_nothing_is_missing(
    head: Place | None, seqs: list[int], believed: bool
) -> None:
    found = follows(Place(1, 42), LogRead(head, entries(seqs)))
    assert (found is not None) is believed
    if found:
        assert [entry.place.seq for entry in found.entries] == seqs
