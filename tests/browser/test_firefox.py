"""What a person meets in Firefox, with Orderbell behind it: each thing that once went wrong.

What was visible is looked at from outside, in the page's DOM, not in the client's own records.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests import firefox
from tests.browser.conftest import evaluate
from tests.browser.services import Balancer, running
from tests.browser.test_devices import seen_by_the_server
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.browser.services import Services
    from tests.firefox import Firefox, Page, Profile
    from tests.processes import Processes
    from tests.webkit import Page as WebKitPage

pytestmark = [pytest.mark.firefox, pytest.mark.long]

# Every text that was ever seen in a toast, by a look at each frame: on the screen, and not under anything.
_LOOK = """
    window.wasVisible = new Set();
    window.titles = new Set();
    const look = () => {
      for (const toast of document.querySelectorAll(".orderbell-toast")) {
        const { left, top, width, height } = toast.getBoundingClientRect();
        const at = document.elementFromPoint(left + width / 2, top + height / 2);
        if (document.visibilityState !== "visible" || !toast.contains(at)) continue;
        for (const text of toast.querySelectorAll(".orderbell-toast-text")) wasVisible.add(text.textContent);
        for (const title of toast.querySelectorAll(".orderbell-toast-title")) titles.add(title.textContent);
      }
      requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
"""
_CLIENT = """
    const { AlertSource, Toasts } = await import("/client/v1/orderbell.js");
    const style = { rel: "stylesheet", href: "/client/v1/toast.css" };
    const link = Object.assign(document.createElement("link"), style);
    document.head.append(link);
    await new Promise((resolve) => (link.onload = resolve));
    window.toasts = new Toasts();
    window.errors = [];
    window.messages = 0;
    window.alerts = new AlertSource(given.url, {
      key: given.customer,
      getToken: () => (given.token ? { token: given.token } : null),
    });
    alerts.addEventListener("message", () => (messages += 1));
    alerts.addEventListener("error", ({ detail }) => errors.push(detail.kind));
    if (given.shows) alerts.addEventListener("alert", ({ detail }) => toasts.show(detail));
"""
_STATE = """
    const texts = [...document.querySelectorAll(".orderbell-toast")].map((toast) => toast.textContent);
    const { readyState, shows, transport, lastEventId } = alerts;
    const { visibilityState } = document;
    const here = { visibilityState, wasVisible: [...wasVisible], texts, errors, messages };
    return JSON.stringify({ ...here, readyState, shows, transport, lastEventId });
"""
_OPENED = "await new Promise((resolve) => alerts.addEventListener('open', resolve, { once: true }));"


@pytest.fixture
def profile(package_firefox: Firefox) -> Iterator[Profile]:
    profile = package_firefox.new_context()
    profile.add_init_script(_LOOK)
    yield profile
    profile.close()


def sign_in(page: Page, name: str) -> None:
    page.wait_for_function("!document.querySelector('#welcome').hidden")  # before that, the form is dead
    submit = (
        "document.querySelector('#name').value = given; document.querySelector('#sign-in').requestSubmit();"
    )
    evaluate(page, submit, name)  # type: ignore[arg-type] # it has what this uses
    page.wait_for_function("document.querySelector('#connection').dataset.state === 'open'")


def run(page: Page | WebKitPage, script: str, given: Any = None) -> Any:
    return page.evaluate(f"async (given) => {{ {script} }}", given)


@pytest.fixture
def shop(profile: Profile, orderbell: Services) -> Page:
    page = profile.new_page()
    page.goto(orderbell.shop)
    sign_in(page, orderbell.customer)
    return page


def client(
    profile: Profile,
    orderbell: Services,
    processes: Processes,
    *,
    shows: bool = True,
    url: str = "",
    script: str = _CLIENT + _OPENED,
) -> Page:
    """A page of the shop's origin with nothing but the client; Firefox would dress up JSON."""
    page = profile.new_page()
    page.goto(f"{url or orderbell.shop}metrics")
    token = processes.token(orderbell.customer)
    run(
        page,
        script,
        {"url": url or orderbell.shop, "customer": orderbell.customer, "token": token, "shows": shows},
    )
    return page


def was_visible(page: Page | WebKitPage) -> set[str]:
    return set(page.evaluate("[...wasVisible]"))


def order(number: int) -> str:
    return f"Order {number} is complete"


def seen(orderbell: Services) -> str:
    return seen_by_the_server(orderbell).partition("=")[2]


def test_what_waits_behind_a_toast_that_is_pointed_at_is_not_seen_and_comes_when_it_is_left(
    shop: Page, orderbell: Services
) -> None:
    orderbell.place_and_complete("1", message=order(1))
    wait_until(lambda: was_visible(shop) == {order(1)})
    x, y = run(
        shop,
        "const { left, top } = document.querySelector('.orderbell-toast').getBoundingClientRect();"
        "return [left + 40, top + 20];",
    )
    shop.move_mouse(x, y)
    for number in range(2, 6):
        time.sleep(1.25)
        orderbell.place_and_complete(str(number), message=order(number))
    wait_until(lambda: shop.evaluate("document.querySelectorAll('#alerts li').length") == 5)
    time.sleep(1)
    listed = shop.evaluate(
        "document.querySelector('#alerts').textContent.split('Popped up in this tab').length - 1"
    )
    assert listed == len(was_visible(shop)) < 5
    shop.move_mouse(5, 5)
    wait_until(lambda: seen(orderbell) == "1.5", timeout=60)
    # What had waited may come as one: "4 orders are complete", with the newest three by name.
    assert was_visible(shop) - {"…"} >= {order(number) for number in (1, 3, 4, 5)}
    if order(2) not in was_visible(shop):
        assert "4 orders are complete" in shop.evaluate("[...titles]")


def test_what_comes_into_a_hidden_tab_is_not_seen_until_it_is_looked_at(
    shop: Page, profile: Profile, orderbell: Services
) -> None:
    in_front = profile.new_page()
    shop.wait_for_function("document.visibilityState === 'hidden'")
    orderbell.place_and_complete("1", message=order(1))
    shop.wait_for_function("document.querySelectorAll('#alerts li').length === 1")
    time.sleep(1)
    assert seen(orderbell) == "1.0"
    in_front.close()
    shop.bring_to_front()
    wait_until(lambda: was_visible(shop) == {order(1)})
    wait_until(lambda: seen(orderbell) == "1.1")


ODD: list[Any] = [
    None,
    5,
    "text",
    "x" * 60_000,
    [],
    True,
    {"message": ""},
    {"message": None},
    {"message": [1]},
    {"message": 5},
]


def test_whatever_an_event_holds_it_ends_nothing(
    profile: Profile, orderbell: Services, module_processes: Processes
) -> None:
    page = client(profile, orderbell, module_processes)
    channel = f"customer:{orderbell.customer}"
    events = [
        {
            "specversion": "1.0",
            "id": f"{channel}-{n}",
            "source": "/kitchen",
            "type": "menu.changed",
            "channel": channel,
        }
        | {"subject": f"odd {n}", "data": data}
        for n, data in enumerate(ODD)
    ]
    headers = {"content-type": "application/cloudevents-batch+json"}
    orderbell.api.post("/events", content=json.dumps(events), headers=headers).raise_for_status()
    page.wait_for_function(f"messages === {len(ODD)}")
    wait_until(lambda: seen(orderbell) == f"1.{len(ODD)}", timeout=60)
    orderbell.place_and_complete("1", message=order(1))
    wait_until(lambda: order(1) in was_visible(page), timeout=60)


def test_a_network_that_passes_nothing_on_is_noticed_when_the_page_is_looked_at_again(
    profile: Profile, module_processes: Processes
) -> None:
    with (
        running(module_processes, gateways=1) as orderbell,
        Balancer([orderbell.gateways[0].port]) as balancer,
    ):
        page = client(profile, orderbell, module_processes, url=f"{balancer.url}/")
        in_front = profile.new_page()
        balancer.swallows = True
        time.sleep(3)  # younger than that, it is trusted
        in_front.close()
        page.bring_to_front()
        page.wait_for_function("alerts.readyState === 0", seconds=15)
        balancer.swallows = False
        page.wait_for_function("alerts.readyState === 1", seconds=30)


def test_a_tab_that_cannot_show_leaves_alerts_to_one_that_can(
    profile: Profile, orderbell: Services, module_processes: Processes
) -> None:
    able = client(profile, orderbell, module_processes)
    mute = client(profile, orderbell, module_processes, shows=False)  # in front, without a listener
    orderbell.place_and_complete("1", message=order(1))
    mute.wait_for_function("messages === 1")
    time.sleep(1)
    assert seen(orderbell) == "1.0"
    run(mute, "alerts.addEventListener('alert', ({ detail }) => toasts.show(detail))")
    wait_until(lambda: was_visible(mute) == {order(1)})
    assert was_visible(able) == set()


def test_a_frame_that_is_not_rendered_leaves_alerts_to_others(
    profile: Profile, orderbell: Services, module_processes: Processes
) -> None:
    page = client(profile, orderbell, module_processes, shows=False)
    token = module_processes.token(orderbell.customer)
    run(
        page,
        """
        const frame = document.createElement("iframe");
        frame.style.display = "none";
        frame.src = given.url + "metrics";
        document.body.append(frame);
        await new Promise((resolve) => (frame.onload = resolve));
        window.offered = 0;
        const { AlertSource } = await frame.contentWindow.eval('import("/client/v1/orderbell.js")');
        const getToken = () => ({ token: given.token });
        const source = new AlertSource(given.url, { key: given.customer, getToken });
        source.addEventListener("message", () => (messages += 100));
        source.addEventListener("alert", () => (offered += 1));
        await new Promise((resolve) => source.addEventListener("open", resolve, { once: true }));
        """,
        {"url": orderbell.shop, "customer": orderbell.customer, "token": token},
    )
    orderbell.place_and_complete("1", message=order(1))
    page.wait_for_function("messages === 101")
    time.sleep(1)
    assert (page.evaluate("offered"), seen(orderbell)) == (0, "1.0")
    run(page, "alerts.addEventListener('alert', ({ detail }) => toasts.show(detail))")
    wait_until(lambda: was_visible(page) == {order(1)})


def test_a_page_never_goes_on_as_the_customer_who_signed_in_elsewhere(
    shop: Page, profile: Profile, orderbell: Services
) -> None:
    bob = f"{orderbell.customer}-bob"
    other = profile.new_page()
    other.goto(orderbell.shop)
    other.wait_for_function("document.querySelector('#connection').dataset.state === 'open'")
    run(other, "document.querySelector('#sign-out').click()")
    other.wait_for_function("!document.querySelector('#welcome').hidden")
    sign_in(other, bob)
    for number in range(3):
        orderbell.place_and_complete(f"b{number}", customer=bob, message=f"For bob {number}")
    wait_until(lambda: len(was_visible(other)) > 0)
    shop.wait_for_function("!document.querySelector('#welcome').hidden")
    shop.bring_to_front()
    time.sleep(1)
    assert was_visible(shop) == set()
    assert "For bob" not in shop.evaluate("document.body.textContent")


def test_with_cookies_blocked_alerts_pop_up_and_what_is_not_promised_is_said_once(
    orderbell: Services, module_processes: Processes, tmp_path: Path
) -> None:
    path = firefox.choose()
    assert path is not None
    with firefox.running(path, tmp_path / "profile", {"network.cookie.cookieBehavior": 2}) as blocked:
        profile = blocked.new_context()
        profile.add_init_script(_LOOK)
        page = client(profile, orderbell, module_processes)
        orderbell.place_and_complete("1", message=order(1))
        wait_until(lambda: was_visible(page) == {order(1)})
        assert set(page.evaluate("errors")) == {"storage"}
        assert len([line for line in blocked.console(page) if "keeps nothing for this page" in line]) == 1


def test_a_toast_can_be_read_and_closed_over_a_modal_dialog(
    profile: Profile, orderbell: Services, module_processes: Processes
) -> None:
    page = client(profile, orderbell, module_processes)
    run(
        page,
        "const dialog = document.createElement('dialog'); document.body.append(dialog); dialog.showModal();",
    )
    orderbell.place_and_complete("1", message=order(1))
    wait_until(lambda: was_visible(page) == {order(1)})
    assert page.evaluate("document.querySelector('dialog [role=status]') !== null")
    x, y = run(
        page,
        "const close = document.querySelector('.orderbell-toast-close').getBoundingClientRect();"
        "return [close.left + close.width / 2, close.top + close.height / 2];",
    )
    page.click(x, y)
    page.wait_for_function("document.querySelectorAll('.orderbell-toast').length === 0")


def test_at_400_percent_there_is_one_toast_at_a_time_and_each_has_its_turn(
    profile: Profile, orderbell: Services, module_processes: Processes
) -> None:
    page = client(profile, orderbell, module_processes)
    page.set_viewport_size({"width": 320, "height": 256})
    for number in (1, 2, 3):
        orderbell.place_and_complete(str(number), message=order(number))
        time.sleep(1.1)
    most = 0
    while len(was_visible(page)) < 3:
        count, bottom, right, height, width = run(
            page,
            """
            const toasts = [...document.querySelectorAll(".orderbell-toast")];
            const boxes = toasts.map((toast) => toast.getBoundingClientRect());
            const most = (side) => Math.max(0, ...boxes.map((box) => box[side]));
            return [boxes.length, most("bottom"), most("right"), innerHeight, innerWidth];
            """,
        )
        most = max(most, count)
        assert (bottom <= height, right <= width) == (True, True)
        time.sleep(0.2)
    assert most == 1


def test_the_close_button_stays_under_the_pointer_in_a_stream(
    profile: Profile, orderbell: Services, module_processes: Processes
) -> None:
    page = client(profile, orderbell, module_processes)
    run(
        page,
        "let n = 0; window.stream = setInterval(() => toasts.show(`Stream ${++n}`), 40); window.presses = 0;",
    )
    run(
        page,
        "const isClose = ({ target }) => target.className === 'orderbell-toast-close';"
        "addEventListener('click', (event) => (presses += isClose(event)), true);",
    )
    for _ in range(10):
        x, y = wait_until(lambda: _point_at_close_button(page))
        time.sleep(0.2)  # somebody takes aim, while five more come
        page.click(x, y)
    assert page.evaluate("presses") == 10


def _point_at_close_button(page: Page) -> list[float]:
    """Where the pointer now is, or nothing: its toast may have gone, or moved, in the meantime."""
    page.wait_for_function("document.querySelector('.orderbell-toast-close') !== null")
    measure = (
        "const close = document.querySelector('.orderbell-toast-close')?.getBoundingClientRect();"
        "return close ? [close.left + close.width / 2, close.top + close.height / 2] : [];"
    )
    point: list[float] = run(page, measure)
    if not point:
        return []
    page.move_mouse(*point)
    hit = "return document.elementFromPoint(...given)?.className === 'orderbell-toast-close';"
    return point if run(page, hit, point) else []


def test_closing_all_toasts_under_a_resting_pointer_brings_those_that_wait(
    profile: Profile, orderbell: Services, module_processes: Processes
) -> None:
    """In WebKit the region, though empty, may match `:hover` until the mouse moves; here it always does."""
    page = client(profile, orderbell, module_processes)
    run(page, "toasts.show('First')")
    wait_until(lambda: was_visible(page) == {"First"})
    x, y = run(
        page,
        "const close = document.querySelector('.orderbell-toast-close').getBoundingClientRect();"
        "return [close.left + close.width / 2, close.top + close.height / 2];",
    )
    page.move_mouse(x, y)
    page.wait_for_function("document.querySelector('.orderbell-toasts').matches(':hover')")
    run(
        page,
        "const region = document.querySelector('.orderbell-toasts');"
        "region.matches = (what) => what === ':hover' || Element.prototype.matches.call(region, what);"
        "toasts.show('Second');",
    )
    page.click(x, y)
    wait_until(lambda: was_visible(page) == {"First", "Second"})


def test_announcements_of_a_long_stream_are_few_and_texts_have_their_own_direction(
    profile: Profile, orderbell: Services, module_processes: Processes
) -> None:
    page = client(profile, orderbell, module_processes)
    announced = run(
        page,
        """
        let announced = 0;
        const status = document.querySelector(".orderbell-announcer");
        new MutationObserver((changes) => {
          if (changes.some(({ addedNodes }) => addedNodes.length > 0)) announced += 1;
        }).observe(status, { childList: true });
        for (let n = 0; n < 200; n += 1) {
          for (let m = 0; m < 10; m += 1) toasts.show(`Order ${n}-${m}`);
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        await new Promise((resolve) => setTimeout(resolve, 500));
        return announced;
        """,
    )
    assert 1 <= announced <= 5
    run(page, "toasts.clear(); toasts.show('الطلب جاهز', { lang: 'ar' });")
    page.wait_for_function("document.querySelector('.orderbell-toast-text') !== null")
    attributes = run(
        page,
        "const { dir, lang } = document.querySelector('.orderbell-toast-text');"
        "return [dir, lang, getComputedStyle(document.querySelector('.orderbell-toast-text')).direction];",
    )
    assert attributes == ["auto", "ar", "rtl"]


def test_a_later_version_of_the_storage_is_not_blocked_by_a_tab_of_this_one(
    profile: Profile, orderbell: Services, module_processes: Processes
) -> None:
    page = client(profile, orderbell, module_processes)
    orderbell.place_and_complete("1", message=order(1))
    wait_until(lambda: was_visible(page) == {order(1)})
    later = profile.new_page()
    later.goto(f"{orderbell.shop}metrics")
    opened = run(
        later,
        """
        return new Promise((resolve) => {
          const opening = indexedDB.open("orderbell", 2);
          opening.onblocked = () => resolve("blocked");
          opening.onsuccess = () => (opening.result.close(), resolve("open"));
          opening.onerror = () => resolve("error");
        });
        """,
    )
    assert opened == "open"
    page.bring_to_front()
    orderbell.place_and_complete("2", message=order(2))
    wait_until(lambda: was_visible(page) == {order(1), order(2)})


def test_a_thousand_alerts_are_listed_within_seconds_and_signing_out_leaves_none(
    shop: Page, orderbell: Services
) -> None:
    channel = f"customer:{orderbell.customer}"
    events = [
        {
            "specversion": "1.0",
            "id": f"{channel}-{n}",
            "source": "/kitchen",
            "type": "order.completed",
            "channel": channel,
        }
        | {
            "subject": str(n),
            "data": {"order_id": str(n), "customer_id": orderbell.customer, "message": order(n)},
        }
        for n in range(1_000)
    ]
    headers = {"content-type": "application/cloudevents-batch+json"}
    orderbell.api.post("/events", content=json.dumps(events), headers=headers).raise_for_status()
    shop.wait_for_function(
        f"document.querySelector('#alerts').textContent.includes('{order(999)}')", seconds=30
    )
    wait_until(lambda: seen(orderbell) == "1.1000", timeout=60)
    run(shop, "document.querySelector('#sign-out').click()")
    shop.wait_for_function("!document.querySelector('#welcome').hidden")
    assert shop.evaluate("document.querySelectorAll('.orderbell-toast, #alerts li').length") == 0
    assert shop.evaluate("Object.values(localStorage).join().includes('Order 999')") is False


def test_the_first_load_writes_nothing_on_the_console(
    package_firefox: Firefox, profile: Profile, orderbell: Services
) -> None:
    page = profile.new_page()
    page.goto(orderbell.shop)
    page.wait_for_function("!document.querySelector('#welcome').hidden")
    assert package_firefox.console(page) == []


@pytest.mark.parametrize(
    ("get_token", "kind"),
    [
        ("() => 'a.b.c'", "token"),
        ("() => { throw new Error('down'); }", "token"),
        ("() => ({ token: 'x' })", "refused"),
    ],
)
def test_mistakes_of_set_up_are_events_and_one_line_on_the_console(
    package_firefox: Firefox,
    profile: Profile,
    orderbell: Services,
    module_processes: Processes,
    get_token: str,
    kind: str,
) -> None:
    script = _CLIENT.replace("() => (given.token ? { token: given.token } : null)", get_token)
    page = client(profile, orderbell, module_processes, script=script)
    page.wait_for_function(f"errors.includes('{kind}')", seconds=30)
    lines = [line for line in package_firefox.console(page) if line.startswith("orderbell")]
    assert len(lines) == 1


def test_a_foreign_origin_is_told_which_setting_to_change(
    package_firefox: Firefox, profile: Profile, module_processes: Processes
) -> None:
    with running(module_processes, gateways=1) as strict:
        page = profile.new_page()
        page.goto(f"{strict.shop.replace('127.0.0.1', 'localhost')}metrics")
        token = module_processes.token("alice")
        run(page, _CLIENT, {"url": strict.shop, "customer": "alice", "token": token, "shows": True})
        page.wait_for_function("errors.includes('origin')", seconds=30)
        assert any("ORDERBELL_ALLOWED_ORIGINS" in line for line in package_firefox.console(page))


def test_base_a_missing_slash_a_changed_title_and_two_mounts_change_nothing(
    profile: Profile, orderbell: Services, module_processes: Processes
) -> None:
    page = client(profile, orderbell, module_processes)
    found = run(
        page,
        """
        const { Toasts, AlertSource, TitleBadge } = await import(location.origin + "/client/v1/orderbell.js");
        const base = document.createElement("base");
        base.href = "https://cdn.example/assets/";
        document.head.append(base);
        const bare = new AlertSource(given.slice(0, -1));
        const relative = new AlertSource("./");
        const urls = [bare.url, relative.url];
        bare.close();
        relative.close();
        toasts.destroy();
        new Toasts().destroy(); // StrictMode mounts twice
        const mounted = new Toasts();
        const count = (selector) => document.querySelectorAll(selector).length;
        const regions = [count(".orderbell-toasts"), count("[role=status]")];
        mounted.destroy();
        const badge = new TitleBadge();
        document.title = "Menu";
        badge.count = 2;
        const titles = [document.title];
        document.title = "Orders"; // of a single-page application
        badge.count = 0;
        titles.push(document.title);
        return [urls, regions, titles];
        """,
        orderbell.shop,
    )
    assert found[0] == [f"{orderbell.shop}events"] * 2
    assert found[1:] == [[1, 1], ["(2) Menu", "Orders"]]


def test_a_worker_receives_and_shows_nothing(
    profile: Profile, orderbell: Services, module_processes: Processes
) -> None:
    page = client(profile, orderbell, module_processes)
    token = module_processes.token(orderbell.customer)
    run(
        page,
        """
        const source = `
          import { AlertSource } from "${location.origin}/client/v1/orderbell.js";
          const getToken = () => ({ token: "${given.token}" });
          const alerts = new AlertSource("${given.url}", { key: "${given.customer}", getToken });
          alerts.addEventListener("alert", () => postMessage("alert"));
          alerts.addEventListener("message", () => postMessage("message"));
          alerts.addEventListener("open", () => postMessage("open"));
        `;
        window.said = [];
        const blob = new Blob([source], { type: "text/javascript" });
        const worker = new Worker(URL.createObjectURL(blob), { type: "module" });
        worker.onmessage = ({ data }) => said.push(data);
        worker.onerror = ({ message }) => said.push(message);
        """,
        {"url": orderbell.shop, "customer": orderbell.customer, "token": token},
    )
    wait_until(lambda: page.evaluate("said") == ["open"])
    orderbell.place_and_complete("1", message=order(1))
    wait_until(lambda: was_visible(page) == {order(1)})
    wait_until(lambda: page.evaluate("said") == ["open", "message"])


def test_a_page_that_is_left_and_come_back_to_shows_what_it_missed_once(
    shop: Page, orderbell: Services
) -> None:
    """Firefox may have kept it in its back/forward cache, without a connection, or load it anew."""
    orderbell.place_and_complete("1", message=order(1))
    wait_until(lambda: order(1) in was_visible(shop))
    wait_until(lambda: seen(orderbell) == "1.1")
    shop.evaluate("wasVisible.clear()")
    shop.goto(f"{orderbell.shop}livez")
    orderbell.place_and_complete("2", message=order(2))
    shop.go_back()
    wait_until(lambda: shop.evaluate("document.querySelectorAll('#alerts li').length") == 2)
    wait_until(lambda: seen(orderbell) == "1.2")
    assert was_visible(shop) == {order(2)}


def test_a_later_alert_seen_here_pops_up_on_no_other_device_and_the_earlier_one_does(
    package_firefox: Firefox, profile: Profile, orderbell: Services, module_processes: Processes
) -> None:
    here = client(profile, orderbell, module_processes, shows=False)
    run(
        here,
        "const never = new Promise(() => {});"
        "const show = (event) => event.shown(event.detail.seq === 2 ? true : never);"
        "alerts.addEventListener('alert', show);",
    )
    for number in (1, 2):
        orderbell.place_and_complete(str(number), message=order(number))
    wait_until(lambda: seen(orderbell) == "1.0+2")
    elsewhere = package_firefox.new_context()
    elsewhere.add_init_script(_LOOK)
    other = client(elsewhere, orderbell, module_processes)
    try:
        wait_until(lambda: was_visible(other) == {order(1)})
    except TimeoutError as error:
        error.add_note(run(other, _STATE))
        raise
    wait_until(lambda: seen(orderbell) == "1.2")
    assert other.evaluate("messages") == 2
    elsewhere.close()
