"""The main job in Chromium: an order is completed in the back office, its customer gets one pop-up."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests import chromium
from tests.browser.conftest import contrast_faults, evaluate, pop_ups, sideways, violations, watch
from tests.browser.services import Balancer, running
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import BrowserContext, Page, Playwright

    from tests.browser.services import Services
    from tests.processes import Processes

pytestmark = pytest.mark.browser

SCREENSHOT = os.environ.get("ORDERBELL_TEST_SCREENSHOT")  # where the README's picture is written
SHOWN_HERE, SHOWN_THERE = "Popped up in this tab", "Popped up in another tab"


@pytest.fixture
def shop(context: BrowserContext, orderbell: Services) -> Page:
    """Alice, signed in and connected."""
    watch(context)
    page = context.new_page()
    page.goto(orderbell.shop)
    sign_in(page, orderbell.customer)
    return page


def sign_in(page: Page, name: str = "alice") -> None:
    page.get_by_label("Your name").fill(name)
    page.keyboard.press("Enter")
    expect_connected(page)


def expect_connected(page: Page, port: int | None = None) -> None:
    where = f"Connected to 127.0.0.1:{port}" if port else re.compile("^Connected to ")
    expect(page.locator("#connection")).to_have_text(where, timeout=15_000)


def order(page: Page, item: str) -> str:
    """Its number."""
    orders = page.locator("#orders li")
    before = orders.count()
    page.get_by_role("button", name=f"Order: {item}").click()
    expect(orders).to_have_count(before + 1)
    number = orders.filter(has_text=item).first.get_attribute("data-order-id")
    assert number
    return number


def complete(back_office: Page, number: str, message: str = "") -> None:
    row = back_office.locator(f'#open li[data-order-id="{number}"]')
    if message:
        row.get_by_role("textbox").fill(message)
    row.get_by_role("button").click()
    expect(back_office.locator(f'#completed li[data-order-id="{number}"]')).to_be_visible()


@contextlib.contextmanager
def browser_of_alice(playwright: Playwright, executable: Path, profile: Path) -> Iterator[BrowserContext]:
    """A browser that finds again what it kept when it was closed."""
    context = playwright.chromium.launch_persistent_context(
        profile,
        executable_path=executable,
        args=chromium.arguments(),
        viewport={"width": 1180, "height": 840},
    )
    watch(context)
    yield context
    context.close()


def test_an_order_completed_in_the_back_office_pops_up_once_in_alices_browser(
    playwright: Playwright,
    chromium_path: Path,
    context: BrowserContext,
    own_orderbell: Services,
    tmp_path: Path,
) -> None:
    watch(context)
    back_office = context.new_page()
    back_office.set_viewport_size({"width": 800, "height": 640})
    back_office.goto(own_orderbell.back_office)
    profile = tmp_path / "alice"

    with browser_of_alice(playwright, chromium_path, profile) as browser:
        first, second = browser.pages[0], browser.new_page()
        first.goto(own_orderbell.shop)
        sign_in(first)
        second.goto(own_orderbell.shop_on_second_gateway)
        expect_connected(first, own_orderbell.gateways[0].port)
        expect_connected(second, own_orderbell.gateways[1].port)

        soup, tea = order(first, "Tomato soup"), order(first, "Iced tea")
        own_orderbell.place("201", "bob", item="Croissant")
        expect(back_office.locator("#open li")).to_have_count(3)
        complete(back_office, soup)

        for tab in (first, second):
            alerts = tab.locator("#alerts li")
            expect(alerts).to_have_count(1)
            expect(alerts).to_contain_text(f"Order {soup} is complete")
            expect(tab.locator(f'#orders li[data-order-id="{soup}"]')).to_contain_text("Complete")
        shown, silent = sorted((first, second), key=lambda tab: len(pop_ups(tab)), reverse=True)
        expect(shown.locator("#alerts li")).to_contain_text(SHOWN_HERE)
        expect(silent.locator("#alerts li")).to_contain_text(SHOWN_THERE)
        expect(shown.locator(".orderbell-toast")).to_contain_text(f"Order {soup} is complete")
        assert pop_ups(shown) == [f"Tomato soup: Order {soup} is complete"]
        assert pop_ups(silent) == []
        assert violations(first) == violations(second) == violations(back_office) == []
        if SCREENSHOT:
            _take_picture(context, back_office, shown, Path(SCREENSHOT))

    with browser_of_alice(playwright, chromium_path, profile) as browser:
        page = browser.pages[0]
        page.goto(own_orderbell.shop)
        expect_connected(page)
        expect(page.locator("#alerts li")).to_have_count(1)
        # Events come in order: had the first been shown again, it would have been before this one.
        cake = order(page, "Lemon cake")
        complete(back_office, cake)
        expect(page.locator("#alerts li")).to_have_count(2)
        wait_until(lambda: pop_ups(page))
        assert pop_ups(page) == [f"Lemon cake: Order {cake} is complete"]
        expect(page.locator("#alerts li").first).to_contain_text(SHOWN_HERE)  # it was on the screen

    complete(back_office, tea, "Your tea is at the counter.")

    with browser_of_alice(playwright, chromium_path, profile) as browser:
        page = browser.pages[0]
        page.goto(own_orderbell.shop_on_second_gateway)
        expect(page.locator(".orderbell-toast")).to_contain_text("Your tea is at the counter.")
        page.reload()
        expect_connected(page)
        own_orderbell.place_and_complete("301")
        expect(page.locator(".orderbell-toast")).to_contain_text("Order 301 is complete")
        assert pop_ups(page) == ["Your order is complete: Order 301 is complete"]
        expect(page.locator("#alerts li")).to_have_count(4)


def test_a_message_is_text_and_the_policy_has_nothing_to_object_to(orderbell: Services, shop: Page) -> None:
    attack = "<img src=x onerror=\"document.title='hit'\"><script>document.title='hit'</script>{{7*7}}"
    orderbell.place_and_complete("666", item=attack, message=attack)
    for place in (".orderbell-toast", "#alerts li", "#orders li"):
        expect(shop.locator(place)).to_contain_text(attack)
    assert shop.title() == "Orderbell shop"
    assert violations(shop) == []
    assert shop.locator(".orderbell-toast img, #alerts script, #alerts img[onerror]").count() == 0


@pytest.mark.long
def test_the_pop_up_is_closed_by_keyboard_and_the_focus_returns(orderbell: Services, shop: Page) -> None:
    button = shop.get_by_role("button", name="Order: Croissant")
    button.focus()
    orderbell.place_and_complete("1042")
    expect(shop.locator(".orderbell-toast")).to_be_visible()
    expect(button).to_be_focused()
    shop.keyboard.press("F6")
    shop.keyboard.press("Escape")
    expect(shop.locator(".orderbell-toast")).to_have_count(0)
    expect(button).to_be_focused()
    expect(shop.locator("#alerts li")).to_contain_text("Order 1042 is complete")


@pytest.mark.long
def test_gateways_that_are_killed_or_drained_cost_nothing_but_time(
    context: BrowserContext, own_orderbell: Services
) -> None:
    first, second = own_orderbell.gateways
    watch(context)
    with Balancer([first.port, second.port]) as balancer:
        page = context.new_page()
        page.goto(balancer.url)
        sign_in(page)
        own_orderbell.place_and_complete("1")
        expect(page.locator("#alerts li")).to_have_count(1)

        first.kill()
        own_orderbell.place_and_complete("2")
        expect(page.locator("#alerts li")).to_have_count(2, timeout=15_000)

        first.start()
        second.terminate()
        own_orderbell.place_and_complete("3")
        expect(page.locator("#alerts li")).to_have_count(3, timeout=15_000)

        first.kill()
        own_orderbell.place_and_complete("4")
        expect(page.locator("#connection")).not_to_have_text(re.compile("^Connected"))
        second.start()
        expect(page.locator("#alerts li")).to_have_count(4, timeout=30_000)
        own_orderbell.place_and_complete("5")
        expect(page.locator("#alerts li")).to_have_count(5)

        def named() -> list[str]:
            """Two that come at once share a pop-up, which names both, the newer first."""
            return sorted(re.findall(r"Order (\d) is complete", " ".join(pop_ups(page))))

        wait_until(lambda: len(named()) >= 5)
        assert named() == ["1", "2", "3", "4", "5"]


@pytest.mark.long
@pytest.mark.parametrize("looked_at", [True, False], ids=["looked at again", "by itself"])
def test_a_network_that_passes_nothing_on_is_noticed(
    context: BrowserContext, own_orderbell: Services, looked_at: bool
) -> None:
    """No close ever comes. By itself within 1.5 heartbeats and 2 s; where somebody looks, within 4 s."""
    gateway = own_orderbell.gateways[0]
    gateway.kill()
    gateway.environment["ORDERBELL_HEARTBEAT_SECONDS"] = "30" if looked_at else "2"
    gateway.start()
    with Balancer([gateway.port]) as balancer:
        page = context.new_page()
        page.goto(balancer.url)
        sign_in(page)
        page.wait_for_timeout(5_500)  # by heartbeats it stays, however quiet
        expect_connected(page)
        reconnecting = "document.querySelector('#connection').dataset.state === 'connecting'"
        evaluate(page, f"new MutationObserver(() => {{ window.noticed ||= {reconnecting} }})"
                       ".observe(document.querySelector('#connection'), { attributes: true })")  # fmt: skip
        assert not page.evaluate("window.noticed")
        balancer.swallows = True
        if looked_at:
            page.evaluate("dispatchEvent(new Event('focus'))")
        page.wait_for_function("() => window.noticed", timeout=11_000)
        balancer.swallows = False
        own_orderbell.place_and_complete("1")
        expect(page.locator("#alerts li")).to_have_count(1, timeout=15_000)


@pytest.mark.long
def test_a_page_that_comes_back_from_the_back_forward_cache_goes_on(
    playwright: Playwright, chromium_with_windows: Path, orderbell: Services
) -> None:
    browser = playwright.chromium.launch(
        executable_path=chromium_with_windows,
        args=chromium.arguments(),
        ignore_default_args=["--disable-back-forward-cache"],
    )
    with browser:
        context = browser.new_context()
        watch(context)
        page = context.new_page()
        page.goto(orderbell.shop)
        sign_in(page, orderbell.customer)
        page.evaluate("window.same = true")
        page.goto(f"{orderbell.shop}livez")
        orderbell.place_and_complete("1042")
        page.go_back(wait_until="commit")  # "load" doesn't come again
        expect(page.locator("#alerts li")).to_contain_text("Order 1042 is complete")
        wait_until(lambda: pop_ups(page))
        assert pop_ups(page) == ["Your order is complete: Order 1042 is complete"]
        assert page.evaluate("window.same") is True


@pytest.mark.long
def test_a_worker_receives_and_leaves_alerts_to_a_page(
    context: BrowserContext, orderbell: Services, module_processes: Processes
) -> None:
    page = context.new_page()
    page.goto(f"{orderbell.shop}livez")
    said = evaluate(
        page,
        """
        const source = `
          import { AlertSource } from "${location.origin}/client/v1/orderbell.js";
          const getToken = () => ({ token: "${given.token}" });
          const alerts = new AlertSource("${location.origin}", { key: "${given.customer}", getToken });
          for (const type of ["open", "message", "alert"]) {
            alerts.addEventListener(type, () => postMessage(type));
          }
        `;
        const blob = new Blob([source], { type: "text/javascript" });
        const worker = new Worker(URL.createObjectURL(blob), { type: "module" });
        window.said = [];
        await new Promise((resolve, reject) => {
          worker.onmessage = ({ data }) => resolve(said.push(data));
          worker.onerror = ({ message }) => reject(message);
        });
        return said;
        """,
        {"customer": orderbell.customer, "token": module_processes.token(orderbell.customer)},
    )
    assert said == ["open"]
    orderbell.place_and_complete("1")
    page.wait_for_function("() => window.said.length > 1")
    assert page.evaluate("said") == ["open", "message"]
    shop = context.new_page()
    shop.goto(orderbell.shop)
    sign_in(shop, orderbell.customer)
    expect(shop.locator(".orderbell-toast")).to_contain_text("Order 1 is complete")


def test_on_a_telephone_a_lost_connection_is_in_sight_wherever_the_page_is_scrolled_to(shop: Page) -> None:
    shop.set_viewport_size({"width": 390, "height": 600})
    shop.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    connection = shop.locator("#connection")
    expect(connection).not_to_be_in_viewport()
    shop.evaluate("document.querySelector('#connection').dataset.state = 'connecting'")
    expect(connection).to_be_in_viewport(ratio=1)


VISIBILITIES = [("visible", "visible"), ("visible", "hidden"), ("hidden", "visible"), ("hidden", "hidden")]


@pytest.mark.long
def test_fifty_events_in_two_tabs_however_they_are_looked_at_pop_up_once_each(
    context: BrowserContext, orderbell: Services
) -> None:
    context.add_init_script("""
        window.looks = "visible";
        Object.defineProperty(document, "visibilityState", { get: () => window.looks });
        Object.defineProperty(document, "hidden", { get: () => window.looks === "hidden" });
        document.hasFocus = () => window.looks === "visible";
    """)
    tabs = [context.new_page(), context.new_page()]
    for tab, gateway in zip(tabs, orderbell.gateways, strict=True):
        tab.goto(f"{orderbell.shop}livez")  # of the shop's origin, without its page
        evaluate(
            tab,
            """
            const headers = { "content-type": "application/json" };
            const body = JSON.stringify({ customer: given.customer });
            await fetch("/development/sign-in", { method: "POST", headers, body });
            const { AlertSource } = await import("/client/v1/orderbell.js");
            const source = new AlertSource(given.gateway, { key: "alice" });
            window.had = [];
            window.shown = [];
            source.addEventListener("message", ({ data }) => had.push(data.seq));
            source.addEventListener("alert", ({ detail }) => shown.push(detail.seq));
            await new Promise((resolve) => source.addEventListener("open", resolve));
            """,
            {"gateway": gateway.url, "customer": orderbell.customer},
        )
    for n in range(50):
        for tab, looks in zip(tabs, VISIBILITIES[n % 4], strict=True):
            change = "window.looks = given; document.dispatchEvent(new Event('visibilitychange'))"
            evaluate(tab, change, looks)
        orderbell.place_and_complete(str(n))
        if n % 3:  # else the next one comes while this one is claimed
            for tab in tabs:
                tab.wait_for_function("(n) => had.length > n", arg=n)
    wait_until(lambda: sum(len(evaluate(tab, "return shown")) for tab in tabs) >= 50)
    everything = list(range(1, 51))
    assert [evaluate(tab, "return had") for tab in tabs] == [everything, everything]
    one, other = (evaluate(tab, "return shown") for tab in tabs)
    assert sorted(one + other) == everything
    assert one
    assert other


@pytest.mark.long
def test_reloading_in_the_middle_neither_loses_nor_repeats(
    context: BrowserContext, orderbell: Services
) -> None:
    """What is on its way when the page goes is shown by the next one, and what was shown is not."""
    context.add_init_script("""
        const load = String(performance.timeOrigin); // its own key: no two pages write to the same
        window.note = (seq) => (localStorage[load] = `${localStorage[load] ?? ""} ${seq}`);
    """)
    page = context.new_page()
    page.goto(f"{orderbell.shop}livez")
    evaluate(
        page,
        """
        const headers = { "content-type": "application/json" };
        const body = JSON.stringify({ customer: given });
        await fetch("/development/sign-in", { method: "POST", headers, body });
        """,
        orderbell.customer,
    )
    listen = """
        const { AlertSource } = await import("/client/v1/orderbell.js");
        window.source = new AlertSource("/", { key: "alice" });
        source.addEventListener("alert", ({ detail }) => note(detail.seq));
    """
    shown = "return Object.values(localStorage).join(' ').split(' ').filter(Boolean).map(Number)"
    for n in range(20):
        evaluate(page, listen)
        if n % 2:
            page.wait_for_function("() => source.readyState === 1")
        orderbell.place_and_complete(str(n))
        page.wait_for_timeout(n * 3)  # from before it comes to after it was shown
        page.reload()
    evaluate(page, listen)
    wait_until(lambda: len(evaluate(page, shown)) >= 20)
    assert sorted(evaluate(page, shown)) == list(range(1, 21))


def test_signing_out_ends_the_alerts_and_another_customer_sees_only_their_own(
    orderbell: Services, shop: Page
) -> None:
    orderbell.place_and_complete("1")
    expect(shop.locator("#alerts li")).to_have_count(1)
    shop.get_by_role("button", name="Sign out").click()
    bob = orderbell.customer.replace("alice", "bob")
    sign_in(shop, bob)
    expect(shop.locator("#alerts li")).to_have_count(0)
    orderbell.place_and_complete("2")
    orderbell.place_and_complete("3", bob)
    expect(shop.locator("#alerts li")).to_have_count(1)
    expect(shop.locator("#alerts li")).to_contain_text("Order 3 is complete")
    assert not any("Order 2" in text for text in pop_ups(shop))


@pytest.mark.parametrize(
    "second_page",
    [True, pytest.param(False, marks=pytest.mark.long)],
    ids=["told by the other tab", "finds out by itself"],
)
def test_a_tab_never_goes_on_as_the_customer_who_signed_in_elsewhere(
    context: BrowserContext, orderbell: Services, shop: Page, second_page: bool
) -> None:
    bob = orderbell.customer.replace("alice", "bob")
    orderbell.place_and_complete("1")
    expect(shop.locator("#alerts li")).to_have_count(1)
    if second_page:
        other = context.new_page()
        other.goto(orderbell.shop)
        expect_connected(other)
        other.get_by_role("button", name="Sign out").click()
        sign_in(other, bob)
    else:
        body = {"customer": bob}
        context.request.post(f"{orderbell.shop}development/sign-in", data=body)  # no page says so
        shop.evaluate("dispatchEvent(new Event('offline')), dispatchEvent(new Event('online'))")
    orderbell.place_and_complete("2", bob)
    expect(shop.locator("#welcome-failure")).to_contain_text("another customer is signed in now")
    expect(shop.locator("#alerts li")).to_have_count(0)
    assert not any("Order 2" in text for text in pop_ups(shop))
    if second_page:  # who is signed in stays so
        expect(other.locator(".orderbell-toast")).to_contain_text("Order 2 is complete")


@pytest.mark.parametrize(
    "odd",
    [
        None,
        {"message": {"a": 1}, "item": 7},
        pytest.param("text", marks=pytest.mark.long),
        pytest.param(5, marks=pytest.mark.long),
        pytest.param([], marks=pytest.mark.long),
        pytest.param({"message": ""}, marks=pytest.mark.long),
    ],
)
def test_odd_data_pops_up_too_and_the_list_has_it(orderbell: Services, shop: Page, odd: object) -> None:
    errors: list[str] = []
    shop.on("pageerror", lambda error: errors.append(str(error)))
    event: dict[str, object] = {
        "specversion": "1.0",
        "id": f"soup-{orderbell.customer}",
        "source": "/kitchen",
        "subject": "lentil",
    }
    event |= {"type": "order.completed", "channel": f"customer:{orderbell.customer}"}
    if odd is not None:
        event["data"] = odd
    headers = {"content-type": "application/cloudevents+json"}
    orderbell.api.post("/events", content=json.dumps(event), headers=headers).raise_for_status()
    orderbell.place_and_complete("1042")
    expect(shop.locator("#alerts li")).to_have_count(2)
    expect(shop.locator("#alerts li").last).to_contain_text("Order completed: lentil")
    wait_until(lambda: len(pop_ups(shop)) >= 2)
    assert any("Order completed: lentil" in text for text in pop_ups(shop))
    assert errors == []


def test_a_long_text_takes_a_few_lines_of_the_list_and_opens_to_the_whole(
    orderbell: Services, shop: Page
) -> None:
    text = "".join(f"Dish {number} is ready. \U0001f372" for number in range(2_000))
    orderbell.place_and_complete("1042", message=text)
    listed = shop.locator("#alerts li")
    expect(listed).to_contain_text("Dish 0 is ready")
    assert listed.evaluate("row => row.offsetHeight") < 400
    assert "\ufffd" not in listed.locator("strong").inner_text()
    listed.get_by_text("All of it").click()
    whole = listed.locator("p")
    expect(whole).to_have_text(text)
    shop.set_viewport_size({"width": 320, "height": 800})
    assert whole.evaluate("whole => whole.offsetHeight") <= 400
    assert sideways(shop) == 0
    whole.press("End")
    wait_until(lambda: whole.evaluate("whole => whole.scrollTop > 0"))
    assert contrast_faults(shop) == []


def test_a_long_subject_or_item_takes_a_few_lines_of_the_list(orderbell: Services, shop: Page) -> None:
    odd: dict[str, dict[str, object]] = {
        "subject": {"subject": "s" * 30_000},
        "item": {"data": {"item": "i" * 30_000}},
    }
    for name, long in odd.items():
        event: dict[str, object] = {
            "specversion": "1.0",
            "id": f"{name}-{orderbell.customer}",
            "source": "/kitchen",
        }
        event |= {"type": "order.completed", "channel": f"customer:{orderbell.customer}", **long}
        headers = {"content-type": "application/cloudevents+json"}
        orderbell.api.post("/events", content=json.dumps(event), headers=headers)
    expect(shop.locator("#alerts li").first).to_be_visible()
    orderbell.place_and_complete("1042")
    expect(shop.locator("#alerts li").first).to_contain_text("1042")
    rows = shop.locator("#alerts li").evaluate_all("rows => rows.map((row) => row.offsetHeight)")
    assert len(rows) >= 2
    assert max(rows) < 500
    assert sideways(shop) == 0


def test_an_alert_that_was_sent_again_is_listed_once_and_taken_back_is_not(
    orderbell: Services, shop: Page
) -> None:
    orderbell.place_and_complete("1042")
    orderbell.place_and_complete("1043")
    listed = shop.locator("#alerts li")
    expect(listed).to_have_count(2)
    expect(listed.last).to_contain_text("Order 1042 is complete")
    first = listed.last.get_attribute("data-cursor") or ""
    again = orderbell.resend("1042")
    expect(shop.locator(f'#alerts li[data-cursor="{again}"]')).to_be_visible()
    expect(listed).to_have_count(2)
    expect(shop.locator(f'#alerts li[data-cursor="{first}"]')).to_have_count(0)
    orderbell.cancel("1042")
    expect(listed).to_have_count(1)
    expect(listed).to_contain_text("Order 1043 is complete")
    expect(shop.locator("#unread")).to_have_text("1 unread")


@pytest.mark.long
def test_a_thousand_alerts_stall_nothing_and_signing_out_leaves_nothing(
    orderbell: Services, shop: Page
) -> None:
    evaluate(
        shop,
        """
        window.stalls = [];
        new PerformanceObserver((list) => stalls.push(...list.getEntries().map(({ duration }) => duration)))
          .observe({ type: "longtask" });
        """,
    )
    channel = f"customer:{orderbell.customer}"
    for start in range(0, 1000, 250):
        batch = [
            {
                "specversion": "1.0",
                "id": f"{channel}-{n}",
                "source": "/test",
                "type": "order.completed",
                "channel": channel,
                "subject": str(n),
                "data": {"order_id": f"{channel}-{n}", "message": f"Order {n}"},
            }
            for n in range(start, start + 250)
        ]
        headers = {"content-type": "application/cloudevents-batch+json"}
        orderbell.api.post("/events", content=json.dumps(batch), headers=headers).raise_for_status()
    expect(shop.locator("#alerts li").first).to_contain_text("Order 999", timeout=60_000)
    expect(shop.locator("#alerts li")).to_have_count(50)
    expect(shop.locator("#orders li")).to_have_count(1000)
    assert max(evaluate(shop, "return stalls"), default=0) < 500  # 50 on a machine that does nothing else
    shop.get_by_role("button", name="Sign out").click()
    expect(shop.locator(".orderbell-toast")).to_have_count(0)
    assert evaluate(shop, "return Object.keys(localStorage)") == []
    assert shop.title() == "Orderbell shop"


def test_the_first_load_leaves_no_error_on_the_console(context: BrowserContext, orderbell: Services) -> None:
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(f"{message.type}: {message.text}"))
    page.goto(orderbell.shop)
    expect(page.get_by_label("Your name")).to_be_focused()
    assert [text for text in errors if text.startswith("error")] == []


def test_without_development_mode_a_token_is_pasted_and_kept_out_of_every_url(
    context: BrowserContext, processes: Processes
) -> None:
    with running(processes, development=False, gateways=1) as orderbell:
        watch(context)
        page = context.new_page()
        urls: list[str] = []
        page.on("request", lambda request: urls.append(request.url))
        page.on("websocket", lambda websocket: urls.append(websocket.url))
        page.goto(orderbell.shop)
        token = processes.token("alice")
        page.get_by_label("A customer's token (JWT)").fill("no token")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("That is not a token")
        page.get_by_label("A customer's token (JWT)").fill(token)
        page.keyboard.press("Enter")
        expect_connected(page)
        expect(page.locator("#how")).to_contain_text('"customer_id":"alice"')
        expect(page.locator("#menu")).to_be_hidden()
        orderbell.place_and_complete("1042")
        expect(page.locator(".orderbell-toast")).to_contain_text("Order 1042 is complete")
        page.reload()
        expect_connected(page)
        assert any("/events" in url for url in urls)
        assert not any(token[-20:] in url for url in urls)
        assert violations(page) == []


def test_a_refused_token_is_reported(context: BrowserContext, processes: Processes) -> None:
    with running(processes, development=False, gateways=1) as orderbell:
        page = context.new_page()
        page.goto(orderbell.shop)
        page.get_by_label("A customer's token (JWT)").fill(processes.token("alice", lifetime_seconds=-600))
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert").first).to_contain_text("The gateway ended the connection")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_it_on_any_screen(orderbell: Services, shop: Page, scheme: str) -> None:
    shop.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type] # a Literal
    order(shop, "Croissant")
    orderbell.place_and_complete("1042", message="a-word-that-is-as-long-as-no-word-should-be-" * 8)
    expect(shop.locator(".orderbell-toast")).to_be_visible()
    assert contrast_faults(shop) == []
    for width in (320, 390, 768, 1280):
        shop.set_viewport_size({"width": width, "height": 800})
        assert sideways(shop) == 0, width
        assert broken_words(shop, "#menu strong, #orders strong") == [], width
    shop.get_by_role("button", name="Sign out").click()
    expect(shop.get_by_label("Your name")).to_be_focused()
    assert contrast_faults(shop) == []


def broken_words(page: Page, selector: str) -> list[str]:
    """Words that go on in the next line."""
    found: list[str] = page.evaluate(
        r"""(selector) => {
          const broken = [];
          for (const { firstChild: text } of document.querySelectorAll(selector)) {
            for (const { 0: word, index } of text.data.matchAll(/[^\s-]+/g)) {
              const range = document.createRange();
              range.setStart(text, index);
              range.setEnd(text, index + word.length);
              if (range.getClientRects().length > 1) broken.push(word);
            }
          }
          return broken;
        }""",
        selector,
    )
    return found


def _take_picture(context: BrowserContext, back_office: Page, shop: Page, path: Path) -> None:
    """Both pages side by side, as two windows."""
    shop.bring_to_front()
    shop.evaluate("scrollTo(0, 0)")
    windows = "".join(
        f"<figure><figcaption><i></i><i></i><i></i><span>{address}</span></figcaption>"
        f'<img src="data:image/png;base64,{base64.b64encode(picture).decode()}"></figure>'
        for address, picture in (
            (urlsplit(page.url).netloc, page.screenshot(animations="disabled"))
            for page in (back_office, shop)
        )
    )
    page = context.new_page()
    page.set_viewport_size({"width": 1580, "height": 800})
    page.set_content(f"<style>{_WINDOWS}</style>{windows}")
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path)
    page.close()


_WINDOWS = """
    body { margin: 0; height: 800px; background: #d9e4e1; font: 14px system-ui, sans-serif; }
    figure { position: absolute; margin: 0; overflow: hidden; border-radius: 12px; background: #fff;
             box-shadow: 0 18px 50px rgb(0 30 30 / .28); }
    figure:first-of-type { left: 32px; top: 32px; width: 600px; }
    figure:last-of-type { right: 32px; bottom: 32px; width: 910px; }
    figcaption { display: flex; gap: 7px; align-items: center; padding: 9px 14px; background: #e9ece8; }
    i { width: 11px; height: 11px; border-radius: 50%; background: #b9c3c0; }
    span { color: #54605f; margin-left: 12px; padding: 2px 14px; border-radius: 99px; background: #fbfcfa; }
    img { display: block; width: 100%; }
"""
