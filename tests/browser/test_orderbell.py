"""receiver/browser/orderbell.js: how an AlertSource handles its gateway's messages, without a gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import ORIGIN, evaluate, load_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

ALICE = "customer:alice"


def test_hello_opens_and_events_are_handed_over_and_shown_in_order(page: Page) -> None:
    seen = evaluate(
        page,
        """
        const world = new World();
        const socket = await world.socket();
        const before = world.source.readyState;
        socket.hello("customer:alice=1.4,topic:menu=1.7").event(5).event(6);
        socket.event(8, { channel: "topic:menu" });
        await world.wait("alert", 3);
        return {
          before, fired: world.fired, after: socket.after, protocol: socket.protocol, url: String(socket.url),
          readyState: world.source.readyState, channels: world.source.channels,
          last: world.source.lastEventId,
        };
        """,
    )
    assert seen["url"] == "wss://gateway.example/events"
    assert seen["protocol"] == "cloudevents.json"
    assert (seen["before"], seen["after"], seen["readyState"]) == (0, None, 1)
    assert seen["channels"] == [ALICE, "topic:menu"]
    assert seen["last"] == "customer:alice=1.6,topic:menu=1.8"
    fired = [tuple(one) for one in seen["fired"]]
    assert fired[0] == ("open", None)
    cursors = ["customer:alice=1.5", "customer:alice=1.6", "topic:menu=1.8"]
    assert [what for kind, what in fired if kind == "message"] == cursors
    assert [what for kind, what in fired if kind == "alert"] == cursors


@pytest.mark.parametrize("credential", [{"token": "e30.e30.x"}, {"ticket": "t"}])
def test_a_credential_is_the_first_message_and_never_in_the_url(
    page: Page, credential: dict[str, str]
) -> None:
    first, url = evaluate(
        page,
        """
        const world = new World({ getToken: async () => given });
        const socket = (await world.socket()).accept();
        return [socket.sent[0], String(socket.url)];
        """,
        credential,
    )
    assert (first["type"], first["data"], first["specversion"]) == ("orderbell.auth", credential, "1.0")
    assert url == "wss://gateway.example/events"


def test_a_cookie_alone_sends_nothing_before_hello(page: Page) -> None:
    sent = evaluate(
        page,
        """
        const world = new World({ getToken: async () => null });
        return (await world.socket()).accept().sent;
        """,
    )
    assert sent == []


def test_duplicates_are_dropped(page: Page) -> None:
    messages = evaluate(
        page,
        """
        const world = new World();
        const socket = (await world.socket()).hello();
        socket.event(1).event(2).event(1).event(2).event(3);
        await world.wait("alert", 3);
        return [world.of("message"), world.of("alert")];
        """,
    )
    assert messages == [[f"{ALICE}=1.{n}" for n in (1, 2, 3)]] * 2


def test_a_hole_is_never_passed_over_but_asked_for_again(page: Page) -> None:
    after, messages, left = evaluate(
        page,
        """
        const world = new World();
        const first = (await world.socket()).hello();
        first.event(1).event(3);
        first.event(4); // of a connection that is left already
        world.pass(500);
        const second = await world.socket();
        second.hello("customer:alice=1.1").event(2).event(3);
        await world.wait("alert", 3);
        return [second.after, world.of("message"), first.left];
        """,
    )
    assert (after, left) == (f"{ALICE}=1.1", True)
    assert messages == [f"{ALICE}=1.{n}" for n in (1, 2, 3)]


def test_a_hole_that_nobody_can_fill_is_said_and_left_behind(page: Page) -> None:
    resets, messages, after = evaluate(
        page,
        """
        const world = new World();
        for (let n = 0; n < 3; n += 1) {
          (await world.socket()).hello("customer:alice=1.1").event(5);
          world.pass(2_000);
        }
        const socket = await world.socket();
        socket.hello("customer:alice=1.4").event(5);
        await world.wait("alert", 1);
        return [world.of("reset"), world.of("message"), socket.after];
        """,
    )
    assert resets == [{"channel": ALICE, "reason": "unavailable", "cursor": f"{ALICE}=1.4", "refetch": None}]
    assert messages == [f"{ALICE}=1.5"]
    assert after == f"{ALICE}=1.4"


def test_a_lost_connection_goes_on_where_it_was(page: Page) -> None:
    seen = evaluate(
        page,
        """
        const world = new World();
        const first = (await world.socket()).hello("customer:alice=1.4,topic:menu=1.0");
        first.event(5);
        first.end(1006);
        first.event(6); // what a closed socket still says
        const connecting = world.source.readyState;
        world.pass(249);
        const early = world.sockets.length;
        world.pass(1);
        const second = await world.socket();
        return { connecting, early, after: second.after, reconnecting: world.of("reconnecting"),
                 messages: world.of("message"), closed: world.of("close") };
        """,
    )
    assert seen["connecting"] == 0
    assert seen["early"] == 1
    assert seen["after"] == f"{ALICE}=1.5,topic:menu=1.0"
    assert seen["reconnecting"] == [{"attempt": 1, "delay": 250, "code": 1006, "reason": ""}]
    assert seen["messages"] == [f"{ALICE}=1.5"]
    assert seen["closed"] == []


@pytest.mark.parametrize("code", [1000, 1002, 1008, 4400])
def test_a_code_that_says_stop_ends_it_for_good(page: Page, code: int) -> None:
    closed, state, sockets = evaluate(
        page,
        """
        const world = new World();
        (await world.socket()).hello().end(given);
        world.pass(120_000);
        return [world.of("close"), world.source.readyState, world.sockets.length];
        """,
        code,
    )
    assert (closed, state, sockets) == ([code], 2, 1)


def test_after_4401_a_new_token_is_asked_for_and_more_slowly_as_long_as_another_comes(page: Page) -> None:
    """The clock of one gateway, or of the shop, is wrong: that passes."""
    tokens, delays, errors, closed = evaluate(
        page,
        """
        let asked = 0;
        const world = new World({ getToken: async () => ({ token: `t${++asked}` }) });
        const tokens = [];
        for (const welcome of [true, true, false, false, false, true]) {
          const socket = await world.next();
          welcome ? socket.hello() : socket.accept();
          tokens.push(socket.sent[0].data.token);
          if (!welcome) socket.end(4401, "refused");
          else if (tokens.length < 6) socket.end(4401, "expired");
        }
        const delays = world.of("reconnecting").map(({ delay }) => delay);
        return [tokens, delays, world.of("error"), world.of("close")];
        """,
    )
    assert tokens == [f"t{n}" for n in range(1, 7)]
    assert closed == []
    assert errors[0] == "refused"
    assert max(delays[:1]) < 1_000
    assert min(delays[2:5]) >= 5_000


def test_the_same_token_refused_twice_ends_it_and_the_reason_is_said(page: Page) -> None:
    seen = evaluate(
        page,
        """
        const world = new World({ getToken: async () => ({ token: "t" }) });
        for (let n = 0; n < 2; n += 1) {
          (await world.next()).accept().end(4401, "expired");
        }
        return [await world.wait("close", 1), world.of("error"), world.sockets.length];
        """,
    )
    assert seen == [[4401], ["refused"], 2]


def test_a_cookie_that_is_refused_is_tried_three_times(page: Page) -> None:
    seen = evaluate(
        page,
        """
        const world = new World();
        for (let n = 0; n < 3; n += 1) {
          (await world.next()).accept().end(4401);
        }
        world.pass(60_000);
        return [world.of("close"), world.sockets.length];
        """,
    )
    assert seen == [[4401], 3]


def test_a_token_that_cannot_be_had_now_is_asked_for_again(page: Page) -> None:
    seen = evaluate(
        page,
        """
        let asked = 0;
        const getToken = async () => {
          if (++asked === 1) throw new Error("offline");
          return { token: "t" };
        };
        const world = new World({ getToken });
        await world.wait("reconnecting", 1);
        world.pass(500);
        (await world.socket()).hello();
        return [world.of("reconnecting")[0].reason, world.of("error"), world.source.readyState];
        """,
    )
    assert seen == ["no token: Error: offline", ["token"], 1]


def test_4403_is_tried_once_more_without_the_cursor_then_resumed(page: Page) -> None:
    """The cursor names a topic that the token no longer has: what remains is resumed, not lost."""
    seen = evaluate(
        page,
        """
        const world = new World();
        (await world.socket()).hello("customer:alice=1.4,topic:old=1.2").event(5).end(1006);
        world.pass(2_000);
        const afters = [];
        const refused = await world.socket();
        afters.push(refused.after);
        refused.accept().end(4403);
        world.pass(2_000);
        const bare = await world.socket();
        afters.push(bare.after);
        bare.hello("customer:alice=1.9");
        world.pass(2_000);
        const resumed = await world.socket();
        afters.push(resumed.after);
        resumed.hello("customer:alice=1.5").event(6);
        return [afters, world.of("message"), world.of("close")];
        """,
    )
    afters, messages, closed = seen
    assert afters == [f"{ALICE}=1.5,topic:old=1.2", None, f"{ALICE}=1.5"]
    assert messages == [f"{ALICE}=1.5", f"{ALICE}=1.6"]
    assert closed == []


@pytest.mark.parametrize("known", [True, False])
def test_4403_that_is_not_the_cursors_fault_ends_it(page: Page, known: bool) -> None:
    closed, sockets = evaluate(
        page,
        """
        const world = new World();
        if (given) (await world.socket()).hello().end(1006);
        for (let n = 0; n < (given ? 2 : 1); n += 1) {
          world.pass(2_000);
          (await world.socket()).accept().end(4403);
        }
        world.pass(60_000);
        return [world.of("close"), world.sockets.length];
        """,
        known,
    )
    assert (closed, sockets) == ([4403], 3 if known else 1)


def test_bye_says_when_to_come_back(page: Page) -> None:
    delays = evaluate(
        page,
        """
        const world = new World();
        (await world.socket()).hello().say("orderbell.bye", { retry_after_ms: 1234 }).end(1012);
        world.pass(1233);
        const early = world.sockets.length;
        world.pass(1);
        (await world.socket()).end(1012); // this one says nothing
        return [early, world.of("reconnecting").map(({ delay }) => delay)];
        """,
    )
    assert delays == [1, [1234, 2500]]


def test_no_hello_within_ten_seconds_is_a_failed_connection(page: Page) -> None:
    seen = evaluate(
        page,
        """
        const world = new World();
        const silent = (await world.socket()).accept();
        world.pass(10_000);
        const reconnecting = world.of("reconnecting");
        world.pass(500);
        (await world.socket()).hello();
        world.pass(60_000);
        return [silent.left, reconnecting[0].reason, world.source.readyState, world.sockets.length];
        """,
    )
    assert seen == [True, "no hello", 1, 2]


@pytest.mark.parametrize(
    ("reason", "cursor"), [("pruned", "1.40"), ("epoch", "2.3"), ("future", "1.2"), ("unavailable", "1.9")]
)
def test_a_reset_is_reported_and_alerts_go_on_from_it(page: Page, reason: str, cursor: str) -> None:
    told = {"channel": ALICE, "reason": reason, "cursor": f"{ALICE}={cursor}", "refetch": "/orders"}
    resets, kept, after = evaluate(
        page,
        """
        const world = new World();
        const first = (await world.socket()).hello("customer:alice=1.4");
        first.event(5);
        await world.wait("alert", 1);
        first.say("orderbell.reset", given);
        await world.settle();
        const kept = await stored();
        first.end(1006);
        world.pass(2_000);
        return [world.of("reset"), kept, (await world.socket()).after];
        """,
        told,
    )
    assert resets == [told]
    assert kept == after == f"{ALICE}={cursor}"


def test_an_event_of_the_system_that_is_not_known_here_is_passed_over(page: Page) -> None:
    """A newer server's; and it is no word of the gateway's own."""
    seen = evaluate(
        page,
        """
        const world = new World();
        const socket = (await world.socket()).hello();
        const place = { channel: "customer:alice", epoch: 1, seq: 1 };
        socket.say("orderbell.reset", { channel: "customer:alice", cursor: "customer:alice=9.9" }, place);
        socket.event(2);
        await world.wait("alert", 1);
        return [world.of("message"), world.of("reset")];
        """,
    )
    assert seen == [[f"{ALICE}=1.2"], []]


def test_what_is_no_json_is_ignored_and_what_it_was_is_asked_for_again(page: Page) -> None:
    after = evaluate(
        page,
        """
        const world = new World();
        const socket = (await world.socket()).hello().event(1);
        socket.dispatchEvent(new MessageEvent("message", { data: "{" }));
        socket.event(3);
        world.pass(500);
        return (await world.socket()).after;
        """,
    )
    assert after == f"{ALICE}=1.1"


def test_what_was_shown_is_reported_at_once_then_once_a_second(page: Page) -> None:
    reports = evaluate(
        page,
        """
        const world = new World();
        const socket = (await world.socket()).hello("customer:alice=1.0,topic:menu=1.0");
        const reports = [];
        const told = ({ type, data }) => `${type} ${data.cursor}`;
        const note = () => reports.push(socket.sent.splice(0).map(told));
        socket.event(1);
        await until(() => socket.sent.length > 0);
        note();
        socket.event(2).event(3).event(1, { channel: "topic:menu" });
        await world.wait("alert", 4);
        await world.settle();
        note();
        world.pass(1_000);
        note();
        world.pass(1_000);
        note();
        return reports;
        """,
    )
    assert reports == [[f"orderbell.seen {ALICE}=1.1"], [], [f"orderbell.seen {ALICE}=1.3"], []]


def test_a_report_that_may_be_lost_is_made_again_with_the_next_connection(page: Page) -> None:
    sent = evaluate(
        page,
        """
        const world = new World();
        const first = (await world.socket()).hello().event(1);
        await until(() => first.sent.length > 0);
        first.end(1006);
        world.pass(500);
        const second = (await world.socket()).hello("customer:alice=1.1");
        return second.sent.map(({ type, data }) => [type, data.cursor]);
        """,
    )
    assert sent == [["orderbell.seen", f"{ALICE}=1.1"]]


def test_what_another_device_has_shown_does_not_pop_up_here(page: Page) -> None:
    """Away while the telephone showed it: it comes into the list, silently, and is remembered."""
    seen = evaluate(
        page,
        """
        const world = new World();
        const socket = (await world.socket()).hello().say("orderbell.seen", { cursor: "customer:alice=1.2" });
        socket.event(1).event(2).event(3);
        await world.wait("alert", 1);
        await world.settle();
        return [world.of("message"), world.of("alert"), world.of("shown"), await stored()];
        """,
    )
    cursors = [f"{ALICE}=1.{n}" for n in (1, 2, 3)]
    assert seen == [cursors, cursors[2:], [f"{cursors[1]} device"], cursors[2]]


def test_a_later_one_that_another_device_has_shown_does_not_pop_up_and_the_earlier_one_does(
    page: Page,
) -> None:
    seen = evaluate(
        page,
        """
        const shown = [];
        const world = new World();
        const note = ({ detail: { first, place, by } }) => shown.push([first.seq, place.seq, by]);
        world.source.addEventListener("shown", note);
        const socket = (await world.socket()).hello("customer:alice=1.1");
        socket.say("orderbell.seen", { cursor: "customer:alice=1.1", seen: "customer:alice=1.1+3-4+6" });
        for (const seq of [2, 3, 4, 5, 6]) socket.event(seq);
        await world.wait("alert", 2);
        await world.settle();
        world.pass(1_000);
        socket.say("orderbell.seen", { cursor: "customer:alice=1.4", seen: "customer:alice=1.4+6" });
        const { data } = socket.sent.at(-1);
        return [world.of("message").length, world.of("alert"), shown, await stored(), data];
        """,
    )
    alerts = [f"{ALICE}=1.2", f"{ALICE}=1.5"]
    shown = [[1, 1, "device"], [3, 4, "device"], [6, 6, "device"]]
    assert seen == [5, alerts, shown, f"{ALICE}=1.6", {"cursor": f"{ALICE}=1.6"}]


def test_set_that_comes_while_alerts_wait_here_takes_those_away_that_are_in_it(page: Page) -> None:
    alerts = evaluate(
        page,
        """
        const world = new World();
        world.document.become("hidden");
        const socket = (await world.socket()).hello().event(1).event(2).event(3);
        await world.settle();
        socket.say("orderbell.seen", { cursor: "customer:alice=1.0", seen: "customer:alice=1.0+2" });
        world.document.become("visible");
        world.pass(1_000);
        await world.wait("alert", 2);
        await world.settle();
        return world.of("alert");
        """,
    )
    assert alerts == [f"{ALICE}=1.1", f"{ALICE}=1.3"]


def test_reports_of_our_own_that_come_back_are_no_news(page: Page) -> None:
    shown = evaluate(
        page,
        """
        const world = new World();
        const socket = (await world.socket()).hello().event(1);
        await world.wait("alert", 1);
        socket.say("orderbell.seen", { cursor: "customer:alice=1.1" });
        return world.of("shown");
        """,
    )
    assert shown == []


def test_a_page_in_the_back_forward_cache_has_no_connection_and_resumes(page: Page) -> None:
    seen = evaluate(
        page,
        """
        const world = new World();
        const first = (await world.socket()).hello().event(1);
        world.window.dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true }));
        const left = first.left;
        world.pass(300_000);
        const asleep = world.sockets.length;
        world.window.dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
        return [left, asleep, (await world.socket()).after];
        """,
    )
    assert seen == [True, 1, f"{ALICE}=1.1"]


def test_offline_alone_ends_nothing_but_online_after_it_renews(page: Page) -> None:
    """A gateway on the same machine is reached without a network."""
    seen = evaluate(
        page,
        """
        const world = new World();
        const first = (await world.socket()).hello();
        world.window.dispatchEvent(new Event("online")); // it never was offline
        world.window.dispatchEvent(new Event("offline"));
        world.pass(60_000);
        const kept = !first.left;
        world.window.dispatchEvent(new Event("online"));
        world.pass(1_000);
        (await world.socket()).hello();
        return [kept, first.left, world.sockets.length];
        """,
    )
    assert seen == [True, True, 2]


def test_waking_from_sleep_renews_the_connection(page: Page) -> None:
    seen = evaluate(
        page,
        """
        const world = new World();
        const first = (await world.socket()).hello();
        world.pass(600_000);
        const quiet = first.left; // ten quiet minutes are no sleep
        world.time += 200_000; // the machine sleeps: the clock goes on, no timer fires
        world.pass(10_000);
        world.pass(1_000);
        await world.socket();
        return [quiet, first.left, world.sockets.length];
        """,
    )
    assert seen == [False, True, 2]


def test_looking_at_the_page_cuts_a_long_delay_short(page: Page) -> None:
    sockets = evaluate(
        page,
        """
        const world = new World();
        world.random = 0.99;
        (await world.socket()).end(4409);
        world.document.become("hidden");
        world.pass(5_000);
        const before = world.sockets.length;
        world.document.become("visible");
        world.pass(1_000);
        await world.socket();
        return [before, world.sockets.length];
        """,
    )
    assert sockets == [1, 2]


def test_close_ends_everything(page: Page) -> None:
    seen = evaluate(
        page,
        """
        const world = new World();
        const socket = (await world.socket()).hello();
        world.source.close();
        world.source.close();
        socket.event(1);
        world.window.dispatchEvent(new Event("offline"));
        world.window.dispatchEvent(new Event("online"));
        world.pass(600_000);
        return [
          world.of("close"), world.of("message"), world.source.readyState, socket.left, world.sockets.length,
        ];
        """,
    )
    assert seen == [[1000], [], 2, True, 1]


def test_a_tab_that_is_looked_at_shows_before_one_that_is_not(page: Page) -> None:
    seen = evaluate(
        page,
        """
        const shows = async (visibilityState, focused, ms) => {
          const desktop = { state: "granted" }; // a hidden tab shows nothing else
          const world = new World({ key: visibilityState + focused, desktop });
          world.document.visibilityState = visibilityState;
          world.document.focused = focused;
          (await world.socket()).hello().event(1);
          world.pass(ms - 1);
          await world.settle();
          const before = world.of("alert").length;
          world.pass(1);
          await world.wait("alert", 1);
          return before;
        };
        return [await shows("visible", false, 50), await shows("hidden", false, 250)];
        """,
    )
    assert seen == [0, 0]


def test_a_tab_that_is_not_on_a_screen_shows_nothing_until_it_is(page: Page) -> None:
    seen = evaluate(
        page,
        """
        const world = new World();
        world.document.visibilityState = "hidden";
        const socket = (await world.socket()).hello().event(1).event(2);
        world.pass(60_000);
        await world.settle();
        const hidden = [world.of("alert"), [...socket.sent], await stored(), world.source.shows];
        world.document.become("visible");
        await world.wait("alert", 2);
        await until(() => socket.sent.length > 0);
        world.pass(1_000);
        await world.settle();
        return [...hidden, world.of("alert"), socket.sent.at(-1).data.cursor];
        """,
    )
    cursors = [f"{ALICE}=1.1", f"{ALICE}=1.2"]
    assert seen == [[], [], f"{ALICE}=1.0", False, cursors, cursors[1]]


def test_a_page_that_is_prerendered_claims_nothing_until_somebody_opens_it(page: Page) -> None:
    """Not even for an alert of the desktop, which a hidden page may show."""
    seen = evaluate(
        page,
        """
        const world = new World({ desktop: { state: "granted" } });
        world.document.visibilityState = "hidden";
        world.document.prerendering = true;
        const socket = (await world.socket()).hello().event(1);
        world.pass(60_000);
        await world.settle();
        const before = [world.of("alert"), [...socket.sent], (await storedBeyond())[1], world.source.shows];
        world.document.prerendering = false;
        world.document.visibilityState = "visible";
        world.document.dispatchEvent(new Event("prerenderingchange"));
        return [...before, await world.wait("alert", 1)];
        """,
    )
    assert seen == [[], [], [], False, [f"{ALICE}=1.1"]]


def test_a_new_visit_goes_on_after_what_was_shown(visit: Callable[[], Page]) -> None:
    page = visit()
    evaluate(
        page,
        """
        const world = new World({ key: "alice" });
        const socket = (await world.socket()).hello("customer:alice=1.4,topic:menu=1.7").event(5);
        await until(() => socket.sent.length > 0); // reported, so remembered
        """,
    )
    load_client(page)
    after = evaluate(page, "return (await new World({ key: 'alice' }).socket()).after")
    assert after == f"{ALICE}=1.5,topic:menu=1.7"


def test_a_tombstone_moves_the_cursor_and_shows_and_reports_nothing(visit: Callable[[], Page]) -> None:
    page = visit()
    fired, last, reported = evaluate(
        page,
        """
        const world = new World({ key: "alice" });
        const socket = (await world.socket()).hello("customer:alice=1.4").event(5).tombstone(6).event(7);
        await world.wait("alert", 2);
        socket.tombstone(8);
        world.pass(2_000); // as long as reports are held back
        await world.settle();
        return [world.fired, world.source.lastEventId, socket.sent.map((message) => message.data.cursor)];
        """,
    )
    assert [tuple(one) for one in fired] == [
        ("open", None),
        ("message", f"{ALICE}=1.5"),
        ("message", f"{ALICE}=1.7"),
        ("alert", f"{ALICE}=1.5"),
        ("alert", f"{ALICE}=1.7"),
    ]
    assert last == f"{ALICE}=1.8"
    assert reported[-1] == f"{ALICE}=1.7"
    load_client(page)
    after = evaluate(page, "return (await new World({ key: 'alice' }).socket()).after")
    assert after == f"{ALICE}=1.8"


def test_a_tombstone_does_not_pass_over_what_was_not_shown_yet(visit: Callable[[], Page]) -> None:
    page = visit()
    evaluate(
        page,
        """
        const world = new World({ key: "alice" });
        world.document.visibilityState = "hidden"; // the event would be shown in 250 ms
        (await world.socket()).hello("customer:alice=1.4").event(5).tombstone(6);
        await world.settle();
        world.source.close();
        world.pass(1_000);
        await world.settle();
        """,
    )
    load_client(page)
    after = evaluate(page, "return (await new World({ key: 'alice' }).socket()).after")
    assert after == f"{ALICE}=1.4"


def test_an_event_that_was_not_shown_yet_is_not_remembered(visit: Callable[[], Page]) -> None:
    page = visit()
    evaluate(
        page,
        """
        const world = new World({ key: "alice" });
        world.document.visibilityState = "hidden"; // it would be shown in 250 ms
        (await world.socket()).hello("customer:alice=1.4").event(5);
        await world.settle();
        """,
    )
    load_client(page)
    after = evaluate(page, "return (await new World({ key: 'alice' }).socket()).after")
    assert after == f"{ALICE}=1.4"


@pytest.mark.parametrize("url", ["https://host.example/sub", "https://host.example/sub/"])
def test_an_address_is_a_folder_with_its_slash_or_without(page: Page, url: str) -> None:
    made = evaluate(
        page,
        """
        const { AlertSource } = await import("/client/v1/orderbell.js");
        const source = new AlertSource(given, { key: "nobody" });
        const made = source.url;
        source.close();
        return made;
        """,
        url,
    )
    assert made == "https://host.example/sub/events"


def test_what_the_page_says_of_its_base_is_for_its_links(visit: Callable[[], Page]) -> None:
    page = visit()
    made = evaluate(
        page,
        """
        const { AlertSource } = await import("/client/v1/orderbell.js");
        const base = Object.assign(document.createElement("base"), { href: "https://cdn.example/assets/" });
        document.head.append(base);
        return ["/", "alerts"].map((url) => {
          const source = new AlertSource(url, { key: "nobody" });
          source.close();
          return source.url;
        });
        """,
    )
    assert made == [f"{ORIGIN}/events", f"{ORIGIN}/alerts/events"]


HEARS = '{ accepts: ["orderbell.ping"] }'


def test_a_connection_that_has_fallen_silent_is_left_within_45_seconds(page: Page) -> None:
    """A proxy that passes nothing on does not pass a close on either."""
    seen = evaluate(
        page,
        f"""
        const world = new World();
        const socket = (await world.socket()).hello(undefined, {HEARS});
        for (let n = 0; n < 6; n += 1) {{
          world.pass(20_000);
          socket.say("orderbell.heartbeat", {{}});
        }}
        const kept = !socket.left;
        world.pass(30_000);
        const patient = !socket.left;
        world.pass(14_000);
        await world.socket();
        return [kept, patient, socket.left, world.of("reconnecting").length];
        """,
    )
    assert seen == [True, True, True, 1]


def test_a_gateway_of_an_older_version_sends_no_heartbeats_and_is_not_left_for_that(page: Page) -> None:
    left = evaluate(
        page,
        """
        const world = new World();
        const socket = (await world.socket()).hello();
        world.pass(600_000);
        world.document.become("visible");
        world.pass(60_000);
        return [socket.left, socket.sent];
        """,
    )
    assert left == [False, []]


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("how", ["visible", "focus"])
def test_a_page_that_is_looked_at_again_asks_whether_anybody_is_there(
    page: Page, answers: bool, how: str
) -> None:
    seen = evaluate(
        page,
        f"""
        const world = new World();
        const socket = (await world.socket()).hello(undefined, {HEARS});
        const look = () => given.how === "visible"
          ? world.document.become("visible") : world.window.dispatchEvent(new Event("focus"));
        look(); // it has just been heard of
        const early = socket.sent.length;
        world.pass(10_000);
        look();
        look();
        const asked = socket.sent.map(({{ type, data }}) => [type, data.visible, data.shows]);
        if (given.answers) socket.say("orderbell.pong", {{}});
        world.pass(4_000);
        world.pass(1_000);
        return [early, asked, socket.left];
        """,
        {"answers": answers, "how": how},
    )
    assert seen == [0, [["orderbell.ping", True, True]], not answers]


def test_a_page_never_goes_on_as_somebody_else(page: Page) -> None:
    """In another tab alice signed out and bob in: this one's next connection has his cookie."""
    seen = evaluate(
        page,
        """
        const world = new World();
        let reason;
        world.source.addEventListener("close", (event) => (reason = event.reason));
        (await world.socket()).hello().event(1).end(1006);
        world.pass(500);
        (await world.socket()).accept().end(4403); // his cookie, her cursor
        world.pass(2_000);
        (await world.socket()).hello("customer:bob=1.0").event(1, { channel: "customer:bob" });
        world.pass(60_000);
        return [world.of("message"), world.of("error"), world.of("close"), reason, world.sockets.length];
        """,
    )
    assert seen == [[f"{ALICE}=1.1"], ["customer"], [4403], "another customer is signed in now", 3]


