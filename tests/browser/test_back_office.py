"""The back office page: open orders, and a button that completes each, once."""

from __future__ import annotations

import dataclasses
import re
import uuid
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import contrast_faults, sideways, violations, watch
from tests.browser.services import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import BrowserContext, Locator, Page, Route

    from tests.browser.services import Services
    from tests.processes import Processes

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def sender(module_processes: Processes) -> Iterator[Services]:
    """A sender without gateways, which completing orders does not need."""
    with running(module_processes, gateways=0) as services:
        yield services


@pytest.fixture
def orderbell(sender: Services) -> Services:
    """The file's sender, with no open order of an earlier test; each has a customer of its own."""
    for order in sender.api.get("/orders", params={"status": "open"}).raise_for_status().json()["orders"]:
        sender.api.post(f"/orders/{order['order_id']}/complete").raise_for_status()
    return dataclasses.replace(sender, customer=f"alice-{uuid.uuid4().hex[:6]}")


@pytest.fixture
def back_office(context: BrowserContext, orderbell: Services) -> Page:
    """With three open orders: 1, 2 and 3."""
    watch(context)
    for number, item in enumerate(("Flat white", "Croissant", "Tomato soup"), 1):
        orderbell.place(str(number), item=item)
    page = context.new_page()
    page.goto(orderbell.back_office)
    expect(rows(page)).to_have_count(3)
    return page


def rows(page: Page) -> Locator:
    return page.locator("#open li:not([data-done])")


def row(page: Page, order_id: str) -> Locator:
    return page.locator(f'#open li[data-order-id="{order_id}"]')


def completed(page: Page, order_id: str) -> Locator:
    return page.locator(f'#completed li[data-order-id="{order_id}"]')


def messages(orderbell: Services) -> list[str]:
    """Of all of the customer's events."""
    events = (
        orderbell.api.get(f"/channels/customer:{orderbell.customer}/events")
        .raise_for_status()
        .json()["events"]
    )
    return [event["data"]["message"] for event in events]


def test_orders_come_and_go_by_themselves_and_what_is_typed_stays(
    back_office: Page, orderbell: Services
) -> None:
    expect(back_office.locator("#open strong")).to_have_text(["Flat white", "Croissant", "Tomato soup"])
    message = back_office.get_by_label(f"Message to the customer of order {orderbell.order_id('2')}")
    message.fill("Mind the")
    orderbell.place("4", "bob")
    orderbell.complete("1")
    expect(row(back_office, orderbell.order_id("4"))).to_contain_text("bob")
    expect(row(back_office, orderbell.order_id("1"))).to_have_count(0)
    expect(completed(back_office, orderbell.order_id("1"))).to_be_visible()
    expect(message).to_be_focused()
    back_office.keyboard.type(" crumbs")
    expect(message).to_have_value("Mind the crumbs")


def test_what_is_cancelled_elsewhere_shows_as_cancelled(back_office: Page, orderbell: Services) -> None:
    """An open order, and one whose row offers to take it back."""
    orderbell.complete("1")
    taken, still_open = (orderbell.order_id(number) for number in ("1", "2"))
    expect(completed(back_office, taken).get_by_role("button", name="Take back")).to_be_visible()
    for number in (taken, still_open):
        orderbell.api.post(f"/orders/{number}/cancel").raise_for_status()
        expect(completed(back_office, number)).to_contain_text("Cancelled")
        expect(completed(back_office, number).get_by_role("button")).to_have_count(0)
    expect(row(back_office, still_open)).to_have_count(0)
    expect(rows(back_office)).to_have_count(1)


def test_an_alert_that_was_taken_back_without_its_order_can_not_be_taken_back_again(
    back_office: Page, orderbell: Services
) -> None:
    """By the API; also one that was sent again, so that the retraction is that of its replacement."""
    for number in ("1", "2", "3"):
        orderbell.complete(number)
        expect(completed(back_office, orderbell.order_id(number)).get_by_role("button")).to_be_visible()
    orderbell.resend("2")
    for number in ("1", "2"):
        answer = orderbell.api.post("/retractions", json={"order_id": orderbell.order_id(number)})
        answer.raise_for_status()
        expect(completed(back_office, orderbell.order_id(number))).to_contain_text("Alert taken back")
        expect(completed(back_office, orderbell.order_id(number)).get_by_role("button")).to_have_count(0)
    expect(completed(back_office, orderbell.order_id("3")).get_by_role("button")).to_be_visible()
    back_office.reload()
    expect(completed(back_office, orderbell.order_id("1"))).to_contain_text("Alert taken back")


