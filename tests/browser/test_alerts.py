"""receiver/browser/alerts.js: what becomes of an alert, on the page and in its counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import evaluate

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

ALICE = "customer:alice"
# What several tests do, as JavaScript.
HELPERS = """
const retract = (socket, seq, of, more = {}) =>
  socket.event(seq, { type: "orderbell.retracted", data: { cursor: `customer:alice=1.${of}`, ...more } });
const settled = () => new Promise((resolve) => setTimeout(resolve, 150));
"""


def test_retraction_and_what_it_retracts_in_one_catch_up_pop_up_nothing(page: Page) -> None:
    seen = evaluate(
        page,
        HELPERS
        + """
        const world = new World();
        const socket = (await world.socket()).hello("customer:alice=1.0", { as_of: "customer:alice=1.4" });
        socket.event(1);
        await settled();
        const early = world.of("alert");
        socket.event(2).event(3);
        await settled();
        retract(socket, 4, 1);
        await world.wait("alert", 2);
        await settled();
        return [early, world.of("alert"), world.of("message")];
        """,
    )
    cursors = [f"{ALICE}=1.{n}" for n in (1, 2, 3)]
    assert seen == [[], cursors[1:], cursors]


def test_retracted_alert_that_waits_for_its_turn_never_pops_up(page: Page) -> None:
    alerts = evaluate(
        page,
        HELPERS
        + """
        const world = new World();
        const socket = (await world.socket()).hello();
        world.document.become("hidden");
        socket.event(1).event(2);
        await settled();
        retract(socket, 3, 1);
        world.document.become("visible");
        await world.wait("alert", 1);
        await settled();
        return world.of("alert");
        """,
    )
    assert alerts == [f"{ALICE}=1.2"]


def test_alert_that_is_retracted_after_it_was_seen_is_said_to_its_listener(page: Page) -> None:
    told = evaluate(
        page,
        HELPERS
        + """
        let ended = 0;
        const show = (event) => event.ended.addEventListener("abort", () => (ended += 1));
        const world = new World({ show });
        const retracted = [];
        world.source.addEventListener("retracted", ({ detail }) => retracted.push(detail));
        const socket = (await world.socket()).hello();
        socket.event(1).event(2);
        await world.wait("alert", 2);
        await settled();
        const before = ended;
        retract(socket, 3, 2, { reason: "burnt" });
        retract(socket, 4, 900); // of an alert that this page never had
        await settled();
        return [before, ended, retracted];
        """,
    )
    assert told[:2] == [0, 1]
    assert told[2][0] == {"channel": ALICE, "cursor": f"{ALICE}=1.2", "reason": "burnt"}


@pytest.mark.parametrize("attributes", [{"popuntil": -1}, {"expirytime": -1}])
def test_alert_whose_time_is_over_by_the_servers_clock_never_pops_up(
    page: Page, attributes: dict[str, int]
) -> None:
    alerts = evaluate(
        page,
        HELPERS
        + """
        const world = new World();
        const socket = (await world.socket()).accept();
        // The server's clock is an hour ahead of the page's.
        const server = world.time + 3_600_000;
        const data = { cursor: "customer:alice=1.0", channels: ["customer:alice"], gateway: "g" };
        socket.say("orderbell.hello", data, { time: new Date(server).toISOString() });
        const [name, seconds] = Object.entries(given)[0];
        const at = (seconds) => ({ [name]: new Date(server + 1_000 * seconds).toISOString() });
        socket.event(1, at(seconds)).event(2, at(60)).event(3);
        await world.wait("alert", 2);
        await settled();
        return [world.of("alert"), world.of("message").length];
        """,
        attributes,
    )
    assert alerts == [[f"{ALICE}=1.2", f"{ALICE}=1.3"], 3]


def test_alert_that_waits_longer_than_it_may_pop_up_is_passed_over(page: Page) -> None:
    alerts = evaluate(
        page,
        HELPERS
        + """
        const world = new World();
        const socket = (await world.socket()).hello();
        world.document.become("hidden");
        socket.event(1, { popuntil: new Date(world.time + 30_000).toISOString() }).event(2);
        await settled();
        world.time += 60_000;
        world.document.become("visible");
        await world.wait("alert", 1);
        await settled();
        return world.of("alert");
        """,
    )
    assert alerts == [f"{ALICE}=1.2"]


def test_what_was_missed_long_ago_is_only_counted(page: Page) -> None:
    seen = evaluate(
        page,
        HELPERS
        + """
        const world = new World({ popUpFor: 60_000 });
        const older = [];
        world.source.addEventListener("older", ({ detail }) => older.push(detail.count));
        world.time = Date.now();
        const socket = (await world.socket()).hello("customer:alice=1.0", { as_of: "customer:alice=1.13" });
        const at = (ms) => new Date(world.time - ms).toISOString();
        for (let seq = 1; seq <= 12; seq += 1) socket.event(seq, { time: at(61_000) });
        socket.event(13, { time: at(5_000) });
        await world.wait("alert", 1);
        socket.event(14, { time: at(3_600_000) }); // what comes live pops up, whenever it happened
        await world.wait("alert", 2);
        await settled();
        return [world.of("alert"), older, world.of("message").length];
        """,
    )
    assert seen == [[f"{ALICE}=1.13", f"{ALICE}=1.14"], [12], 14]


def test_replacement_takes_what_it_replaces_off_the_screen_and_out_of_the_queue(page: Page) -> None:
    seen = evaluate(
        page,
        HELPERS
        + """
        const ended = [];
        const show = (event) => event.ended.addEventListener("abort", () => ended.push(event.detail.id));
        const world = new World({ show });
        const socket = (await world.socket()).hello();
        const of = (id, more) => ({ id, source: "/kitchen", subject: "1042", ...more });
        socket.event(1, of("oven")).event(2, of("other", { subject: "7" }));
        await world.wait("alert", 2);
        socket.event(3, of("ready", { replaces: "oven" }));
        await world.wait("alert", 3);
        world.document.become("hidden");
        socket.event(4, of("a")).event(5, of("b", { replaces: true }));
        await settled();
        world.document.become("visible");
        await world.wait("alert", 4);
        await settled();
        return [ended, world.of("alert").map((cursor) => cursor.split(".")[1])];
        """,
    )
    assert seen == [["oven", "ready"], ["1", "2", "3", "5"]]


def test_late_count_never_takes_the_place_of_a_newer_one(page: Page) -> None:
    counts = evaluate(
        page,
        """
        const world = new World();
        const told = [];
        world.source.addEventListener("unread", ({ detail }) => told.push(detail.unread));
        const socket = (await world.socket()).hello();
        const at = (seq) => `customer:alice=1.${seq}`;
        const say = (unread, seq) => socket.say("orderbell.unread", { unread, as_of: at(seq) });
        const before = world.source.unread;
        say(3, 3);
        socket.event(1).event(2).event(3);
        socket.event(4, { type: "orderbell.read", data:
          { cursor: "customer:alice=1.3", alone: [], unread: 0, as_of: "customer:alice=1.4" } });
        say(3, 3);
        say(2, 2);
        const then = world.source.unread;
        say(1, 5);
        socket.say("orderbell.unread", { unread: "many" });
        return [before, then, world.source.unread, told];
        """,
    )
    assert counts == [None, 0, 1, [3, 0, 1]]


def test_what_was_read_elsewhere_goes_from_the_screen_and_pops_up_no_more(page: Page) -> None:
    seen = evaluate(
        page,
        HELPERS
        + """
        const ended = [];
        const show = (event) => event.ended.addEventListener("abort", () => ended.push(event.detail.seq));
        const world = new World({ show });
        const socket = (await world.socket()).hello();
        socket.event(1).event(2);
        await world.wait("alert", 2);
        world.document.become("hidden");
        socket.event(3).event(4);
        await settled();
        const data = { cursor: "customer:alice=1.1", alone: ["customer:alice=1.3"], unread: 2 };
        socket.event(5, { type: "orderbell.read", data });
        world.document.become("visible");
        await world.wait("alert", 3);
        await settled();
        return [ended, world.of("alert").map((cursor) => cursor.split(".")[1])];
        """,
    )
    assert seen == [[1], ["1", "2", "4"]]


def test_list_and_reading_use_the_credential_and_keep_the_count(page: Page) -> None:
    seen = evaluate(
        page,
        """
        const asked = [];
        const answers = [
          { alerts: [{ cursor: "customer:alice=1.2", state: "seen", event: {} }], unread: 2,
            as_of: "customer:alice=1.2", before: "customer:alice=1.2" },
          { unread: 0, as_of: "customer:alice=1.3" },
        ];
        const fetch = async (url, init) => {
          asked.push([String(url), init.method, init.headers.get("authorization"), init.body ?? null]);
          return new Response(JSON.stringify(answers.shift()));
        };
        const world = new World({ getToken: () => ({ token: "t" }), environment: { fetch } });
        const list = await world.source.list({ limit: 1, before: "customer:alice=1.9" });
        const unread = world.source.unread;
        const after = await world.source.markRead();
        return [asked, list.before, list.alerts.length, unread, after, world.source.unread];
        """,
    )
    assert seen[0] == [
        ["https://gateway.example/alerts?before=customer%3Aalice%3D1.9&limit=1", "GET", "Bearer t", None],
        ["https://gateway.example/read", "POST", "Bearer t", '{"cursor":"customer:alice=1.2"}'],
    ]
    assert seen[1:] == [
        "customer:alice=1.2",
        1,
        2,
        {"unread": 0, "asOf": "customer:alice=1.3"},
        0,
    ]


def test_list_that_is_refused_says_why(page: Page) -> None:
    message = evaluate(
        page,
        """
        const problem = JSON.stringify({ detail: "a token is required" });
        const fetch = async () => new Response(problem, { status: 401 });
        const world = new World({ environment: { fetch } });
        return world.source.list().catch((error) => error.message);
        """,
    )
    assert message == "alerts: 401 a token is required"


def test_pop_ups_are_held_back_no_longer_than_some_seconds(page: Page) -> None:
    alerts = evaluate(
        page,
        HELPERS
        + """
        const world = new World();
        const socket = (await world.socket()).hello("customer:alice=1.0", { as_of: "customer:alice=1.9" });
        socket.event(1);
        await settled();
        const before = world.of("alert").length;
        world.pass(10_000);
        await world.wait("alert", 1);
        return [before, world.of("alert").length];
        """,
    )
    assert alerts == [0, 1]


def test_retracted_alert_leaves_the_screen_though_it_was_seen(page: Page) -> None:
    shown = evaluate(
        page,
        """
        const { Toasts } = await import("/client/v1/orderbell.js");
        const toasts = new Toasts({ duration: 0 });
        const world = new World({ show: (event) => toasts.show(event.detail) });
        const socket = (await world.socket()).hello();
        socket.event(1).event(2);
        const all = () => [...document.querySelectorAll(".orderbell-toast-text")];
        const texts = () => all().map((one) => one.textContent);
        const until = async (holds) => {
          for (let n = 0; n < 200 && !holds(); n += 1) await new Promise((go) => setTimeout(go, 25));
        };
        await until(() => socket.sent.some(({ type }) => type === "orderbell.seen"));
        const before = texts();
        socket.event(3, { type: "orderbell.retracted", data: { cursor: "customer:alice=1.1" } });
        await until(() => texts().length < 2);
        const after = texts();
        toasts.destroy();
        return [before.sort(), after];
        """,
    )
    assert shown == [["Order 1", "Order 2"], ["Order 2"]]


def test_alert_that_was_not_shown_is_tried_again_when_the_gateway_rings(page: Page) -> None:
    alerts = evaluate(
        page,
        HELPERS
        + """
        let refused = 1;
        const show = (event) => event.shown(Promise.resolve(refused-- <= 0));
        const world = new World({ show });
        const socket = (await world.socket()).hello();
        socket.event(1);
        await world.wait("alert", 1);
        await settled();
        const before = world.of("alert").length;
        socket.say("orderbell.ring", { cursor: "customer:alice=1.1" });
        await world.wait("alert", 2);
        return [before, world.of("alert")];
        """,
    )
    assert alerts == [1, [f"{ALICE}=1.1"] * 2]