def test_other_tabs_hear_that_another_customer_has_signed_in(visit: Callable[[], Page]) -> None:
    """They find out at once, and not with the next loss of the connection."""
    first, second = visit(), visit()
    evaluate(
        first,
        "window.world = new World({ key: 'alice' }); window.socket = (await world.socket()).hello()",
    )
    evaluate(
        first,
        """
        const getToken = async () => ({ token: "hers" });
        window.other = new World({ key: "alice", getToken });
        window.hers = (await other.socket()).hello();
        """,
    )
    evaluate(second, "(await new World({ key: 'bob' }).socket()).hello('customer:bob=1.0')")
    left = evaluate(first, "await until(() => socket.left); return [socket.left, hers.left]")
    assert left == [True, False]  # the one with a token of its own goes on


def test_reconnect_signal_and_dispose(page: Page) -> None:
    seen = evaluate(
        page,
        """
        const world = new World();
        const first = (await world.socket()).hello().event(1);
        world.source.reconnect();
        world.pass(0);
        const second = await world.socket();
        const controller = new AbortController();
        const other = new World({ signal: controller.signal });
        await other.socket();
        controller.abort();
        const third = new World();
        third.source[Symbol.dispose]();
        return [first.left, second.after, other.of("close"), third.of("close"), world.source.OPEN];
        """,
    )
    assert seen == [True, f"{ALICE}=1.1", [1000], [1000], 1]


