"""receiver/browser/links.js: where an alert may lead, whichever caller sent it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import ORIGIN, evaluate

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

SAFE = "return (await import('/client/v1/links.js')).safe(given, ['https://shop.example'])"
ACTIONS = "return (await import('/client/v1/links.js')).actionsOf(given, ['https://shop.example'])"


@pytest.mark.parametrize(
    ("url", "href"),
    [
        ("/orders/7", f"{ORIGIN}/orders/7"),
        ("orders/7?a=b#c", f"{ORIGIN}/orders/7?a=b#c"),
        ("https://shop.example/orders/7", "https://shop.example/orders/7"),
        ("https://SHOP.example:443/", "https://shop.example/"),
        ("javascript:alert(1)", ""),
        ("JaVaScRiPt:alert(1)", ""),
        (" \tjava\nscript:alert(1)", ""),
        ("data:text/html,<script>alert(1)</script>", ""),
        ("blob:http://client.test/1", ""),
        ("vbscript:x", ""),
        ("file:///etc/passwd", ""),
        ("//evil.example/", ""),
        ("/\\evil.example/", ""),
        ("\\\\evil.example", ""),
        ("https://shop.example.evil.example/", ""),
        ("https://shop.example@evil.example/", ""),
        ("https://alice:secret@shop.example/", ""),
        ("http://shop.example/", ""),
        ("https://shop.example:8443/", ""),
        ("http://[", ""),
        ("/" + "a" * 60_000, ""),
        ("", f"{ORIGIN}/"),
        (None, ""),
        (7, ""),
        ({"href": "/"}, ""),
        (["/"], ""),
    ],
)
def test_link_leads_to_the_page_s_own_origin_or_to_one_that_it_names(page: Page, url: Any, href: str) -> None:
    assert evaluate(page, SAFE, url) == href


@pytest.mark.parametrize(
    ("actions", "labels"),
    [
        ([{"label": "Open", "url": "/7"}, {"label": "Later", "event": "later"}], ["Open", "Later"]),
        ([{"label": str(n), "event": "x"} for n in range(9)], ["0", "1"]),
        ([{"label": "Open", "url": "javascript:alert(1)"}], []),
        ([{"label": str(n), "url": url} for n, url in enumerate(["data:,x", "//evil.example", "/7"])], ["2"]),
        ([{"label": "", "url": "/7"}, {"url": "/7"}, {"label": "none"}], []),
        ([None, 7], []),
        ([[]], []),
        ({"label": "Open", "url": "/7"}, []),
        ("Open", []),
        (None, []),
        ([{"label": "x" * 60_000, "event": "y"}], ["x" * 40 + " …"]),
        ([{"label": {"a": 1}, "event": "y"}, {"label": "Open", "event": {"a": 1}}], []),
    ],
)
def test_actions_are_two_at_most_and_each_does_something(page: Page, actions: Any, labels: list[str]) -> None:
    assert [action["label"] for action in evaluate(page, ACTIONS, actions)] == labels
