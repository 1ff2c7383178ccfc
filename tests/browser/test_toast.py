"""receiver/browser/toast.js: pop-ups that hinder no user, whatever their senses and input devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import evaluate, open_client, sideways

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.browser

MAKE = """
    const { Toasts } = await import("/client/v1/orderbell.js");
    const style = { rel: "stylesheet", href: "/client/v1/toast.css" };
    document.head.append(Object.assign(document.createElement("link"), style));
    window.toasts = new Toasts({ summary: (count) => `${count} orders are complete`, ...given });
    made.push(toasts);
"""
# Each test finds the document as it was loaded; a page of its own would cost ten times as much.
AS_NEW = """
    for (const one of window.made ?? []) one.destroy();
    window.made = [];
    window.seen = {};
    document.body.replaceChildren();
    for (const link of document.head.querySelectorAll("link")) link.remove();
    for (const element of [document.documentElement, document.body])
      for (const { name } of [...element.attributes]) element.removeAttribute(name);
    delete document.hidden;
    document.title = "Client";
    history.replaceState(null, "", "/");
    return document.body.childElementCount;
"""


@pytest.fixture(scope="module")
def module_page(browser: Browser) -> Iterator[Page]:
    """Its clock stands still."""
    context = browser.new_context()
    context.set_default_timeout(10_000)
    context.clock.install(time=0)
    page = open_client(context)
    page.clock.pause_at(60_000)
    yield page
    context.close()


@pytest.fixture
def page(module_page: Page) -> Page:
    module_page.set_viewport_size({"width": 1280, "height": 720})
    module_page.emulate_media(reduced_motion="null", forced_colors="null")
    module_page.mouse.move(0, 0)
    assert evaluate(module_page, AS_NEW) == 0
    return module_page


@pytest.fixture
def toasts(page: Page) -> Locator:
    """Its pop-ups, beside a button that has the focus."""
    button = (
        "document.body.prepend(document.createElement('button')); document.querySelector('button').focus()"
    )
    evaluate(page, MAKE + button)
    return page.locator(".orderbell-toast")


def show(page: Page, *texts: str, title: str = "") -> None:
    evaluate(
        page, "for (const text of given.texts) toasts.show(text, given)", {"texts": texts, "title": title}
    )


def slide_in(page: Page) -> None:
    """The toasts are where they stay."""
    evaluate(page, "for (const animation of document.getAnimations()) animation.finish()")


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
    """Only the topmost: people read one at a time."""
    show(page, "short", "x" * 200)
    page.clock.run_for(5_900)
    expect(toasts).to_have_count(2)
    page.clock.run_for(200)
    expect(toasts).to_have_text(["x" * 200 + "×"])
    page.clock.run_for(11_700)
    expect(toasts).to_have_count(1)
    page.clock.run_for(300)
    expect(toasts).to_have_count(0)


def test_however_long_a_text_is_it_goes_after_half_a_minute(page: Page, toasts: Locator) -> None:
    show(page, "word " * 12_000)
    page.clock.run_for(29_900)
    expect(toasts).to_have_count(1)
    assert len(toasts.locator(".orderbell-toast-text").inner_text()) < 600
    page.clock.run_for(200)
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


@pytest.mark.parametrize(
    "key",
    ["Escape", pytest.param("Enter", marks=pytest.mark.long), pytest.param("Space", marks=pytest.mark.long)],
)
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
    page.clock.run_for(600_000)
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
def test_nothing_moves_if_reduced_motion_is_asked_for(page: Page, toasts: Locator, motion: str) -> None:
    page.emulate_media(reduced_motion=motion)  # type: ignore[arg-type] # a Literal, parametrised
    show(page, "Order 1042 is complete")
    animation = toasts.evaluate("(toast) => getComputedStyle(toast).animationName")
    assert (animation == "none") is (motion == "reduce")


SEEN = """
    window.seen = {};
    window.note = (name, promise) => promise.then((was) => (seen[name] = was));