def test_the_log_says_what_happens_and_neither_token_nor_payload(page: Page) -> None:
    lines = evaluate(
        page,
        """
        const lines = [];
        const getToken = async () => ({ token: "secret-token" });
        const world = new World({ getToken, log: (...words) => lines.push(words.join(" ")) });
        (await world.socket()).hello().event(1);
        await world.wait("alert", 1);
        world.source.close();
        return lines;
        """,
    )
    assert "open g" in lines
    assert f"message {ALICE}=1.1" in lines
    assert not any("secret" in line or "Order 1" in line for line in lines)


@pytest.mark.parametrize("given", ['"a-token"', "{ jwt: 1 }", "5"])
def test_a_token_that_is_no_object_is_said_and_asked_for_again(page: Page, given: str) -> None:
    warnings: list[str] = []
    page.on("console", lambda message: warnings.append(message.text))
    seen = evaluate(
        page,
        f"""
        let asked = 0;
        // Why nothing is reached is asked, too; that answer is another test's.
        const environment = {{ fetch: () => new Promise(() => {{}}) }};
        const getToken = async () => (++asked < 3 ? {given} : {{ token: "t" }});
        const world = new World({{ getToken, environment }});
        for (let n = 0; n < 2; n += 1) {{
          await world.wait("reconnecting", n + 1);
          world.pass(10_000);
        }}
        (await world.socket()).hello();
        return [world.of("error"), world.source.readyState];
        """,
    )
    assert seen == [["token", "token"], 1]
    assert len([text for text in warnings if "getToken has to give { token" in text]) == 1


