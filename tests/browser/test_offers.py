"""receiver/browser/offers.js: an alert is seen when it was on a screen, and left to others until then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import evaluate, open_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser

ALICE = "customer:alice"
# A listener that says when each alert was on the screen: `show.seen(2)`.
LATER = """
    const show = Object.assign((alert) => {
      const { promise, resolve, reject } = Promise.withResolvers();
      show.by[alert.detail.seq] = { resolve, reject, signal: alert.signal };
      alert.shown(promise);
    }, { by: {}, seen: (seq) => show.by[seq].resolve() });
"""


def test_what_is_on_the_screen_while_an_earlier_one_is_not_is_kept_beyond_it(page: Page) -> None:
    """It is reported beside the cursor, and not shown again."""
    seen = evaluate(
        page,
        f"""{LATER}
        const world = new World({{ show }});
        const socket = (await world.socket()).hello().event(1).event(2).event(3);
        await world.wait("alert", 3);
        show.seen(1);
        show.seen(3);
        await until(() => socket.sent.length > 0);
        await world.settle();
        world.pass(1_000);
        const before = [socket.sent.at(-1).data, await stored(), await storedBeyond()];
        show.seen(2);
        await world.settle();
        world.pass(1_000);
        await until(() => socket.sent.at(-1).data.cursor.endsWith("1.3"));
        return [...before, socket.sent.at(-1).data, await stored(), await storedBeyond()];
        """,
    )
    assert seen == [
        {"cursor": f"{ALICE}=1.1", "seen": f"{ALICE}=1.1+3"},
        f"{ALICE}=1.1",
        [{ALICE: [[3, 3]]}, [f"{ALICE}=1.2"]],
        {"cursor": f"{ALICE}=1.3"},
        f"{ALICE}=1.3",
        [{}, []],
    ]


def test_a_listener_that_throws_has_shown_nothing_and_ends_nothing(page: Page) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    seen = evaluate(
        page,
        """
        const show = ({ detail }) => detail.data.message;
        const world = new World({ show });
        const socket = (await world.socket()).hello();
        socket.event(1).event(2, { data: null }).event(3).event(4, { data: undefined }).event(5);
        await world.wait("alert", 5);
        await until(() => socket.sent.length > 0);
        world.pass(2_000);
        await world.settle();
        return [socket.sent.at(-1).data.cursor, await stored(), (await storedBeyond())[0]];
        """,
    )
    assert seen == [f"{ALICE}=1.1", f"{ALICE}=1.1", {ALICE: [[3, 3], [5, 5]]}]
    assert len(errors) == 2


@pytest.mark.parametrize("outcome", ["reject(new Error('no'))", "resolve(false)"])
def test_what_could_not_be_shown_is_offered_again_later(page: Page, outcome: str) -> None:
    seen = evaluate(
        page,
        f"""{LATER}
        const world = new World({{ show }});
        const socket = (await world.socket()).hello().event(1);
        await world.wait("alert", 1);
        const first = show.by[1];
        first.{outcome};
        await until(() => first.signal.aborted);
        await world.settle();
        const left = [await stored(), await storedBeyond(), [...socket.sent]];
        world.pass(5_000);
        await world.wait("alert", 2);
        show.seen(1);
        await until(() => socket.sent.length > 0);
        return [...left, socket.sent[0].data.cursor];
        """,
    )
    assert seen == [f"{ALICE}=1.0", [{}, []], [], f"{ALICE}=1.1"]


def test_a_tab_that_is_hidden_before_it_was_seen_gives_it_back(visit: Callable[[], Page]) -> None:
    one, other = visit(), visit()
    start = f"""{LATER}
        window.show = show;
        window.world = new World({{ key: "alice", show, environment: {{ now: Date.now }} }});
        window.socket = (await world.socket()).hello();
    """
    evaluate(one, start + "socket.event(1); await world.wait('alert', 1)")
    evaluate(other, start + "socket.event(1); await world.settle()")
    assert evaluate(other, "return world.of('alert')") == []
    evaluate(one, "world.document.become('hidden')")
    assert evaluate(one, "return show.by[1].signal.aborted") is True
    evaluate(other, "await world.wait('alert', 1); show.seen(1); await until(() => socket.sent.length > 0)")
    evaluate(one, "await until(() => world.of('shown').length > 0); world.document.become('visible')")
    evaluate(one, "await world.settle()")
    assert evaluate(one, "return [world.of('alert'), world.of('shown')]") == [
        [f"{ALICE}=1.1"],
        [f"{ALICE}=1.1 tab"],
    ]


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_a_tab_that_dies_before_it_was_seen_leaves_it_to_others(
    client_context: BrowserContext, how: str
) -> None:
    one, other = open_client(client_context), open_client(client_context)
    start = f"""{LATER}
        const own = {{ window, now: Date.now, setTimeout: (...timer) => setTimeout(...timer), clearTimeout }};
        own.clearTimeout = (timer) => clearTimeout(timer);
        window.world = new World({{ key: "alice", show, environment: own }});
        (await world.socket()).hello().event(1);
    """
    evaluate(one, start + "await world.wait('alert', 1)")
    evaluate(other, start + "await world.settle()")
    assert evaluate(other, "return world.of('alert')") == []
    if how == "closed":
        one.close(run_before_unload=False)
    else:
        session = client_context.new_cdp_session(one)
        session.send("Page.enable")
        with pytest.raises(Exception, match=r"crash|closed"):  # what remains of the page
            one.goto("chrome://crash")
    assert evaluate(other, "return world.wait('alert', 1)") == [f"{ALICE}=1.1"]


def test_a_tab_without_a_listener_swallows_nothing(page: Page) -> None:
    seen = evaluate(
        page,
        """
        const world = new World({ show: null });
        const socket = (await world.socket()).hello().event(1).event(2).event(3);
        await world.settle();
        world.pass(2_000);
        const before = [[...socket.sent], await stored(), world.source.shows];
        const shown = [];
        world.source.addEventListener("alert", ({ detail }) => shown.push(detail.seq), { once: true });
        await until(() => shown.length === 1);
        await world.settle();
        const once = [shown.slice(), world.source.shows];
        const listener = { handleEvent: ({ detail }) => shown.push(detail.seq) };
        world.source.addEventListener("alert", listener);
        await until(() => shown.length === 3);
        world.source.removeEventListener("alert", listener);
        socket.event(4);
        await world.settle();
        return [...before, ...once, shown, world.source.shows];
        """,
    )
    assert seen == [[], f"{ALICE}=1.0", False, [1], False, [1, 2, 3], False]


def test_listener_that_was_to_hear_one_alert_and_is_added_anew_goes_on_hearing(page: Page) -> None:
    seen = evaluate(
        page,
        """
        const world = new World({ show: null });
        const socket = (await world.socket()).hello();
        const shown = [];
        const listener = ({ detail }) => shown.push(detail.seq);
        world.source.addEventListener("alert", listener, { once: true });
        world.source.removeEventListener("alert", listener);
        world.source.addEventListener("alert", listener);
        socket.event(1);
        await until(() => shown.length === 1);
        const shows = [world.source.shows];
        world.source.removeEventListener("alert", listener);
        return [...shows, world.source.shows];
        """,
    )
    assert seen == [True, False]


@pytest.mark.parametrize(
    "style",
    [
        "display: none",
        "width: 0; height: 0; border: 0",
        "position: fixed; left: -9000px",
        "visibility: hidden",
        "opacity: 0",
    ],
)
def test_a_frame_that_nobody_can_see_leaves_its_alerts_to_others(
    visit: Callable[[], Page], style: str
) -> None:
    """`visibilityState` is "visible" in it, whatever the page around it does."""
    page = visit()
    evaluate(
        page,
        """
        const frame = Object.assign(document.createElement("iframe"), { src: "/" });
        frame.style = given;
        document.body.append(frame);
        await until(() => frame.contentWindow.World);
        """,
        style,
    )
    frame = page.frames[1]
    evaluate_in = "async () => {{ {} }}".format
    frame.evaluate(
        evaluate_in(
            "window.world = new World({ environment: { document } }); (await world.socket()).hello().event(1)"
        )
    )
    page.wait_for_timeout(500)
    frame.evaluate("world.pass(1_000)")
    looks = frame.evaluate("[document.visibilityState, world.source.shows, world.of('alert')]")
    assert looks == ["visible", False, []]
    page.evaluate("document.querySelector('iframe').style = ''")
    page.wait_for_timeout(100)
    frame.evaluate("world.pass(5_000)")
    assert frame.evaluate(evaluate_in("return world.wait('alert', 1)")) == [f"{ALICE}=1.1"]


def test_alerts_wait_for_room_and_then_are_claimed(visit: Callable[[], Page]) -> None:
    """Behind three toasts they are nobody's: another tab shows them, or this one when there is room."""
    page = visit()
    seen = evaluate(
        page,
        """
        const { Toasts } = await import("/client/v1/orderbell.js");
        const style = { rel: "stylesheet", href: "/client/v1/toast.css" };
        document.head.append(Object.assign(document.createElement("link"), style));
        window.toasts = new Toasts({ duration: 0 });
        const show = ({ detail }) => toasts.show(detail);
        const world = new World({ show, environment: { now: Date.now } });
        const socket = (await world.socket()).hello();
        for (let seq = 1; seq <= 5; seq += 1) {
          socket.event(seq);
          await new Promise((resolve) => setTimeout(resolve, 1_100));
        }
        const all = () => [...document.querySelectorAll(".orderbell-toast-text")];
        const texts = () => all().map((text) => text.textContent);
        await world.settle();
        const full = [world.of("alert").length, texts(), await stored(), await storedBeyond()];
        document.querySelector(".orderbell-toast-close").click();
        await world.wait("alert", 5);
        await until(() => texts().length === 4 && world.of("alert").length === 5);
        return [...full, texts()];
        """,
    )
    assert seen == [
        3,
        ["Order 1", "Order 2", "Order 3"],
        f"{ALICE}=1.3",
        [{}, []],
        ["Order 2", "Order 3", "Order 5", "Order 4"],
    ]


