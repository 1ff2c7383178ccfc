"""receiver/browser/toast.js: pop-ups that nobody is held up by, whatever they see with and steer by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import ORIGIN, evaluate, open_client

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page

pytestmark = pytest.mark.browser

MAKE = """
    const { Toasts } = await import("/client/v1/orderbell.js");
    const style = { rel: "stylesheet", href: "/client/v1/toast.css" };
    document.head.append(Object.assign(document.createElement("link"), style));
    window.toasts = new Toasts({ summary: (count) => `${count} orders are complete`, ...given });
"""


@pytest.fixture
def page(client_context: BrowserContext) -> Page:
    """One for each test: their clocks are stopped."""
    return open_client(client_context)


@pytest.fixture
def toasts(page: Page) -> Locator:
    """The pop-ups of a page whose clock stands still, with a button that has the focus."""
    page.clock.install(time=0)
    page.goto(f"{ORIGIN}/")
    page.clock.pause_at(60_000)
    evaluate(page, MAKE)
    evaluate(
        page,
        "document.body.prepend(document.createElement('button')); document.querySelector('button').focus()",
    )
    return page.locator(".orderbell-toast")


def show(page: Page, *texts: str, title: str = "") -> None:
    evaluate(
        page, "for (const text of given.texts) toasts.show(text, given)", {"texts": texts, "title": title}
    )


def test_the_live_region_is_there_before_anything_is_said(page: Page, toasts: Locator) -> None:
    announcer = page.locator("[role=status]")
    expect(announcer).to_have_text("")
    show(page, "Order 1042 is complete", title="Flat white")
    page.clock.run_for(200)
    expect(announcer).to_have_text("Order 1042 is complete")
    expect(announcer.locator("button")).to_have_count(0)
    region = page.get_by_role("region", name="Notifications")
    expect(region.locator(".orderbell-toast")).to_have_count(1)
    assert region.evaluate("(region) => region.matches(':popover-open')")


def test_the_focus_is_never_taken(page: Page, toasts: Locator) -> None:
    show(page, "Order 1042 is complete")
    expect(toasts).to_have_count(1)
    assert page.evaluate("document.activeElement.className") == ""


def test_text_is_text(page: Page, toasts: Locator) -> None:
    attack = "<img src=x onerror=\"document.title='hit'\"><b>bold</b>"
    show(page, attack, title=attack)
    expect(toasts.locator(".orderbell-toast-text")).to_have_text(attack)
    expect(toasts.locator(".orderbell-toast-title")).to_have_text(attack)
    expect(toasts.locator("img, b")).to_have_count(0)
    assert page.title() == "Client"


def test_it_goes_after_six_seconds_or_as_long_as_it_takes_to_read(page: Page, toasts: Locator) -> None:
    show(page, "short", "x" * 200)
    page.clock.run_for(5_900)
    expect(toasts).to_have_count(2)
    page.clock.run_for(200)
    expect(toasts).to_have_count(1)
    page.clock.run_for(5_700)
    expect(toasts).to_have_count(1)
    page.clock.run_for(300)
    expect(toasts).to_have_count(0)


def test_it_stays_while_it_is_pointed_at(page: Page, toasts: Locator) -> None:
    show(page, "Order 1042 is complete")
    toasts.hover()
    page.clock.run_for(60_000)
    expect(toasts).to_have_count(1)
    page.mouse.move(0, 0)
    page.clock.run_for(6_000)
    expect(toasts).to_have_count(0)


def test_it_stays_while_the_page_is_hidden(page: Page, toasts: Locator) -> None:
    look = "Object.defineProperty(document, 'hidden', { value: given, configurable: true });"
    event = "document.dispatchEvent(new Event('visibilitychange'))"
    evaluate(page, look + event, True)
    show(page, "Order 1042 is complete")
    page.clock.run_for(60_000)
    expect(toasts).to_have_count(1)
    evaluate(page, look + event, False)
    page.clock.run_for(6_000)
    expect(toasts).to_have_count(0)


@pytest.mark.parametrize("key", ["Escape", "Enter", "Space"])
def test_it_is_closed_by_keyboard_and_gives_the_focus_back(page: Page, toasts: Locator, key: str) -> None:
    show(page, "Order 1042 is complete", title="Flat white")
    page.keyboard.press("F6")
    close = page.get_by_role("button", name="Close: Flat white")
    expect(close).to_be_focused()
    page.clock.run_for(60_000)  # nobody is hurried who has the focus in it
    expect(toasts).to_have_count(1)
    page.keyboard.press(key)
    expect(toasts).to_have_count(0)
    assert page.evaluate("document.activeElement === document.querySelector('button')")


def test_tab_reaches_it_and_the_next_one_gets_the_focus_when_it_is_closed(
    page: Page, toasts: Locator
) -> None:
    show(page, "one", "two")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Close: one")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Close: two")).to_be_focused()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement === document.querySelector('button')")


def test_escape_elsewhere_is_the_pages_own(page: Page, toasts: Locator) -> None:
    show(page, "Order 1042 is complete")
    page.keyboard.press("Escape")
    expect(toasts).to_have_count(1)


def test_the_close_button_is_large_enough_to_hit(page: Page, toasts: Locator) -> None:
    show(page, "Order 1042 is complete")
    box = page.get_by_role("button", name="Close").bounding_box()
    assert box is not None
    assert min(box["width"], box["height"]) >= 24


def test_more_than_three_at_once_become_one(page: Page, toasts: Locator) -> None:
    show(page, *(f"Order {n}" for n in range(1, 6)))
    expect(toasts).to_have_count(1)
    expect(toasts.locator(".orderbell-toast-title")).to_have_text("5 orders are complete")
    expect(toasts.locator(".orderbell-toast-text")).to_have_text(["Order 5", "Order 4", "Order 3", "…"])
    page.clock.run_for(200)
    expect(page.locator("[role=status]")).to_have_text("5 orders are complete")


def test_at_most_three_are_visible_and_the_others_wait(page: Page, toasts: Locator) -> None:
    for n in range(1, 6):
        show(page, f"Order {n}")
        page.clock.run_for(1_100)
    expect(toasts).to_have_count(3)
    toasts.first.get_by_role("button").click()
    page.mouse.move(0, 0)
    expect(toasts).to_have_count(3)
    expect(toasts.last).to_contain_text("2 orders are complete")


def test_one_may_stay_until_it_is_closed(page: Page, toasts: Locator) -> None:
    evaluate(page, MAKE, {"duration": 0})
    show(page, "Order 1042 is complete")
    page.clock.run_for(3_600_000)
    expect(toasts).to_have_count(1)


def test_it_lies_above_whatever_the_page_has(page: Page, toasts: Locator) -> None:
    on_top = evaluate(
        page,
        """
        const cover = document.createElement("div");
        cover.style.cssText = "position: fixed; inset: 0; z-index: 2147483647; background: white";
        document.body.append(cover);
        toasts.show("Order 1042 is complete");
        const toast = document.querySelector(".orderbell-toast");
        const { x, y, width, height } = toast.getBoundingClientRect();
        return toast.contains(document.elementFromPoint(x + width / 2, y + height / 2));
        """,
    )
    assert on_top


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_nothing_moves_for_those_who_asked_for_that(page: Page, toasts: Locator, motion: str) -> None:
    page.emulate_media(reduced_motion=motion)  # type: ignore[arg-type] # a Literal, parametrised
    show(page, "Order 1042 is complete")
    animation = toasts.evaluate("(toast) => getComputedStyle(toast).animationName")
    assert (animation == "none") is (motion == "reduce")
