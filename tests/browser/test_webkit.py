"""What a person meets in WebKit, with Orderbell behind it: the claims of test_firefox.py, and some more.

WebKit is the engine of Safari, and of every browser on iOS. Here it has no graphics processor, so drawing is
slow. What was visible is read from outside, from the page's DOM.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING

import pytest

from tests.browser import test_firefox
from tests.browser.services import running
from tests.browser.test_firefox import _OPENED, order, run, seen, was_visible
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.browser.services import Services
    from tests.processes import Processes
    from tests.webkit import Page, Profile, WebKit

pytestmark = [pytest.mark.webkit, pytest.mark.long]

OF_FIREFOX = {
    # the driver loses a page that is loaded anew on going back; for one that was kept there is a test below
    "test_a_page_that_is_left_and_come_back_to_shows_what_it_missed_once",
    "test_a_thousand_alerts_are_listed_within_seconds_and_signing_out_leaves_none",  # drawn a few at a time
    "test_with_cookies_blocked_alerts_pop_up_and_what_is_not_promised_is_said_once",  # starts it so
    # WebDriver does not pass on the console
    "test_the_first_load_writes_nothing_on_the_console",
    "test_mistakes_of_set_up_are_events_and_one_line_on_the_console",
    "test_a_foreign_origin_is_told_which_setting_to_change",
}

for _name, _test in vars(test_firefox).items():
    if _name.startswith("test_") and inspect.isfunction(_test) and _name not in OF_FIREFOX:
        globals()[_name] = _test
shop = test_firefox.shop


@pytest.fixture(scope="module")
def package_firefox(package_webkit: WebKit) -> WebKit:
    return package_webkit


@pytest.fixture
def profile(package_webkit: WebKit) -> Iterator[Profile]:
    profile = package_webkit.new_context()
    profile.add_init_script(test_firefox._LOOK)
    yield profile
    profile.close()


def test_this_is_webkit(profile: Profile) -> None:
    agent = profile.new_page().evaluate("navigator.userAgent")
    assert "AppleWebKit" in agent
    assert "Chrome" not in agent


def test_of_two_visible_pages_one_shows_each_alert(
    profile: Profile, orderbell: Services, module_processes: Processes
) -> None:
    pages = [_client(profile, orderbell, module_processes, kind="window") for _ in range(2)]
    for number in range(1, 6):
        orderbell.place_and_complete(str(number), message=order(number))
    wait_until(lambda: seen(orderbell) == "1.5", timeout=60)
    shown = [page.evaluate("offered") for page in pages]
    assert sorted([*shown[0], *shown[1]]) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("transport", ["sse", "long-polling"])
def test_over_http_an_alert_pops_up_once_and_not_again_after_a_reload(
    profile: Profile, orderbell: Services, module_processes: Processes, transport: str
) -> None:
    page = _client(profile, orderbell, module_processes, transports=[transport])
    orderbell.place_and_complete("1", message=order(1))
    wait_until(lambda: was_visible(page) == {order(1)})
    assert page.evaluate("alerts.transport") == transport
    wait_until(lambda: seen(orderbell) == "1.1")
    page.reload()
    orderbell.place_and_complete("2", message=order(2))
    _run_client(page, orderbell, module_processes, transports=[transport])
    wait_until(lambda: seen(orderbell) == "1.2")
    assert was_visible(page) == {order(2)}


@pytest.mark.parametrize("transport", ["websocket", "sse", "long-polling"])
def test_after_a_gateway_was_killed_what_came_meanwhile_pops_up_once(
    profile: Profile, module_processes: Processes, transport: str
) -> None:
    with running(module_processes, gateways=1) as services:
        orderbell = dataclasses.replace(services, customer=f"alice-{transport}")
        page = _client(profile, orderbell, module_processes, transports=[transport])
        orderbell.place_and_complete("1", message=order(1))
        wait_until(lambda: was_visible(page) == {order(1)})
        wait_until(lambda: seen(orderbell) == "1.1")
        orderbell.gateways[0].kill()
        page.wait_for_function("alerts.readyState === 0", seconds=30)
        orderbell.place_and_complete("2", message=order(2))
        orderbell.gateways[0].start()
        wait_until(lambda: was_visible(page) == {order(1), order(2)}, timeout=60)
        assert page.evaluate("[messages, offered]") == [2, [1, 2]]


def test_a_page_in_the_back_forward_cache_leaves_its_alerts_to_others_and_goes_on_when_it_is_back(
    profile: Profile, orderbell: Services, module_processes: Processes
) -> None:
    page = _client(profile, orderbell, module_processes)
    orderbell.place_and_complete("1", message=order(1))
    wait_until(lambda: seen(orderbell) == "1.1")
    page.goto(f"{orderbell.shop}livez")
    orderbell.place_and_complete("2", message=order(2))
    other = _client(profile, orderbell, module_processes)
    wait_until(lambda: was_visible(other) == {order(2)})
    wait_until(lambda: seen(orderbell) == "1.2")
    page.go_back()
    page.bring_to_front()
    assert page.evaluate("typeof alerts") == "object"  # kept, not loaded anew
    page.wait_for_function("alerts.readyState === 1 && messages === 2")
    orderbell.place_and_complete("3", message=order(3))
    wait_until(lambda: seen(orderbell) == "1.3")
    assert page.evaluate("offered") == [1, 3]


def test_where_notifications_are_not_allowed_toasts_pop_up_all_the_same(
    profile: Profile, orderbell: Services, module_processes: Processes
) -> None:
    page = _client(profile, orderbell, module_processes)
    state = run(
        page,
        """
        const { DesktopAlerts } = await import("/client/v1/orderbell.js");
        const desktop = new DesktopAlerts();
        alerts.addEventListener("alert", ({ detail }) => desktop.show("Ready", { body: detail.id }));
        return desktop.state;
        """,
    )
    assert state != "granted"
    orderbell.place_and_complete("1", message=order(1))
    wait_until(lambda: was_visible(page) == {order(1)})
    wait_until(lambda: seen(orderbell) == "1.1")


def _client(
    profile: Profile,
    orderbell: Services,
    processes: Processes,
    *,
    kind: str = "tab",
    transports: Sequence[str] = ("websocket",),
) -> Page:
    page = profile.new_page(kind)
    page.goto(f"{orderbell.shop}metrics")
    _run_client(page, orderbell, processes, transports=transports)
    return page


def _run_client(page: Page, orderbell: Services, processes: Processes, *, transports: Sequence[str]) -> None:
    token = processes.token(orderbell.customer)
    given = {"url": orderbell.shop, "customer": orderbell.customer, "token": token, "shows": True}
    run(page, f"{_CLIENT}{_OPENED}", {**given, "transports": list(transports)})


_CLIENT = (
    test_firefox._CLIENT.replace(
        "new AlertSource(given.url, {", "new AlertSource(given.url, {transports: given.transports,"
    )
    + "window.offered = []; alerts.addEventListener('alert', ({ detail }) => offered.push(detail.seq));"
)