"""


def test_it_was_seen_once_it_was_on_the_screen_for_a_moment(page: Page, toasts: Locator) -> None:
    evaluate(page, SEEN + "note('one', toasts.show('Order 1'))")
    page.clock.run_for(200)
    assert evaluate(page, "return seen") == {}
    page.clock.run_for(300)
    assert evaluate(page, "return seen") == {"one": True}


def test_clock_that_is_put_back_changes_nothing(page: Page, toasts: Locator) -> None:
    """Else they would stay for an hour, be seen by nobody, and swallow each other."""
    evaluate(page, SEEN + "note('one', toasts.show('Order 1'))")
    page.clock.run_for(100)
    page.clock.set_system_time(-3_540_000)
    page.clock.run_for(500)
    assert evaluate(page, "return seen") == {"one": True}
    page.clock.run_for(700)
    show(page, "Order 2", "Order 3")
    expect(toasts).to_have_count(3)
    page.clock.run_for(300)
    expect(page.get_by_role("status")).to_contain_text("Order 3")
    page.clock.run_for(20_000)
    expect(toasts).to_have_count(0)


def test_a_break_begins_the_moment_anew(page: Page, toasts: Locator) -> None:
    hide = "document.querySelector('.orderbell-toasts').style.visibility = given"
    evaluate(page, SEEN + "note('one', toasts.show('Order 1'))")
    for visibility in ("visible", "hidden", "visible"):
        evaluate(page, hide, visibility)
        page.clock.run_for(200)
    assert evaluate(page, "return seen") == {}
    page.clock.run_for(300)
    assert evaluate(page, "return seen") == {"one": True}


def test_what_nobody_can_see_was_not_seen_and_does_not_grow_older(page: Page, toasts: Locator) -> None:
    evaluate(page, SEEN + "document.body.style.visibility = 'hidden'; note('one', toasts.show('Order 1'))")
    page.clock.run_for(60_000)
    expect(toasts).to_have_count(1)
    evaluate(page, "toasts.clear(); await 0")
    expect(toasts).to_have_count(0)


def test_one_that_is_closed_by_a_person_was_seen(page: Page, toasts: Locator) -> None:
    evaluate(page, SEEN + "note('one', toasts.show('Order 1'))")
    toasts.get_by_role("button").click()
    assert evaluate(page, "return seen") == {"one": True}


def test_what_is_withdrawn_before_it_was_seen_goes_and_afterwards_stays(page: Page, toasts: Locator) -> None:
    evaluate(
        page,
        SEEN
        + """
        window.one = new AbortController();
        window.two = new AbortController();
        note("one", toasts.show("Order 1", { signal: one.signal }));
        """,
    )
    page.clock.run_for(1_200)
    evaluate(page, "note('two', toasts.show('Order 2', { signal: two.signal })); one.abort(); two.abort()")
    expect(toasts).to_have_text(["Order 1×"])
    assert evaluate(page, "return seen") == {"one": True, "two": False}


def test_the_close_button_stays_under_the_pointer_in_a_stream_of_alerts(page: Page, toasts: Locator) -> None:
    """While somebody aims at it nothing is added, and what comes waits."""
    show(page, "Order 1")
    button = toasts.get_by_role("button")
    expect(button).to_be_visible()
    slide_in(page)
    box = button.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    evaluate(page, "window.button = document.querySelector('.orderbell-toast-close')")
    show(page, *(f"Order {n}" for n in range(2, 40)))
    page.clock.run_for(3_000)
    assert evaluate(page, "return button.isConnected")
    after = button.bounding_box()
    assert after is not None
    assert (after["x"], after["y"]) == pytest.approx((box["x"], box["y"]), abs=1)
    page.mouse.up()
    page.mouse.move(0, 0)
    expect(toasts).to_have_count(1)
    expect(toasts).to_contain_text("38 orders are complete")


DIALOG = """
    window.dialog = document.createElement("dialog");
    dialog.innerHTML = "<p>Pay now?</p><button>Yes</button>";
    document.body.append(dialog);
"""
ON_TOP = """
    const [toast] = document.querySelectorAll(".orderbell-toast");
    const { x, y, width, height } = toast.getBoundingClientRect();
    return toast.contains(document.elementFromPoint(x + width / 2, y + height / 2));
