"""The back office for support: what happened to an alert, and who is connected."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import contrast_faults, sideways, violations, watch
from tests.browser.services import running
from tests.browser.test_shop import sign_in

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page

    from tests.browser.services import Services
    from tests.processes import Processes

pytestmark = pytest.mark.browser


def found(page: Page) -> Locator:
    return page.locator("#found article.found")


def search(page: Page, asked: str, kind: str = "") -> None:
    page.get_by_label("Order, event or customer").fill(asked)
    page.get_by_label("Search for").select_option(kind)
    page.get_by_role("button", name="Search").click()


def opened(context: BrowserContext, orderbell: Services, view: str) -> Page:
    page = context.new_page()
    page.goto(orderbell.back_office)
    page.get_by_role("link", name=view).click()
    return page


def test_an_alert_is_found_by_its_order_its_event_and_its_customer(
    context: BrowserContext, orderbell: Services
) -> None:
    orderbell.place_and_complete("7")
    number = orderbell.order_id("7")
    (event,) = orderbell.api.get(f"/channels/customer:{orderbell.customer}/events").json()["events"]
    page = opened(context, orderbell, "What happened")
    for asked in (number, event["id"], orderbell.customer):
        search(page, asked)
        expect(found(page)).to_have_count(1)
        expect(found(page)).to_contain_text("nobody connected")
        expect(found(page)).to_contain_text(f"customer:{orderbell.customer}=1.1")
        expect(found(page)).to_contain_text(event["id"])
        expect(found(page).locator("time").first).to_be_visible()
        expect(page.locator("#found .gateway")).to_have_count(2)
    orderbell.api.post("/retractions", json={"order_id": number}).raise_for_status()
    search(page, number, "order_id")
    expect(found(page)).to_contain_text("retracted")
    assert number not in page.url, "what is searched for is in no history and no log of addresses"


def test_what_nobody_knows_is_said_for_each_guess(context: BrowserContext, orderbell: Services) -> None:
    page = opened(context, orderbell, "What happened")
    search(page, "no-such-thing")
    expect(found(page)).to_have_count(3)
    expect(found(page).first).to_contain_text("not placed")
    search(page, "no-such-thing", "customer_id")
    expect(found(page)).to_have_count(1)


def test_what_callers_named_is_text(context: BrowserContext, orderbell: Services) -> None:
    attack = "<img src=x onerror=\"document.title='hit'\">"
    event = {
        "specversion": "1.0",
        "id": attack,
        "source": "/shop",
        "type": attack,
        "subject": attack,
    }
    posted = orderbell.api.post(
        "/events",
        json=event | {"channel": f"customer:{orderbell.customer}"},
        headers={"content-type": "application/cloudevents+json"},
    )
    assert posted.status_code == 202, posted.text
    watch(context)
    page = opened(context, orderbell, "What happened")
    page.get_by_label("Search for").select_option("event_id")
    page.get_by_label("Source of the event").fill("/shop")
    search(page, attack, "event_id")
    expect(found(page)).to_contain_text(attack)
    search(page, attack, "customer_id")
    expect(found(page)).to_contain_text(attack)
    assert page.title() == "Orderbell back office"
    assert page.locator("#found img").count() == 0
    assert violations(page) == []


@pytest.mark.long
def test_who_is_connected_is_shown_by_gateway(context: BrowserContext, orderbell: Services) -> None:
    shop = context.new_page()
    shop.goto(orderbell.shop)
    sign_in(shop, orderbell.customer)
    page = opened(context, orderbell, "Connected")
    gateways = page.locator("#gateways .gateway")
    expect(gateways).to_have_count(2)
    news = page.get_by_role("status").filter(has_text=re.compile("connections? at 2 gateways"))
    expect(news).to_be_visible()
    page.get_by_role("textbox", name="Customer", exact=True).fill(orderbell.customer)
    page.keyboard.press("Enter")
    expect(page.locator("#connections-news")).to_have_text(
        f"1 connection of {orderbell.customer} at 2 gateways."
    )
    expect(page.locator("#gateways td").first).to_have_text(orderbell.customer)
    expect(page.locator("#gateways tr").nth(1)).to_contain_text("websocket")
    shop.close()
    page.get_by_role("textbox", name="Customer", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#connections-news")).to_have_text(
        f"0 connections of {orderbell.customer} at 2 gateways."
    )
    expect(page.locator("#gateways")).to_contain_text("ended")


def test_a_key_without_the_scope_admin_is_told_so(context: BrowserContext, processes: Processes) -> None:
    key = "a-key-of-the-kitchen-only"
    with running(
        processes, development=False, gateways=0, api_keys=f"{processes.api_key},k:orders:{key}"
    ) as orderbell:
        orderbell.place("1")
        page = context.new_page()
        page.goto(orderbell.back_office)
        page.get_by_label("API key").fill(key)
        page.keyboard.press("Enter")
        expect(page.locator("#open li")).to_have_count(1)
        page.get_by_role("link", name="Connected").click()
        expect(page.locator("#connections-failure")).to_have_text("this key lacks the scope admin")
        page.get_by_role("link", name="What happened").click()
        search(page, "1")
        expect(page.locator("#trace-failure")).to_have_text("this key lacks the scope admin")
        assert key not in page.url


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_it_on_any_screen(
    context: BrowserContext, orderbell: Services, scheme: str
) -> None:
    orderbell.place_and_complete("8")
    shop = context.new_page()
    shop.goto(orderbell.shop)
    sign_in(shop, orderbell.customer)
    page = opened(context, orderbell, "What happened")
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type] # a Literal, parametrised
    search(page, orderbell.customer)
    expect(found(page)).to_have_count(1)
    for view, shown in (("What happened", "#found article.found"), ("Connected", "#gateways table")):
        page.set_viewport_size({"width": 1280, "height": 800})
        page.get_by_role("link", name=view).click()
        expect(page.locator(shown).first).to_be_visible()
        assert contrast_faults(page) == []
        for width in (320, 390, 768, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            assert sideways(page) == 0, (view, width)
