"""receiver/browser/shown.js: an event is shown once in a browser, by whichever of its tabs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import ORIGIN, evaluate

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

ALICE = "customer:alice"
DEAF = "{ broadcastChannel: null }"  # as if a message from the other tab always came too late
OPEN = """
    const { Shown } = await import("/client/v1/shown.js");
    window.told = [];
    window.open_ = (key = "alice", options = {}) => {
      const tab = new Shown(key, {
        indexedDB,
        broadcastChannel: (name) => new BroadcastChannel(name),
        ontab: ({ place }) => told.push(place.seq),
        ...options,
      });
      // One event, that is shown at once: whether it was shown here.
      tab.one = async (channel, place, show) => {
        const item = { channel, place, show: () => (show(), "shown") };
        return (await tab.claim([item])).get(item) === "shown";
      };
      return tab;
    };
    window.place = (seq, epoch = 1) => ({ epoch, seq });
    window.CHANNEL = "customer:alice";
"""


@pytest.fixture
def tabs(visit: Callable[[], Page]) -> tuple[Page, Page]:
    one, other = visit(), visit()
    for tab in (one, other):
        evaluate(tab, OPEN)
    return one, other


def claim_the_same_at_the_same_moments(tabs: tuple[Page, Page], options: str) -> list[int]:
    """A hundred events, each claimed by both tabs in the same tick of the clock; all that is shown."""
    claim = f"""
        window.shown = [];
        window.done = (async () => {{
          const tab = open_("alice", {options});
          for (let seq = 1; seq <= 100; seq += 1) {{
            const tick = Math.ceil(Date.now() / 10) * 10 + 10;
            while (Date.now() < tick) await new Promise((resolve) => setTimeout(resolve));
            await tab.one(CHANNEL, place(seq), () => shown.push(seq));
          }}
        }})();
    """
    for tab in tabs:
        evaluate(tab, claim)
    one, other = (evaluate(tab, "await done; return shown") for tab in tabs)
    return sorted(one + other)


@pytest.mark.parametrize("options", ["{}", pytest.param(DEAF, marks=pytest.mark.long)])
def test_two_tabs_that_claim_the_same_events_at_the_same_moments_show_each_once(
    tabs: tuple[Page, Page], options: str
) -> None:
    """What localStorage under a Web Lock fails; and no tab has to hear of the other in time."""
    assert claim_the_same_at_the_same_moments(tabs, options) == list(range(1, 101))


def test_without_its_transactions_tabs_that_do_not_hear_of_each_other_both_show(
    tabs: tuple[Page, Page],
) -> None:
    """The safeguard is needed, and the test above would see that it is gone."""
    shown = claim_the_same_at_the_same_moments(tabs, "{ indexedDB: null, broadcastChannel: null }")
    assert shown == sorted([*range(1, 101)] * 2)


def test_the_tab_that_did_not_show_is_notified(tabs: tuple[Page, Page]) -> None:
    one, other = tabs
    evaluate(other, "window.tab = open_()")
    assert evaluate(one, "return open_().one(CHANNEL, place(7), () => {})") is True
    other.wait_for_function("() => told.length > 0")
    assert evaluate(other, "return [told, tab.knows(CHANNEL, place(7))]") == [[7], True]
    assert evaluate(other, "return tab.one(CHANNEL, place(7), () => {})") is False


def test_a_tab_that_dies_before_it_has_shown_leaves_the_event_to_another(tabs: tuple[Page, Page]) -> None:
    """It is killed within its claim; the other tab's claim waits behind it, and then goes through."""
    dying, other = tabs
    evaluate(dying, "window.tab = open_(); await tab.one(CHANNEL, place(1), () => {})")
    evaluate(dying, "setTimeout(() => tab.one(CHANNEL, place(2), () => { for (;;); }), 100)")
    pending = evaluate(
        other,
        """
        const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms, "pending"));
        await pause(300);
        window.shown = [];
        window.done = open_().one(CHANNEL, place(2), () => shown.push(2));
        return Promise.race([done, pause(300)]);
        """,
    )
    assert pending == "pending"
    dying.close()
    assert evaluate(other, "await done; return shown") == [2]


