"""Orders are taken back at random moments: none pops up afterwards, and all devices agree at the end."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import evaluate, pop_ups, watch
from tests.browser.services import Balancer
from tests.browser.test_shop import complete, order, sign_in
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, Page

    from tests.browser.services import Services

pytestmark = pytest.mark.browser

# Where other tests have the processor; all but one in a hundred are as quick as they must be.
_AT_MOST_MS = 5_000

# Every moment at which a toast says something of an order, by the page's clock, which is the machine's.
_DEVICE = """
    const { AlertSource, Toasts } = await import("/client/v1/orderbell.js");
    const toasts = new Toasts({ duration: 1_000 });
    const source = new AlertSource(given.gateway, { key: String(Math.random()) });
    source.addEventListener("alert", ({ detail }) => toasts.show(detail));
    window.appeared = {};
    window.opened = [];
    source.addEventListener("open", () => opened.push(Date.now()));
    const note = () => {
      for (const { textContent } of document.querySelectorAll(".orderbell-toast-text")) {
        for (const [, order] of textContent.matchAll(/Order (\\S+) is complete/g)) {
          (appeared[order] ??= []).push(Date.now());
        }
      }
    };
    const changes = new MutationObserver(note);
    changes.observe(document, { childList: true, subtree: true, characterData: true });
    window.device = source;
    await new Promise((resolve) => source.addEventListener("open", resolve, { once: true }));
"""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def device(browser: Browser, orderbell: Services, gateway: str) -> Page:
    """A browser of the customer's, with a page that shows alerts and notes when."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(orderbell.shop)
    sign_in(page, orderbell.customer)
    other = context.new_page()
    other.goto(orderbell.shop + "static/bell.svg")
    page.close()
    other.goto(orderbell.shop + "livez")
    evaluate(other, _DEVICE, {"gateway": gateway})
    return other


@pytest.mark.parametrize(
    ("seed", "orders", "within_ms"),
    [
        pytest.param(1, 40, 5_000, marks=pytest.mark.long),  # other tests have the processor meanwhile
        pytest.param(2, 1_000, 1_000, marks=[pytest.mark.long, pytest.mark.alone]),
    ],
    ids=["short", "long"],
)
def test_no_order_that_was_taken_back_pops_up_and_three_devices_agree(
    browser: Browser, orderbell: Services, stack: ExitStack, seed: int, orders: int, within_ms: int
) -> None:
    chance = random.Random(seed)
    first, second = orderbell.gateways
    network = stack.enter_context(Balancer([first.port]))  # of the device that will be away
    devices = [device(browser, orderbell, url) for url in (first.url, second.url, network.url)]
    answered: dict[str, float] = {}
    late: list[str] = []
    for n in range(orders):
        number = str(n)
        orderbell.place_and_complete(number)
        fate = chance.random()
        if fate < 0.2:
            answered[number] = retract(orderbell, number)
        elif fate < 0.35:
            late.append(number)
        if n == orders // 2:
            network.ports = []  # away, and back with both to catch up with
            network.cut()
        if late and chance.random() < 0.4:
            chosen = late.pop(chance.randrange(len(late)))
            answered[chosen] = retract(orderbell, chosen)
    for number in late:
        answered[number] = retract(orderbell, number)
    back = time.time() * 1_000
    network.ports = [first.port]
    assert len(answered) > orders / 5

    left = orders - len(answered)
    for page in devices:
        wait_until(partial(has_unread, page, left), timeout=60)
    wait_until(partial(agree, devices), timeout=60)  # what still pops up is seen only then
    assert page_of(devices[0])["unread"] == left
    assert in_database(orderbell) == left
    time.sleep(2)  # nothing may come now
    overdue: list[str] = []
    for which, page in enumerate(devices):
        appeared: dict[str, list[float]] = page.evaluate("appeared")
        opened: list[float] = page.evaluate("opened")
        if which == 2:  # while it is away it shows what it had, and it can hear of nothing before it is back
            assert opened[-1] >= back
        since = opened[-1] if which == 2 else 0
        for number, moment in answered.items():
            last = max(appeared.get(number, [0]))
            after = last - max(moment, since)
            said = f"device {which} had order {number} on its screen {after:.0f} ms later"
            assert after <= _AT_MOST_MS, said
            if after > within_ms:
                overdue.append(said)
    assert not overdue
    evaluate(devices[1], "await device.markRead()")
    for page in devices:
        wait_until(partial(has_unread, page, 0), timeout=30)
    assert in_database(orderbell) == 0
    for page in devices:
        page.context.close()