"""


@pytest.mark.parametrize("first", ["dialog", pytest.param("toast", marks=pytest.mark.long)])
def test_it_can_be_read_heard_and_closed_while_a_modal_dialog_is_open(
    page: Page, toasts: Locator, first: str
) -> None:
    evaluate(page, DIALOG)
    if first == "toast":
        show(page, "Order 1042 is complete")
    evaluate(page, "dialog.showModal()")
    if first == "dialog":
        show(page, "Order 1042 is complete")
    page.wait_for_function("() => dialog.querySelector('.orderbell-toast')")
    page.clock.run_for(500)
    assert evaluate(page, ON_TOP)
    expect(page.get_by_role("status")).to_have_text("Order 1042 is complete")  # in the accessible tree
    page.keyboard.press("F6")
    expect(page.get_by_role("button", name="Close: Order 1042")).to_be_focused()
    page.keyboard.press("Escape")
    expect(toasts).to_have_count(0)
    assert evaluate(page, "return dialog.open")
    evaluate(page, "dialog.close()")
    page.wait_for_function("() => document.querySelector('body > .orderbell-toasts')")
    show(page, "Order 1043 is complete")
    toasts.get_by_role("button").click()
    expect(toasts).to_have_count(0)


def test_a_dialog_that_is_taken_out_of_the_page_takes_no_toast_with_it(page: Page, toasts: Locator) -> None:
    evaluate(page, DIALOG + "dialog.showModal()")
    show(page, "Order 1042 is complete")
    page.wait_for_function("() => dialog.querySelector('.orderbell-toast')")
    evaluate(page, "dialog.remove()")
    expect(toasts).to_be_visible()
    show(page, "Order 1043 is complete")
    expect(toasts).to_have_count(2)


@pytest.mark.parametrize(
    ("width", "height"),
    [
        (320, 568),
        pytest.param(320, 256, marks=pytest.mark.long),
        pytest.param(667, 320, marks=pytest.mark.long),
    ],
    ids=["telephone", "400 % zoom", "landscape"],
)
def test_on_a_small_screen_there_is_one_at_a_time_and_room_beside_it(
    page: Page, toasts: Locator, width: int, height: int
) -> None:
    page.set_viewport_size({"width": width, "height": height})
    for n in range(1, 4):
        text = f"Order {n} is complete. " + "It waits for you at the counter, second floor. " * 9
        show(page, text, title="Soup")
        page.clock.run_for(1_100)
        expect(toasts).to_have_count(1)
        expect(toasts).to_contain_text("Order 1 is complete")
        slide_in(page)
        box = toasts.bounding_box()
        assert box is not None
        assert box["height"] <= height * 0.6
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= height
    toasts.get_by_role("button").click()
    page.mouse.move(0, 0)
    expect(toasts).to_contain_text("2 orders are complete")
    assert sideways(page) == 0


def test_texts_have_the_direction_and_the_language_that_they_are_in(page: Page, toasts: Locator) -> None:
    evaluate(page, "toasts.show('הזמנה 1042 הושלמה', { title: 'קפה', lang: 'he' })")
    text = toasts.locator(".orderbell-toast-text")
    expect(text).to_have_attribute("dir", "auto")
    expect(text).to_have_attribute("lang", "he")
    expect(toasts.locator(".orderbell-toast-title")).to_have_attribute("lang", "he")
    assert text.evaluate("(text) => getComputedStyle(text).direction") == "rtl"
    page.clock.run_for(500)
    expect(page.locator("[role=status] [lang=he]")).to_have_count(1)


@pytest.mark.long
def test_announcements_of_a_long_stream_are_few(page: Page, toasts: Locator) -> None:
    evaluate(
        page,
        """
        window.said = [];
        const announcer = document.querySelector("[role=status]");
        new MutationObserver(() => announcer.textContent && said.push(announcer.textContent))
          .observe(announcer, { childList: true });
        """,
    )
    for n in range(100):
        show(page, *(f"Order {n}-{m}" for m in range(20)))
        page.clock.run_for(1_000)
    said = evaluate(page, "return said")
    assert 2 <= len(said) <= 10
    assert all(len(text) < 700 for text in said)
    page.clock.run_for(60_000)
    expect(page.locator("[role=status]")).to_have_text("")


def test_what_was_destroyed_leaves_nothing(page: Page, toasts: Locator) -> None:
    """React's StrictMode makes everything twice, and destroys the first."""
    evaluate(page, "window.gone = toasts; const { Toasts } = await import('/client/v1/orderbell.js');"
                   "window.toasts = new Toasts(); made.push(toasts); gone.destroy()")  # fmt: skip
    show(page, "Order 1042 is complete")
    expect(toasts).to_have_count(1)
    expect(page.locator(".orderbell-toasts")).to_have_count(1)
    expect(page.locator("[role=status]")).to_have_count(1)