def test_an_open_order_is_cancelled_by_keyboard_in_two_steps(back_office: Page, orderbell: Services) -> None:
    number = orderbell.order_id("2")
    cancel = back_office.get_by_role("button", name=f"Cancel order {number}")
    expect(cancel).to_have_count(0)
    row(back_office, number).locator("summary").focus()
    back_office.keyboard.press("Enter")
    expect(cancel).to_be_visible()
    back_office.keyboard.press("Tab")
    expect(cancel).to_be_focused()
    back_office.keyboard.press("Enter")
    expect(completed(back_office, number)).to_contain_text("Cancelled")
    expect(row(back_office, number)).to_have_count(0)
    (order,) = orderbell.api.get("/orders", params={"status": "cancelled", "limit": 1}).json()["orders"]
    assert order["order_id"] == number
    assert orderbell.api.post(f"/orders/{number}/complete").status_code == 409
    assert messages(orderbell) == []


def test_orders_come_by_one_connection_and_no_list_is_asked_for_again(
    context: BrowserContext, orderbell: Services
) -> None:
    page = context.new_page()
    paths: list[str] = []
    page.on("request", lambda request: paths.append(request.url.removeprefix(orderbell.back_office)))
    page.goto(orderbell.back_office)
    for number in ("1", "2", "3"):
        orderbell.place(number)
        expect(row(page, orderbell.order_id(number))).to_be_visible()
        orderbell.complete(number)
        expect(completed(page, orderbell.order_id(number))).to_be_visible()
    assert [path for path in paths if path.startswith("orders")] == ["orders/changes"]


def test_id_that_turns_the_text_around_turns_no_text_but_its_own(
    back_office: Page, orderbell: Services
) -> None:
    orderbell.place("10\u202e42")
    message = back_office.locator("#open li [placeholder*='\u2068']")
    expect(message).to_have_attribute("placeholder", re.compile("^Order \u2068[^\u202e]+\u2069 is complete$"))


def test_the_list_is_worked_through_by_keyboard(back_office: Page, orderbell: Services) -> None:
    back_office.get_by_label(f"Message to the customer of order {orderbell.order_id('1')}").focus()
    back_office.keyboard.type("One")
    back_office.keyboard.press("Enter")
    expect(completed(back_office, orderbell.order_id("1"))).to_be_visible()
    expect(row(back_office, orderbell.order_id("1"))).to_have_count(0)
    back_office.get_by_role("button", name=f"Complete order {orderbell.order_id('2')}").focus()
    back_office.keyboard.press("Enter")
    expect(row(back_office, orderbell.order_id("2"))).to_have_count(0)
    expect(
        back_office.get_by_role("button", name=f"Complete order {orderbell.order_id('3')}")
    ).to_be_focused()
    assert messages(orderbell) == ["One", "Order 2 is complete"]


def test_an_order_without_an_item_has_its_number_once(back_office: Page, orderbell: Services) -> None:
    number = orderbell.order_id("bare")
    orderbell.place("bare")
    expect(row(back_office, number)).to_be_visible()
    assert row(back_office, number).inner_text().count(number) == 1
    orderbell.complete("bare")
    expect(completed(back_office, number)).to_be_visible()
    assert completed(back_office, number).inner_text().count(number) == 1


def test_nothing_to_do_is_said_when_the_last_row_has_gone_and_not_beside_it(
    back_office: Page, orderbell: Services
) -> None:
    back_office.evaluate(
        """() => {
          window.both = false;
          const look = () => {
            const rows = document.querySelectorAll("#open li").length;
            both ||= rows > 0 && document.querySelector("#open-empty").checkVisibility();
            requestAnimationFrame(look);
          };
          look();
        }"""
    )
    while rows(back_office).count():
        # Not one that is being completed: it goes while a click waits for it, and no other may follow it.
        free = rows(back_office).locator("button:not([aria-disabled='true'])")
        if free.count():
            free.first.click()
        back_office.wait_for_timeout(100)
    if not any_open(orderbell):
        expect(back_office.locator("#open-empty")).to_be_visible()
    assert back_office.evaluate("both") is False


