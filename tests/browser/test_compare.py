"""The page that shows the transports side by side, in development mode."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

    from tests.browser.services import Services

pytestmark = pytest.mark.browser

WAYS = ["Polling, each second", "Long polling", "Server-Sent Events", "WebSocket", "STOMP over WebSocket"]
SCREENSHOTS = os.environ.get("ORDERBELL_TEST_COMPARE_SCREENSHOTS")


def test_each_way_knows_of_the_order_and_shows_what_it_cost(
    context: BrowserContext, orderbell: Services
) -> None:
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{orderbell.shop}development/compare")
    panes = page.locator(".pane")
    expect(panes.locator("h2")).to_have_text(WAYS)
    expect(page.locator("#customer")).not_to_have_text("…")
    page.click("#order")
    expect(page.locator("#status")).to_have_text("All have it.", timeout=15_000)
    for n in range(len(WAYS)):
        pane = panes.nth(n)
        expect(pane.locator(".delay")).to_have_text(re.compile(r"^[\d,.]+ ms$"))
        expect(pane.locator("dd").nth(2)).to_have_text(re.compile(r"^\d+ · [\d,.]+ B$"))
    counts = [int(panes.nth(n).locator("dd").first.inner_text()) for n in range(len(WAYS))]
    assert counts[2:] == [1, 1, 1]
    assert counts[0] >= 2
    page.click("#order")  # and once more
    expect(page.locator("#status")).to_have_text("All have it.", timeout=15_000)
    assert errors == []
    for width, height, scheme in ((1280, 800, "light"), (1280, 800, "dark"), (390, 844, "light")):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type] # it is one of its literals
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        if SCREENSHOTS:
            page.screenshot(path=Path(SCREENSHOTS) / f"compare-{width}-{scheme}.png", full_page=True)