def show_event(page: Page, data: object, **attributes: object) -> None:
    event = {"id": "1", "type": "order.completed", "subject": "1042", "data": data, **attributes}
    evaluate(page, "toasts.show(given)", event)


ODD: list[object] = [
    *(None, 7, "text", True, [], {}),
    *({"message": message} for message in ("", "   ", None, {"a": 1}, "\u202e\u2066\u0000\ufeff ready")),
    {"message": "x" * 60_000, "link": "x" * 60_000, "actions": [{}] * 1_000},
    {"message": "Ready", "link": {"a": []}, "actions": {"a": 1}, "severity": {}, "values": 7},
    {"message_key": {}, "values": []},
]


@pytest.mark.long
def test_whatever_an_event_holds_a_toast_of_bounded_size_and_time_is_shown(
    page: Page, toasts: Locator
) -> None:
    for data in ODD:
        show_event(page, data)
        expect(toasts).to_have_count(1)
        assert 0 < len(toasts.locator(".orderbell-toast-text").inner_text()) < 600
        page.clock.run_for(30_200)
        expect(toasts).to_have_count(0)


def test_link_and_actions_are_reached_by_keyboard_and_say_what_they_do(page: Page, toasts: Locator) -> None:
    evaluate(page, "toasts.addEventListener('action', ({ detail }) => (window.chosen = detail))")
    actions = [{"label": "Track it", "url": "/track/1042"}, {"label": "Remind me", "event": "remind"}]
    show_event(page, {"message": "Order 1042 is late", "link": "/orders/1042", "actions": actions})
    link = toasts.get_by_role("link", name="Order 1042 is late")
    assert link.evaluate("(link) => link.href") == "http://client.test/orders/1042"
    assert (
        toasts.get_by_role("link", name="Track it").get_attribute("href") == "http://client.test/track/1042"
    )
    reached = []
    for _ in range(4):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent"))
    assert reached == ["Order 1042 is late", "Track it", "Remind me", "×"]
    page.keyboard.press("Shift+Tab")
    page.clock.run_for(60_000)  # nobody is hurried who has the focus in it
    page.keyboard.press("Enter")
    expect(toasts).to_have_count(0)
    chosen = page.evaluate("[chosen.action, chosen.event.subject]")
    assert chosen == ["remind", "1042"]


def test_following_a_link_counts_as_seen_and_closes_the_toast(page: Page, toasts: Locator) -> None:
    evaluate(page, SEEN + "note('one', toasts.show({ data: { message: 'Order 1', link: '#order-1' } }))")
    toasts.get_by_role("link").click()
    page.clock.run_for(10)
    expect(toasts).to_have_count(0)
    assert evaluate(page, "return seen") == {"one": True}
    assert page.url.endswith("#order-1")


def test_link_that_leads_elsewhere_is_left_out_and_the_text_stays(page: Page, toasts: Locator) -> None:
    for url in ("javascript:document.title='hit'", "https://evil.example/", "//evil.example"):
        show_event(page, {"message": "Order 1", "link": url, "actions": [{"label": "Go", "url": url}]})
        expect(toasts).to_have_text(["Order 1×"])
        expect(toasts.get_by_role("link")).to_have_count(0)
        evaluate(page, "toasts.clear()")


def test_critical_alert_stays_is_said_at_once_and_holds_up_no_other(page: Page, toasts: Locator) -> None:
    show_event(page, {"message": "The kitchen is closed", "severity": "critical"})
    expect(page.get_by_role("alert")).to_have_text("Urgent: The kitchen is closed")
    expect(page.get_by_role("status")).to_have_text("")
    page.clock.run_for(60_000)
    expect(toasts).to_have_count(1)
    expect(page.get_by_role("alert")).to_have_count(0)
    for n in range(1, 5):
        show(page, f"Order {n}")
        page.clock.run_for(1_100)
    expect(toasts).to_have_count(4)
    page.clock.run_for(60_000)
    expect(toasts).to_have_count(1)
    toasts.get_by_role("button").click()
    expect(toasts).to_have_count(0)