def test_handler_receives_without_showing_and_onalert_shows(page: Page) -> None:
    seen = evaluate(
        page,
        """
        const world = new World({ show: null });
        const { source } = world;
        const messages = [];
        source.onmessage = ({ data }) => messages.push(data.seq);
        const socket = (await world.socket()).hello().event(1);
        await until(() => messages.length === 1);
        const before = source.shows;
        const alerts = [];
        source.onalert = ({ detail }) => alerts.push(detail.seq);
        await until(() => alerts.length === 1);
        const during = source.shows;
        source.onalert = null;
        const after = source.shows;
        source.onmessage = null;
        socket.event(2);
        await world.wait("message", 2);
        return { messages, alerts, shows: [before, during, after] };
        """,
    )
    assert seen == {"messages": [1], "alerts": [1], "shows": [False, True, False]}


def test_handler_that_throws_has_shown_nothing_and_ends_nothing(page: Page) -> None:
    seen = evaluate(
        page,
        """
        const world = new World({ show: null });
        const { source } = world;
        source.onalert = ({ detail }) => {
          if (detail.seq === 1) throw new Error("this is a test");
        };
        const thrown = [];
        const hear = (event) => (event.preventDefault(), thrown.push(event.error.message));
        addEventListener("error", hear);
        const socket = (await world.socket()).hello().event(1).event(2);
        await until(() => thrown.length === 1);
        await until(() => socket.sent.length > 0);
        await world.settle();
        removeEventListener("error", hear);
        return [thrown, await stored(), (await storedBeyond())[0]];
        """,
    )
    assert seen == [["this is a test"], f"{ALICE}=1.0", {ALICE: [[2, 2]]}]