def test_a_token_is_renewed_through_the_connection_before_it_runs_out(page: Page) -> None:
    seen = evaluate(
        page,
        """
        let made = 0;
        const token = () => {
          const iat = Math.floor(Date.now() / 1000) + ++made;
          return `e30.${btoa(JSON.stringify({ iat, exp: iat + 100 }))}.x`;
        };
        const world = new World({ getToken: async () => ({ token: token() }) });
        const socket = (await world.socket()).hello();
        world.pass(70_000);
        const early = socket.sent.length;
        world.pass(11_000);
        await until(() => socket.sent.length > early);
        const [first, second] = socket.sent;
        return [early, second.type, first.data.token !== second.data.token, socket.left];
        """,
    )
    assert seen == [1, "orderbell.auth", True, False]


def test_events_are_heard_by_their_own_type_too(page: Page) -> None:
    heard = evaluate(
        page,
        """
        const world = new World();
        const heard = [];
        world.source.addEventListener("menu.changed", (event) => heard.push(event.lastEventId));
        const socket = (await world.socket()).hello().event(1).event(2, { type: "menu.changed" });
        socket.event(3, { type: "close" });
        await world.wait("message", 3);
        return [heard, world.of("close")];
        """,
    )
    assert heard == [[f"{ALICE}=1.2"], []]


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("wss://alerts.example/", "https://alerts.example/events"),
        ("ws://alerts.example:8091/sub", "http://alerts.example:8091/sub/events"),
        ("https://alerts.example/sub?x=1#y", "https://alerts.example/sub/events"),
    ],
)
def test_a_websockets_address_leads_to_its_gateway_and_stays_encrypted(
    page: Page, given: str, url: str
) -> None:
    """A page that knows the WebSocket's own address gives that one."""
    found = evaluate(
        page,
        """
        const { AlertSource } = await import("/client/v1/orderbell.js");
        const opened = [];
        class WebSocket extends EventTarget {
          constructor(address) { super(); opened.push(address); }
          close() {}
        }
        const source = new AlertSource(given, { environment: { WebSocket } });
        await until(() => opened.length > 0);
        source.close();
        return [source.url, opened[0]];
        """,
        given,
    )
    assert found == [url, url.replace("http", "ws", 1)]