def any_open(orderbell: Services) -> bool:
    """Other tests' orders may be there."""
    return bool(orderbell.api.get("/orders?status=open").json()["orders"])


def test_a_double_click_completes_one_order(back_office: Page, orderbell: Services) -> None:
    back_office.get_by_role("button", name=f"Complete order {orderbell.order_id('1')}").dblclick()
    expect(completed(back_office, orderbell.order_id("1"))).to_be_visible()
    expect(row(back_office, orderbell.order_id("1"))).to_have_count(0)
    assert messages(orderbell) == ["Order 1 is complete"]
    expect(rows(back_office)).to_have_count(2)


def test_a_lost_answer_is_asked_for_again_and_nothing_is_completed_twice(
    back_office: Page, orderbell: Services
) -> None:
    keys: list[str | None] = []

    def lose_two_answers(route: Route) -> None:
        keys.append(route.request.header_value("idempotency-key"))
        if len(keys) <= 2:
            route.fetch()  # the sender has done it, but the page gets no answer
            route.abort("connectionreset")
        else:
            route.continue_()

    back_office.route("**/complete", lose_two_answers)
    row(back_office, orderbell.order_id("1")).get_by_role("textbox").fill("Once")
    row(back_office, orderbell.order_id("1")).get_by_role("button").click()
    expect(completed(back_office, orderbell.order_id("1"))).to_be_visible(timeout=10_000)
    expect(row(back_office, orderbell.order_id("1"))).to_have_count(0, timeout=10_000)
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert keys[0]
    assert messages(orderbell) == ["Once"]


def test_while_the_sender_is_away_it_says_so_and_goes_on_by_itself(
    back_office: Page, orderbell: Services
) -> None:
    orderbell.sender.kill()
    expect(back_office.locator("#connection")).to_have_text("No answer; trying again")
    row(back_office, orderbell.order_id("1")).get_by_role("button").click()
    expect(row(back_office, orderbell.order_id("1"))).to_contain_text("No answer; trying again")
    orderbell.sender.start()
    expect(completed(back_office, orderbell.order_id("1"))).to_be_visible(timeout=15_000)
    expect(back_office.locator("#connection")).to_have_text("Up to date")
    assert messages(orderbell) == ["Order 1 is complete"]


def test_what_customers_order_is_text(back_office: Page, orderbell: Services) -> None:
    attack = "<img src=x onerror=\"document.title='hit'\">"
    orderbell.place("666", item=attack)
    expect(row(back_office, orderbell.order_id("666"))).to_contain_text(attack)
    row(back_office, orderbell.order_id("666")).get_by_role("button").click()
    expect(completed(back_office, orderbell.order_id("666"))).to_contain_text(attack)
    assert back_office.title() == "Orderbell back office"
    assert violations(back_office) == []


def test_without_development_mode_it_asks_for_the_key(context: BrowserContext, processes: Processes) -> None:
    with running(processes, development=False, gateways=0) as orderbell:
        orderbell.place("1")
        page = context.new_page()
        page.goto(orderbell.back_office)
        key = page.get_by_label("API key")
        key.fill("not the key at all")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert").first).not_to_be_empty()
        key.fill(processes.api_key)
        page.keyboard.press("Enter")
        expect(rows(page)).to_have_count(1)
        page.reload()
        expect(rows(page)).to_have_count(1)
        page.get_by_role("button", name="Forget the API key").click()
        expect(key).to_be_focused()
        page.reload()
        expect(key).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_it_on_any_screen(back_office: Page, orderbell: Services, scheme: str) -> None:
    back_office.emulate_media(color_scheme=scheme)  # type: ignore[arg-type] # a Literal, parametrised
    row(back_office, orderbell.order_id("1")).get_by_role("button").click()
    expect(completed(back_office, orderbell.order_id("1"))).to_be_visible()
    expect(row(back_office, orderbell.order_id("1"))).to_have_count(0)
    assert contrast_faults(back_office) == []
    for width in (320, 390, 768, 1280):
        back_office.set_viewport_size({"width": width, "height": 800})
        assert sideways(back_office) == 0, width