def test_clock_that_is_put_back_holds_up_no_alert(page: Page) -> None:
    alerts = evaluate(
        page,
        """
        const world = new World();
        const socket = (await world.socket()).hello();
        world.document.focused = false; // other tabs go first, for a moment
        socket.event(1);
        await world.wait("message", 1);
        await world.settle();
        world.setClock(-3_600_000);
        world.pass(1_000);
        return world.wait("alert", 1);
        """,
    )
    assert alerts == [f"{ALICE}=1.1"]


def test_alert_that_is_valid_by_the_server_pops_up_after_the_clock_was_set(page: Page) -> None:
    """What expires does so by the server's clock, which only a hello compares with ours."""
    alerts = evaluate(
        page,
        """
        const world = new World();
        const time = (ms) => new Date(1_000_000 + ms).toISOString();
        (await world.socket()).accept().say("orderbell.hello", given, { time: time(0) });
        await world.wait("open", 1);
        const alerts = [];
        for (const hour of [1, -1]) {
          world.setClock(hour * 3_600_000);
          world.pass(5_000);
          const socket = (await world.next()).accept();
          socket.say("orderbell.hello", given, { time: time(10_000) });
          await world.wait("open", alerts.length + 2);
          socket.event(alerts.length + 1, { expirytime: time(60_000) });
          alerts.push((await world.wait("alert", alerts.length + 1)).at(-1));
        }
        return alerts;
        """,
        {"cursor": f"{ALICE}=1.0", "channels": [ALICE], "heartbeat_seconds": 20, "gateway": "g"},
    )
    assert alerts == [f"{ALICE}=1.1", f"{ALICE}=1.2"]