def test_a_websocket_that_cannot_be_created_counts_as_one_that_does_not_open(page: Page) -> None:
    """Browsers throw for `ws:` on a page of `https:`, some also where a policy forbids it."""
    seen = evaluate(
        page,
        """
        const unhandled = [];
        window.addEventListener("unhandledrejection", ({ reason }) => unhandled.push(String(reason)));
        class WebSocket { constructor() { throw new DOMException("insecure", "SecurityError"); } }
        const fetch = () => new Promise(() => {});
        const transports = ["websocket", "long-polling"];
        const world = new World({ transports, environment: { WebSocket, fetch } });
        for (let n = 0; n < 2; n += 1) {
          await world.wait("reconnecting", n + 1);
          world.pass(5_000);
        }
        await until(() => world.source.transport === "long-polling");
        const reason = world.of("reconnecting")[0].reason;
        world.source.close();
        return [reason.includes("insecure"), unhandled];
        """,
    )
    assert seen == [True, []]


@pytest.mark.parametrize("key", [None, 7])
def test_a_key_that_is_not_a_string_causes_no_error(page: Page, key: object) -> None:
    """Such as `user?.id` while nobody is signed in."""
    seen = evaluate(
        page,
        """
        const world = new World({ key: given });
        (await world.socket()).hello().event(1);
        await world.wait("alert", 1);
        await world.settle();
        await new Promise((resolve) => setTimeout(resolve, 20));
        world.source.close();
        return world.of("error");
        """,
        key,
    )
    assert seen == []
