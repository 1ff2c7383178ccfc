"""A page whose process stands still, in a browser that lives on and answers pings for it."""

from __future__ import annotations

import os
import signal
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


def processes_of_pages(browser: Browser) -> set[int]:
    session = browser.new_browser_cdp_session()
    listed = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return {process["id"] for process in listed if process["type"] == "renderer"}


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
    before = processes_of_pages(browser)
    page = open_page(context, orderbell, token)
    page.evaluate(FOCUS, True)
    page.evaluate(OFFERED)
    (process,) = processes_of_pages(browser) - before
    orderbell.place_and_complete("1")
    page.wait_for_function("window.isOffered")
    os.kill(process, signal.SIGSTOP)
    try:
        if not seen_by_the_server(orderbell).endswith("=1.1"):  # else it was seen before it stood still
            wait_until(lambda: seen_by_the_server(orderbell).endswith("=1.1"), timeout=30)
            assert other.locator(".orderbell-toast-text").text_content() == TEXT
    finally:
        os.kill(process, signal.SIGCONT)