def test_on_a_small_screen_the_others_join_what_stays(page: Page, toasts: Locator) -> None:
    page.set_viewport_size({"width": 320, "height": 568})
    data = {"message": "The kitchen is closed", "severity": "critical"}
    show_event(page, {**data, "actions": [{"label": "Talk to us", "event": "talk"}]})
    page.clock.run_for(1_100)
    for n in range(1, 5):
        evaluate(page, SEEN + f"note('{n}', toasts.show('Order {n}'))")
        page.clock.run_for(1_100)
        assert evaluate(page, "return seen") == {str(n): True}
    expect(toasts).to_have_count(1)
    texts = ["The kitchen is closed", "Order 4", "Order 3", "…"]
    expect(toasts.locator(".orderbell-toast-text")).to_have_text(texts)
    expect(toasts.get_by_role("button", name="Talk to us")).to_be_visible()
    page.clock.run_for(60_000)
    expect(toasts).to_have_count(1)


def test_severity_shows_without_colour(page: Page, toasts: Locator) -> None:
    page.emulate_media(forced_colors="active")
    mark = "(toast) => getComputedStyle(toast.querySelector('.orderbell-toast-bell'), '::before').content"
    marks = set()
    for severity in ("info", "success", "warning", "critical"):
        show_event(page, {"message": "Order 1", "severity": severity})
        marks.add(toasts.evaluate(mark))
        evaluate(page, "toasts.clear()")
    assert len(marks) == 4


def test_texts_are_replaced_in_one_object_and_the_rest_stays(page: Page) -> None:
    evaluate(
        page,
        """
        const { LANGUAGES } = await import("/client/v1/languages.js");
        const texts = { ...LANGUAGES.he, close: "x", messages: { ready: "הזמנה {order}" } };
        const { Toasts } = await import("/client/v1/orderbell.js");
        window.toasts = new Toasts({ texts });
        made.push(toasts);
        """,
    )
    show_event(page, {"message_key": "ready", "values": {"order": 7}, "severity": "warning"})
    toast = page.locator(".orderbell-toast")
    expect(toast.locator(".orderbell-toast-text")).to_have_text("הזמנה 7")
    expect(toast.locator(".orderbell-toast-severity")).to_have_text("אזהרה")
    expect(toast.locator(".orderbell-toast-severity")).to_have_attribute("lang", "he")
    expect(page.get_by_role("region", name="התראות")).to_have_count(1)
    expect(page.get_by_role("button", name="x: הזמנה 7")).to_have_count(1)


def test_toasts_stand_at_the_end_of_a_page_that_runs_from_right_to_left(page: Page, toasts: Locator) -> None:
    evaluate(page, "document.documentElement.dir = 'rtl'")
    show(page, "הזמנה 1042 הושלמה")
    slide_in(page)
    box = toasts.bounding_box()
    assert box is not None
    assert box["x"] < 100
    bar = toasts.evaluate("(toast) => getComputedStyle(toast).borderRightWidth")
    assert bar == "4px"


def test_texts_of_both_directions_stand_at_the_same_edge(page: Page, toasts: Locator) -> None:
    evaluate(page, "document.documentElement.dir = 'rtl'")
    show(page, "הזמנה 1042 הושלמה")
    show(page, "Order 1042 is complete")
    expect(toasts).to_have_count(2)
    edges = toasts.locator(".orderbell-toast-text").evaluate_all(
        """(texts) => texts.map((text) => {
          const range = document.createRange();
          range.selectNodeContents(text);
          return Math.round(range.getBoundingClientRect().right);
        })"""
    )
    assert edges[0] == edges[1]


def test_toasts_that_are_made_before_the_page_has_a_body_show_once_it_has(page: Page) -> None:
    """An `async` module in the head may run before any of the page is there."""
    seen = evaluate(
        page,
        """
        const body = document.body;
        body.remove();
        try {
          window.toasts = new (await import("/client/v1/orderbell.js")).Toasts();
          made.push(toasts);
          toasts.show("early");
        } finally {
          document.documentElement.append(body);
        }
        toasts.show("late");
        for (let n = 0; n < 5; n += 1) await null; // the clock stands still
        return [...body.querySelectorAll(".orderbell-toast-text")].map(({ textContent }) => textContent);
        """,
    )
    assert seen == ["early", "late"]


def test_toasts_are_not_printed(page: Page, toasts: Locator) -> None:
    show(page, "Order 7 is complete")
    expect(toasts).to_be_visible()
    page.emulate_media(media="print")
    expect(toasts).to_be_hidden()
    page.emulate_media(media="screen")