def test_toasts_of_one_copy_of_the_client_report_to_the_source_of_another(
    visit: Callable[[], Page],
) -> None:
    """Else the alerts would count as shown when the listener returns, whether anybody saw them or not."""
    page = visit()
    seen = evaluate(
        page,
        """
        const { Toasts } = await import("/client/v1/bundle/orderbell.js");
        const toasts = new Toasts();
        document.body.style.visibility = "hidden";
        const world = new World({ show: ({ detail }) => toasts.show(detail) });
        const socket = (await world.socket()).hello().event(1);
        await world.wait("alert", 1);
        await world.settle();
        const before = [await stored(), (await storedBeyond())[1]];
        document.body.style.visibility = "visible";
        await until(() => socket.sent.length > 0);
        return [...before, socket.sent[0].data.cursor];
        """,
    )
    assert seen == [f"{ALICE}=1.0", [f"{ALICE}=1.1"], f"{ALICE}=1.1"]


ASYNC = """
    const world = new World({ show: null });
    const socket = (await world.socket()).hello();
    const { promise: loaded, resolve: load } = Promise.withResolvers();
"""


def test_an_async_listener_has_shown_an_alert_when_it_is_done_and_not_when_it_waits(page: Page) -> None:
    seen = evaluate(
        page,
        f"""{ASYNC}
        world.source.addEventListener("alert", async () => void (await loaded));
        socket.event(1);
        await world.settle();
        const before = [...socket.sent];
        load();
        await until(() => socket.sent.length > 0);
        return [before, socket.sent[0].data.cursor];
        """,
    )
    assert seen == [[], f"{ALICE}=1.1"]


def test_an_async_listener_that_rejects_has_shown_nothing_and_the_page_hears_of_it(page: Page) -> None:
    seen = evaluate(
        page,
        f"""{ASYNC}
        const errors = [];
        const hear = (event) => (event.preventDefault(), errors.push(event.reason.message));
        window.addEventListener("unhandledrejection", hear);
        let offered = 0;
        world.source.onalert = async () => {{
          offered += 1;
          await null;
          throw new Error("not loaded");
        }};
        socket.event(1);
        await until(() => offered === 1);
        await world.settle();
        const before = [await stored(), [...socket.sent]];
        world.pass(5_000);
        await until(() => offered === 2 && errors.length === 2);
        window.removeEventListener("unhandledrejection", hear);
        return [...before, errors[0]];
        """,
    )
    assert seen == [f"{ALICE}=1.0", [], "not loaded"]


def test_a_toast_that_an_async_listener_shows_later_says_when_it_was_seen(page: Page) -> None:
    """Another listener, which only counts, says nothing of it; nor does the end of one that does not wait."""
    seen = evaluate(
        page,
        f"""{ASYNC}
        const {{ Toasts }} = await import("/client/v1/orderbell.js");
        const toasts = new Toasts();
        let counted = 0;
        world.source.addEventListener("alert", async () => void (counted += 1));
        world.source.addEventListener("alert", async ({{ detail }}) => {{
          await loaded;
          toasts.show(detail);
        }});
        document.elementFromPoint = () => document.body; // over all toasts
        socket.event(1);
        await until(() => counted === 1);
        load();
        await until(() => document.querySelector(".orderbell-toast"));
        await new Promise((resolve) => setTimeout(resolve, 600));
        const before = [...socket.sent];
        delete document.elementFromPoint;
        await until(() => socket.sent.length > 0);
        toasts.destroy();
        return [before, socket.sent[0].data.cursor];
        """,
    )
    assert seen == [[], f"{ALICE}=1.1"]


def test_what_was_given_back_while_an_async_listener_waited_is_not_shown_by_it(page: Page) -> None:
    seen = evaluate(
        page,
        f"""{ASYNC}
        const {{ Toasts }} = await import("/client/v1/orderbell.js");
        const toasts = new Toasts();
        const outcomes = [];
        world.source.addEventListener("alert", async ({{ detail }}) => {{
          await loaded;
          outcomes.push(await toasts.show(detail));
        }});
        socket.event(1);
        await world.settle();
        world.document.become("hidden");
        load();
        await until(() => outcomes.length > 0);
        const visible = document.querySelectorAll(".orderbell-toast").length;
        toasts.destroy();
        return [outcomes, visible, socket.sent];
        """,
    )
    assert seen == [[False], 0, []]


def test_a_listener_that_is_removed_is_called_no_more_however_it_was_added(page: Page) -> None:
    seen = evaluate(
        page,
        f"""{ASYNC}
        const calls = [];
        const listener = {{ handleEvent: () => calls.push("object") }};
        const plain = () => calls.push("function");
        for (const one of [listener, plain, plain]) world.source.addEventListener("alert", one);
        socket.event(1);
        await until(() => calls.length === 2);
        for (const one of [listener, plain]) world.source.removeEventListener("alert", one);
        const shows = world.source.shows;
        socket.event(2);
        await world.settle();
        return [calls, shows];
        """,
    )
    assert seen == [["object", "function"], False]
