"""receiver/browser/ways.js in Firefox: the tests of test_ways.py whose network is worst."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser import test_ways

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.firefox import Firefox, Profile

pytestmark = [pytest.mark.firefox, pytest.mark.long]

listener, token = test_ways.listener, test_ways.token
for _name in (
    "test_websocket_that_a_middlebox_refuses_is_left_for_an_event_stream",
    "test_where_streams_are_held_up_too_it_polls",
    "test_websocket_that_is_cut_again_and_again_is_left_and_nothing_is_lost",
    "test_websocket_is_tried_again_beside_the_stream_and_taken_once_it_passes",
):
    globals()[_name] = getattr(test_ways, _name)


@pytest.fixture
def context(package_firefox: Firefox) -> Iterator[Profile]:
    """In the place of Chromium's."""
    profile = package_firefox.new_context()
    yield profile
    profile.close()