def test_without_storage_memory_and_the_other_tabs_decide(tabs: tuple[Page, Page]) -> None:
    one, other = tabs
    for tab in tabs:
        evaluate(tab, "window.tab = open_('alice', { indexedDB: null })")
    shows = "const shown = []; await tab.one(CHANNEL, place(given), () => shown.push(given)); return shown"
    assert evaluate(one, shows, 1) == [1]
    other.wait_for_function("() => told.length > 0")
    assert [evaluate(other, shows, 1), evaluate(one, shows, 1), evaluate(other, shows, 2)] == [[], [], [2]]


@pytest.mark.parametrize(
    "broken",
    [
        "{ open() { throw new DOMException('blocked', 'SecurityError'); } }",
        "{ open() { const request = {}; setTimeout(() => request.onerror()); return request; } }",
    ],
)
def test_broken_storage_neither_loses_nor_repeats(tabs: tuple[Page, Page], broken: str) -> None:
    seen = evaluate(
        tabs[0],
        f"""
        const tab = open_("alice", {{ indexedDB: {broken} }});
        const shown = [];
        for (const seq of [1, 2, 2, 3, 1]) await tab.one(CHANNEL, place(seq), () => shown.push(seq));
        return [shown, [...(await tab.places())]];
        """,
    )
    assert seen == [[1, 2, 3], [[ALICE, {"epoch": 1, "seq": 3}]]]


def test_a_channel_that_throws_neither_loses_nor_repeats(tabs: tuple[Page, Page]) -> None:
    seen = evaluate(
        tabs[0],
        """
        const postMessage = () => { throw new DOMException("closed", "InvalidStateError"); };
        const deaf = { addEventListener() {}, postMessage };
        let faults = 0;
        const tab = open_("alice", { broadcastChannel: () => deaf, onfault: () => (faults += 1) });
        const shown = [];
        for (const seq of [1, 2, 2]) await tab.one(CHANNEL, place(seq), () => shown.push(seq));
        return [shown, faults > 0, await stored("alice")];
        """,
    )
    assert seen == [[1, 2], True, f"{ALICE}=1.2"]


def test_storage_that_is_full_at_the_commit_does_not_show_twice(tabs: tuple[Page, Page]) -> None:
    seen = evaluate(
        tabs[0],
        """
        const put = IDBObjectStore.prototype.put;
        IDBObjectStore.prototype.put = function (...args) {
          this.transaction.abort(); // as at QuotaExceededError
          throw new DOMException("full", "QuotaExceededError");
        };
        window.addEventListener("error", (event) => event.preventDefault());
        const tab = open_();
        const shown = [];
        for (const seq of [1, 1, 2]) await tab.one(CHANNEL, place(seq), () => shown.push(seq));
        IDBObjectStore.prototype.put = put;
        return shown;
        """,
    )
    assert seen == [1, 2]


def test_storage_that_never_answers_is_gone_on_without(tabs: tuple[Page, Page]) -> None:
    """Some versions of WebKit do not answer an open()."""
    seen = evaluate(
        tabs[0],
        """
        const tab = open_("alice", { indexedDB: { open: () => ({}) } });
        const began = Date.now();
        const shown = [];
        for (const seq of [1, 2, 3, 4]) await tab.one(CHANNEL, place(seq), () => shown.push(seq));
        return [shown, Date.now() - began < 9_000];
        """,
    )
    assert seen == [[1, 2, 3, 4], True]


