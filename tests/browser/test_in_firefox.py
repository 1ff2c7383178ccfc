"""The client's tests in Firefox: the same functions as in Chromium, and a page of Firefox's.

Tests that need Playwright itself (its clock, its locators, its console) stay in Chromium; what a person
meets there is in test_firefox.py once more.
"""

from __future__ import annotations

import inspect
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
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
from tests.browser.conftest import CLIENT, ORIGIN, WORLD, open_client

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


class ClientPages(SimpleHTTPRequestHandler):
    """The client and `world.js` under one origin, as `client_context` has it."""

    protocol_version = "HTTP/1.1"

    def translate_path(self, path: str) -> str:
        path = path.partition("?")[0]
        return str(WORLD if path == "/world.js" else CLIENT / path.removeprefix("/client/v1/"))

    def do_GET(self) -> None:
        if self.path != "/":
            super().do_GET()
            return
        body = b'<!doctype html><title>Client</title><script type="module" src="/world.js"></script><body>'
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), ClientPages) as server:
        threading.Thread(target=partial(server.serve_forever, 0.05), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


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
