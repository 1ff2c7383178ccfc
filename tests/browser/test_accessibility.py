"""axe-core finds nothing on the pages, in any state that they have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests import machine
from tests.browser.test_shop import sign_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from tests.browser.services import Services

pytestmark = pytest.mark.browser

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(params=["light", "dark", "forced", "phone", "rtl"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    if not AXE.is_file():
        machine.not_run("no axe-core: `npm ci` in tests/browser")
    size = {"width": 390, "height": 844} if request.param == "phone" else {"width": 1280, "height": 900}
    context = browser.new_context(
        bypass_csp=True,  # for axe itself
        viewport=size,  # type: ignore[arg-type] # a ViewportSize
        color_scheme="dark" if request.param == "dark" else "light",
        forced_colors="active" if request.param == "forced" else "none",
    )
    context.set_default_timeout(10_000)
    if request.param == "rtl":
        context.add_init_script("addEventListener('DOMContentLoaded', () => (document.dir = 'rtl'))")
    yield context.new_page()
    context.close()


def faults(page: Page) -> list[str]:
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found: list[str] = page.evaluate(
        """async () => {
          const { violations } = await axe.run();
          const faults = violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => [id, html]));
          return faults.map(([id, html]) => `${id}: ${html.slice(0, 200)}`);
        }"""
    )
    return found


def test_axe_finds_nothing_in_the_shop(page: Page, orderbell: Services) -> None:
    page.goto(orderbell.shop)
    expect(page.get_by_label("Your name")).to_be_visible()
    assert faults(page) == [], "before signing in"
    sign_in(page, orderbell.customer)
    page.get_by_role("button", name="Order: Tomato soup").click()
    orderbell.place_and_complete("1", message="Order 1 is complete")
    expect(page.locator(".orderbell-toast")).to_contain_text("Order 1")
    page.wait_for_timeout(500)  # a toast that slides in is still pale
    assert faults(page) == [], "with orders and a toast"


def test_axe_finds_nothing_in_the_back_office(page: Page, orderbell: Services) -> None:
    orderbell.place("open")
    orderbell.place_and_complete("done")
    page.goto(orderbell.back_office)
    expect(page.locator("#completed li").first).to_be_visible()
    assert faults(page) == []


def test_axe_would_find_a_fault(page: Page, orderbell: Services) -> None:
    page.goto(orderbell.shop)
    page.evaluate("document.querySelector('main').append(document.createElement('button'))")
    assert any(fault.startswith("button-name") for fault in faults(page))
