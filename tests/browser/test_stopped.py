"""A page whose process stands still, in a browser that lives on and answers pings for it."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.browser.test_devices import seen_by_the_server
from tests.browser.test_hundred_orders import CLIENT
from tests.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

    from tests.browser.services import Services
    from tests.processes import Processes

pytestmark = [pytest.mark.browser, pytest.mark.long]

# A visible page lets the one with the focus go first; both are in front without windows.
FOCUS = "(focused) => { document.hasFocus = () => focused; }"
OFFERED = "alerts.addEventListener('alert', () => (window.isOffered = true))"
TEXT = "Order 1 is complete"
RETRY_MS = 5_000  # of offers.js


def process_of(page: Page, browser: Browser) -> int:
    """The one that works when the page does: Chromium names none, and keeps spare ones."""
    session = browser.new_browser_cdp_session()

    def seconds() -> dict[int, float]:
        listed = session.send("SystemInfo.getProcessInfo")["processInfo"]
        return {one["id"]: one["cpuTime"] for one in listed if one["type"] == "renderer"}

    before = seconds()
    page.evaluate("for (const end = performance.now() + 300; performance.now() < end; );")
    after = seconds()
    session.detach()
    return max(after, key=lambda process: after[process] - before.get(process, 0))


def open_page(context: BrowserContext, orderbell: Services, token: str) -> Page:
    page = context.new_page()
    page.goto(f"{orderbell.shop}metrics")
    page.evaluate(CLIENT, {"url": orderbell.shop, "token": token})
    return page


def test_an_alert_claimed_by_a_page_whose_process_is_stopped_pops_up_in_another_tab(
    browser: Browser, context: BrowserContext, orderbell: Services, module_processes: Processes
) -> None:
    token = module_processes.token(orderbell.customer)
    other = open_page(context, orderbell, token)
    other.evaluate(FOCUS, False)
    page = open_page(context, orderbell, token)
    page.evaluate(FOCUS, True)
    page.evaluate(OFFERED)
    process = process_of(page, browser)
    orderbell.place_and_complete("1")
    page.wait_for_function("window.isOffered")
    os.kill(process, signal.SIGSTOP)
    try:
        if not seen_by_the_server(orderbell).endswith("=1.1"):  # else it was seen before it stood still
            wait_until(lambda: seen_by_the_server(orderbell).endswith("=1.1"), timeout=30)
            assert other.locator(".orderbell-toast-text").text_content() == TEXT
    finally:
        os.kill(process, signal.SIGCONT)


# The first alert stays unseen here: for good, or until it is offered once more.
NEVER = "() => { toasts.show = () => ((window.isOffered = true), new Promise(() => {})); }"
NOT_AT_FIRST = """() => {
    const show = toasts.show.bind(toasts);
    window.offered = [];
    toasts.show = (event) => (offered.push(Date.now()) > 1 ? show(event) : Promise.resolve(false));
}"""


def test_an_alert_claimed_by_a_page_whose_process_is_stopped_pops_up_on_another_device_that_is_rung(
    browser: Browser, context: BrowserContext, orderbell: Services, module_processes: Processes
) -> None:
    """Its browser answers pings for it, on its own gateway; what counts is that no page reports it seen."""
    first, second = (
        module_processes.start_receiver(sender=orderbell.sender, development="1", ring_again_seconds="1")
        for _ in range(2)
    )
    token = module_processes.token(orderbell.customer)
    page = open_page(context, replace(orderbell, gateways=[first]), token)
    page.evaluate(NEVER)
    other_context = browser.new_context()
    other = open_page(other_context, replace(orderbell, gateways=[second]), token)
    other.evaluate(NOT_AT_FIRST)
    process = process_of(page, browser)
    orderbell.place_and_complete("1")
    page.wait_for_function("window.isOffered")
    os.kill(process, signal.SIGSTOP)
    try:
        other.wait_for_function("offered.length > 1")
        tried, rung = other.evaluate("offered")
        assert rung - tried < RETRY_MS, "it came by itself"
        wait_until(lambda: seen_by_the_server(orderbell).endswith("=1.1"), timeout=30)
        assert other.locator(".orderbell-toast-text").text_content() == TEXT
    finally:
        os.kill(process, signal.SIGCONT)
        other_context.close()