def test_a_tab_that_was_frozen_in_its_claim_waits_for_the_answer_that_is_queued(
    tabs: tuple[Page, Page],
) -> None:
    """When it thaws, its time-out is the first thing it sees; another tab may have shown the event."""
    shown = evaluate(
        tabs[0],
        """
        await open_().one(CHANNEL, place(1), () => {});
        const slow = { open: (...args) => {
          const request = {};
          const opening = indexedDB.open(...args);
          setTimeout(() => { request.result = opening.result; request.onsuccess(); }, 3_500);
          return request;
        } };
        const frozen = open_("alice", { indexedDB: slow, broadcastChannel: null });
        const shown = [];
        const done = frozen.one(CHANNEL, place(1), () => shown.push(1));
        const now = Date.now;
        Date.now = () => now() + 60_000; // no headless browser freezes a tab, but its clock can be put on
        await done;
        return shown;
        """,
    )
    assert shown == []


def test_where_a_first_visit_starts_is_kept_and_foreign_channels_are_forgotten(
    tabs: tuple[Page, Page],
) -> None:
    kept = evaluate(
        tabs[0],
        """
        const { parseCursors } = await import("/client/v1/cursors.js");
        const tab = open_();
        await tab.start(parseCursors("customer:alice=1.4,topic:menu=1.2"));
        await tab.one(CHANNEL, place(5), () => {});
        await tab.start(parseCursors("customer:alice=1.4,topic:news=1.9"));
        return stored("alice");
        """,
    )
    assert kept == "customer:alice=1.5,topic:news=1.9"


@pytest.mark.parametrize(
    ("stored", "refused", "place", "after"),
    [
        ("1.5", (1, 5), (1, 40), "1.40"),  # pruned: forward
        # the same, but another tab was reset and has shown two since
        pytest.param("1.42", (1, 5), (1, 40), "1.42", marks=pytest.mark.long),
        ("1.50", (1, 50), (1, 10), "1.10"),  # a database that lost its end: back
        # the same, but another tab was reset and has shown two since
        pytest.param("1.12", (1, 50), (1, 10), "1.12", marks=pytest.mark.long),
        ("1.50", (1, 50), (2, 3), "2.3"),  # a new epoch
    ],
)
def test_a_reset_does_not_undo_what_another_tab_has_shown_since(
    tabs: tuple[Page, Page], stored: str, refused: tuple[int, int], place: tuple[int, int], after: str
) -> None:
    kept = evaluate(
        tabs[0],
        """
        const { parseCursors } = await import("/client/v1/cursors.js");
        const tab = open_();
        await tab.start(parseCursors(`customer:alice=${given.stored}`));
        const [[e, s], [f, t]] = [given.refused, given.place];
        await tab.reset(CHANNEL, place(s, e), place(t, f));
        return stored("alice");
        """,
        {"stored": stored, "refused": refused, "place": place},
    )
    assert kept == f"{ALICE}={after}"


def test_customers_who_share_a_browser_share_nothing(tabs: tuple[Page, Page]) -> None:
    kept = evaluate(
        tabs[0],
        """
        await open_("alice").one(CHANNEL, place(1), () => {});
        return [await stored("alice"), await stored("bob")];
        """,
    )
    assert kept == [f"{ALICE}=1.1", None]


@pytest.mark.parametrize("written", [[{"not": "ours"}, {"not": "ours"}], ["no=cursor+", "text"], [7, None]])
def test_what_somebody_else_wrote_into_the_storage_does_no_harm(
    tabs: tuple[Page, Page], written: list[object]
) -> None:
    shown = evaluate(
        tabs[0],
        """
        await open_().places();
        const database = await new Promise((resolve) => {
          const opening = indexedDB.open("orderbell");
          opening.onsuccess = () => resolve(opening.result);
        });
        const store = database.transaction("shown", "readwrite").objectStore("shown");
        store.put(given[0], "alice");
        store.put(given[1], ["alice"]);
        const shown = [];
        await open_().one(CHANNEL, place(1), () => shown.push(1));
        return shown;
        """,
        written,
    )
    assert shown == [1]


def test_the_pages_here_are_not_secure(page: Page) -> None:
    """So that all of these tests hold for http://shop.local, where Web Locks and randomUUID are missing."""
    assert ORIGIN.startswith("http://")
    assert evaluate(page, "return [isSecureContext, 'locks' in navigator]") == [False, False]


