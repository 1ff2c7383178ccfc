"""The client's tests in Firefox: the same functions as in Chromium, and a page of Firefox's.

Tests that need Playwright itself (its clock, its locators, its console) stay in Chromium; what a person
meets there is in test_firefox.py once more.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

from tests import firefox
from tests.browser import (
    test_cursors,
    test_extents,
    test_offers,
    test_orderbell,
    test_returning,
    test_shown,
)
from tests.browser.conftest import ORIGIN, open_client, serving_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.firefox import Firefox, Page, Profile

pytestmark = [pytest.mark.firefox, pytest.mark.long]

OF_CHROMIUM = {
    "test_a_listener_that_throws_has_shown_nothing_and_ends_nothing",  # hears a page's errors
    "test_a_token_that_is_no_object_is_said_and_asked_for_again",  # hears the console
    "test_a_frame_that_nobody_can_see_leaves_its_alerts_to_others",  # waits by Playwright's time
    "test_a_tab_that_dies_before_it_was_seen_leaves_it_to_others",  # kills the page's process
    "test_what_the_page_says_of_its_base_is_for_its_links",  # names the origin; test_firefox.py has it
    "test_the_pages_here_are_not_secure",  # here they are: 127.0.0.1
}

tabs = test_shown.tabs
for _module in (test_cursors, test_extents, test_offers, test_orderbell, test_returning, test_shown):
    for _name, _test in vars(_module).items():
        if _name.startswith("test_") and inspect.isfunction(_test) and _name not in OF_CHROMIUM:
            globals()[_name] = _test


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """The client and `world.js` under one origin, as `client_context` has it."""
    with serving_client() as port:
        yield f"http://127.0.0.1:{port}"


class ClientProfile:
    """A profile whose pages at `ORIGIN` are those of the origin that is served."""

    def __init__(self, profile: Profile, origin: str) -> None:
        self._profile = profile
        self._origin = origin

    def new_page(self) -> Page:
        page = self._profile.new_page("window")  # timers of hidden tabs run once a second
        go = page.goto
        page.goto = lambda url: go(url.replace(ORIGIN, self._origin))  # type: ignore[method-assign]
        return page


@pytest.fixture
def client_context(package_firefox: Firefox, origin: str) -> Iterator[ClientProfile]:
    profile = package_firefox.new_context()
    yield ClientProfile(profile, origin)
    profile.close()


@pytest.fixture(scope="module")
def page(package_firefox: Firefox, origin: str) -> Iterator[Page]:
    profile = package_firefox.new_context()
    yield open_client(ClientProfile(profile, origin))  # type: ignore[arg-type, misc] # it has what these tests use
    profile.close()


def test_this_is_firefox(page: Page) -> None:
    assert "Firefox/" in page.evaluate("navigator.userAgent")
    assert firefox.choose() is not None
