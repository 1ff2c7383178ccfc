"""Two devices of one customer with a real gateway between them: what one has seen, no other shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import evaluate
from tests.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

    from tests.browser.services import Services
    from tests.processes import Processes

pytestmark = pytest.mark.browser

# Shows each alert when the test says so: `see(2)`.
_CLIENT = """
    const { AlertSource } = await import("/client/v1/orderbell.js");
    window.offered = [];
    window.messages = 0;
    const resolves = {};
    window.see = (seq) => resolves[seq]();
    const getToken = () => ({ token: given.token });
    const alerts = new AlertSource(location.href, { key: given.customer, getToken });
    alerts.addEventListener("message", () => (messages += 1));
    alerts.addEventListener("alert", (event) => {
      offered.push(event.detail.seq);
      event.shown(new Promise((resolve) => (resolves[event.detail.seq] = resolve)));
    });
    await new Promise((resolve) => alerts.addEventListener("open", resolve, { once: true }));
"""


@pytest.fixture
def other_context(browser: Browser) -> BrowserContext:
    return browser.new_context()


def listen(context: BrowserContext, orderbell: Services, processes: Processes, url: str = "") -> Page:
    page = context.new_page()
    page.goto(url or orderbell.shop)
    given = {"customer": orderbell.customer, "token": processes.token(orderbell.customer)}
    evaluate(page, _CLIENT, given)
    return page


def offered(page: Page) -> list[int]:
    seqs: list[int] = page.evaluate("offered")
    return seqs


@pytest.mark.long
def test_a_later_alert_seen_here_pops_up_nowhere_else_and_the_earlier_one_that_waits_still_does(
    context: BrowserContext,
    other_context: BrowserContext,
    browser: Browser,
    orderbell: Services,
    module_processes: Processes,
) -> None:
    """On another device, on a new one, and here after a reload; then the earlier one ends it."""
    here = listen(context, orderbell, module_processes)
    for number in ("1", "2"):
        orderbell.place_and_complete(number)
    wait_until(lambda: offered(here) == [1, 2])
    here.evaluate("see(2)")
    seen = f"customer:{orderbell.customer}=1.0+2"
    wait_until(lambda: seen_by_the_server(orderbell) == seen)

    elsewhere = listen(other_context, orderbell, module_processes)
    wait_until(lambda: elsewhere.evaluate("messages") == 2 and offered(elsewhere) == [1])
    here.close()
    again = listen(context, orderbell, module_processes)
    orderbell.place_and_complete("3")
    # 1 may come after it: the page that was closed had claimed it.
    wait_until(lambda: sorted(offered(again)) == [1, 3])
    wait_until(lambda: offered(elsewhere) == [1, 3])

    elsewhere.evaluate("see(1)")
    wait_until(lambda: seen_by_the_server(orderbell) == f"customer:{orderbell.customer}=1.2")
    new_context = browser.new_context()
    new = listen(new_context, orderbell, module_processes)
    wait_until(lambda: offered(new) == [3])
    assert new.evaluate("messages") == 1
    for one in (other_context, new_context):
        one.close()


def seen_by_the_server(orderbell: Services) -> str:
    answer = orderbell.api.post("/history", json={"after": [f"customer:{orderbell.customer}"]})
    seen: str = answer.json()["channels"][0]["seen"]
    return seen