# A tab of the first version of this client, which knew no claims: all up to the one record was shown.
FIRST_VERSION = """
    const { advance, formatCursors, parseCursors, reaches } = await import("/client/v1/cursors.js");
    const opening = indexedDB.open("orderbell", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("shown");
    await new Promise((resolve) => (opening.onsuccess = resolve));
    window.first = (seq, show) => new Promise((resolve) => {
      const transaction = opening.result.transaction("shown", "readwrite");
      transaction.oncomplete = resolve;
      const store = transaction.objectStore("shown");
      const reading = store.get("alice");
      reading.onsuccess = () => {
        const places = parseCursors(reading.result ?? "");
        if (reaches(places.get(CHANNEL), place(seq))) return;
        show();
        advance(places, CHANNEL, place(seq));
        store.put(formatCursors(places), "alice");
      };
    });
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_tab_of_the_first_version_and_one_of_this_never_show_the_same(
    tabs: tuple[Page, Page], seed: int
) -> None:
    """Both in one browser, as during an upgrade; and this one goes on where the other has shown something."""
    this, old = tabs
    both = "const tick = () => new Promise((go) => setTimeout(go, Math.random() * given)); window.shown = [];"
    evaluate(this, "window.tab = open_(); await tab.start(new Map([[CHANNEL, place(0)]]))")
    evaluate(old, FIRST_VERSION)
    claims = f"""{both}
        window.done = (async () => {{
          for (let seq = 1; seq <= 60; seq += 1) {{
            const show = () => (shown.push(seq), "claimed");
            const item = {{ channel: CHANNEL, place: place(seq), show }};
            if ((await tab.claim([item])).get(item) !== "claimed") continue;
            await tick(); // on its way to the screen
            if (seq % 5 === 0) {{ shown.pop(); await tab.release([item]); }}
            else void tick().then(() => tab.confirm([item]));
          }}
        }})();
    """
    shows = f"""{both}
        window.done = (async () => {{
          for (let seq = 1; seq <= 60; seq += 1) {{
            await tick();
            await first(seq, () => shown.push(seq));
          }}
        }})();
    """
    evaluate(this, claims, 6)
    evaluate(old, shows, 4 * seed)
    mine, others = (evaluate(page, "await done; return shown") for page in (this, old))
    assert sorted(set(mine) & set(others)) == []
    rest = """
        await new Promise((go) => setTimeout(go, 50));
        const show = () => "shown";
        const items = Array.from({ length: 60 }, (_, n) => ({ channel: CHANNEL, place: place(n + 1), show }));
        const outcomes = await open_().claim(items);
        return items.filter((item) => outcomes.get(item) === "shown").map((item) => item.place.seq);
    """
    left: list[int] = evaluate(this, rest)
    assert sorted([*mine, *others, *left]) == list(range(1, 61))
    assert all(seq % 5 == 0 for seq in left)


def test_what_was_claimed_and_never_shown_is_shown_later_though_the_first_version_passes_over_it(
    tabs: tuple[Page, Page],
) -> None:
    this, old = tabs
    evaluate(old, FIRST_VERSION)
    claim = """
        const tab = open_("alice", { tab: "dies" });
        await tab.start(new Map([[CHANNEL, place(0)]]));
        const show = () => "claimed";
        await tab.claim([1, 2].map((seq) => ({ channel: CHANNEL, place: place(seq), show })));
        tab.close();
    """
    evaluate(this, claim)
    shows = "const shown = []; for (const seq of given) await first(seq, () => shown.push(seq)); return shown"
    assert evaluate(old, shows, [1, 2, 3]) == [3]
    later = """
        const shown = [];
        const tab = open_("alice", { now: () => Date.now() + 6_000 }); // the claims have run out
        for (const seq of [1, 2, 3]) await tab.one(CHANNEL, place(seq), () => shown.push(seq));
        return [await tab.places().then((places) => [...places]), shown];
    """
    assert evaluate(this, later) == [[[ALICE, {"epoch": 1, "seq": 3}]], [1, 2]]