def page_of(page: Page) -> Any:
    return page.evaluate("device.list({ limit: 200 })")


def agree(devices: list[Page]) -> bool:
    first, *others = [page_of(page) for page in devices]
    return all(other == first for other in others)


def has_unread(page: Page, count: int) -> bool:
    told: int | None = page.evaluate("device.unread")
    return told == count


def retract(orderbell: Services, number: str) -> float:
    """When it was answered, in milliseconds since 1970."""
    answer = orderbell.api.post("/retractions", json={"order_id": orderbell.order_id(number)})
    assert answer.status_code == 200, answer.text
    return time.time() * 1_000


def in_database(orderbell: Services) -> Any:
    answer = orderbell.api.post("/unread", json={"channels": [f"customer:{orderbell.customer}"]})
    return answer.json()["counts"][0]["unread"]


def test_order_that_is_cancelled_before_it_is_complete_is_no_longer_in_the_kitchen(
    context: BrowserContext, orderbell: Services
) -> None:
    """Of which the customer gets no event."""
    watch(context)
    page = context.new_page()
    page.clock.install()
    page.goto(orderbell.shop)
    sign_in(page, orderbell.customer)
    soup, tea = order(page, "Tomato soup"), order(page, "Iced tea")
    orderbell.api.post(f"/orders/{soup}/cancel").raise_for_status()
    states = page.locator("#orders .state")
    expect(states).to_have_text(["In the kitchen"] * 2)
    page.clock.fast_forward("00:06")
    expect(page.locator(f'#orders li[data-order-id="{soup}"]')).to_contain_text("Cancelled")
    expect(page.locator(f'#orders li[data-order-id="{tea}"]')).to_contain_text("In the kitchen")
    assert pop_ups(page) == []


def test_order_that_the_back_office_takes_back_leaves_the_shop_and_its_count(
    context: BrowserContext, orderbell: Services
) -> None:
    watch(context)
    shop, back_office = context.new_page(), context.new_page()
    shop.goto(orderbell.shop)
    sign_in(shop, orderbell.customer)
    back_office.goto(orderbell.back_office)
    soup, tea = order(shop, "Tomato soup"), order(shop, "Iced tea")
    for number in (soup, tea):
        expect(back_office.locator(f'#open li[data-order-id="{number}"]')).to_be_visible(timeout=15_000)
        complete(back_office, number)
    expect(shop.locator("#alerts li")).to_have_count(2)
    expect(shop.locator("#unread")).to_have_text("2 unread")
    taken = back_office.locator(f'#completed li[data-order-id="{soup}"]')
    taken.get_by_role("button", name="Take back").click()
    expect(taken).to_contain_text("Cancelled")
    expect(shop.locator("#alerts li")).to_have_count(1)
    expect(shop.locator("#alerts li")).to_contain_text(f"Order {tea} is complete")
    expect(shop.locator("#unread")).to_have_text("1 unread")
    cancelled = shop.locator(f'#orders li[data-order-id="{soup}"]')
    expect(cancelled).to_contain_text("Cancelled")
    shop.get_by_role("button", name="Mark all as read").click()
    expect(shop.locator("#unread")).to_have_text("")
    shop.evaluate("localStorage.clear()")
    shop.reload()
    expect(shop.locator("#alerts li")).to_have_count(1)
    expect(shop.locator("#alerts li[data-read]")).to_have_count(1)
    expect(cancelled).to_contain_text("Cancelled")
