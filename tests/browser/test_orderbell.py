"""receiver/browser/orderbell.js: what an AlertSource does with what its gateway says, without a gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import evaluate, open_client

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

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


def test_after_4401_a_new_token_is_asked_for_and_when_that_is_refused_it_ends(page: Page) -> None:
    tokens, closed = evaluate(
        page,
        """
        let asked = 0;
        const world = new World({ getToken: async () => ({ token: `t${++asked}` }) });
        const tokens = [];
        for (const welcome of [true, true, false]) {
          const socket = await world.socket();
          welcome ? socket.hello() : socket.accept();
          tokens.push(socket.sent[0].data.token);
          socket.end(4401); // expired, expired, refused
          world.pass(2_000);
        }
        return [tokens, world.of("close")];
        """,
    )
    assert (tokens, closed) == (["t1", "t2", "t3"], [4401])


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
        return [world.of("reconnecting")[0].reason, world.source.readyState];
        """,
    )
    assert seen == ["no token: Error: offline", 1]


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
def test_a_reset_is_told_and_gone_on_from(page: Page, reason: str, cursor: str) -> None:
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


def test_an_event_of_a_channel_may_have_any_type(page: Page) -> None:
    """Whoever may publish can't speak for the gateway."""
    seen = evaluate(
        page,
        """
        const world = new World();
        const socket = (await world.socket()).hello();
        const place = { channel: "customer:alice", epoch: 1, seq: 1 };
        socket.say("orderbell.reset", { channel: "customer:alice", cursor: "customer:alice=9.9" }, place);
        await world.wait("alert", 1);
        return [world.of("message"), world.of("reset")];
        """,
    )
    assert seen == [[f"{ALICE}=1.1"], []]


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


def test_somebody_who_looks_need_not_wait_for_a_long_delay(page: Page) -> None:
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
          const world = new World({ key: visibilityState + focused });
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


def test_a_new_visit_goes_on_after_what_was_shown(client_context: BrowserContext) -> None:
    page = open_client(client_context)
    evaluate(
        page,
        """
        const world = new World({ key: "alice" });
        const socket = (await world.socket()).hello("customer:alice=1.4,topic:menu=1.7").event(5);
        await until(() => socket.sent.length > 0); // reported, so remembered
        """,
    )
    page.close()
    after = evaluate(open_client(client_context), "return (await new World({ key: 'alice' }).socket()).after")
    assert after == f"{ALICE}=1.5,topic:menu=1.7"


def test_a_tombstone_moves_the_cursor_and_shows_and_reports_nothing(client_context: BrowserContext) -> None:
    page = open_client(client_context)
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
    page.close()
    after = evaluate(open_client(client_context), "return (await new World({ key: 'alice' }).socket()).after")
    assert after == f"{ALICE}=1.8"


def test_a_tombstone_does_not_pass_over_what_was_not_shown_yet(client_context: BrowserContext) -> None:
    page = open_client(client_context)
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
    page.close()
    after = evaluate(open_client(client_context), "return (await new World({ key: 'alice' }).socket()).after")
    assert after == f"{ALICE}=1.4"


def test_an_event_that_was_not_shown_yet_is_not_remembered(client_context: BrowserContext) -> None:
    page = open_client(client_context)
    evaluate(
        page,
        """
        const world = new World({ key: "alice" });
        world.document.visibilityState = "hidden"; // it would be shown in 250 ms
        (await world.socket()).hello("customer:alice=1.4").event(5);
        await world.settle();
        """,
    )
    page.close()
    after = evaluate(open_client(client_context), "return (await new World({ key: 'alice' }).socket()).after")
    assert after == f"{ALICE}=1.4"
