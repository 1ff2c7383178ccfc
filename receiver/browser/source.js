/// <reference lib="dom" preserve="true" />
/// <reference lib="esnext.disposable" preserve="true" />

/**
 * What an AlertSource does with what the gateway says: events in order to every tab, alerts to the one that shows them,
 * and what becomes of both. The parts: line.js (connecting), resume.js (where to go on), offers.js and shown.js (which
 * tab shows what), reports.js (what was seen), page.js (the life of the page), customer.js (whose it is).
 *
 * @typedef {import("./orderbell.js").AlertList} AlertList
 * @typedef {import("./orderbell.js").CloudEvent} CloudEvent
 * @typedef {import("./orderbell.js").Count} Count
 * @typedef {import("./orderbell.js").Options} Options
 * @typedef {import("./orderbell.js").ResetDetail} ResetDetail
 * @typedef {import("./cursors.js").Place} Place
 * @typedef {import("./cursors.js").Places} Places
 */

import { AlertEvent, dispatchAlert } from "./alert.js";
import { SYSTEM, Unread, isOver, isReplaced, placeOf } from "./alerts.js";
import { formatCursor, parseCursors, reaches } from "./cursors.js";
import { Customer } from "./customer.js";
import { Elsewhere } from "./elsewhere.js";
import { addressOf, browser } from "./environment.js";
import { covers, extentUpTo, includes, parseExtents } from "./extents.js";
import { Faults } from "./faults.js";
import { CLOSED, CONNECTING, Line, OPEN } from "./line.js";
import { Listened } from "./listeners.js";
import { Offers } from "./offers.js";
import { Page } from "./page.js";
import { Reports } from "./reports.js";
import { Resume } from "./resume.js";
import { Shown } from "./shown.js";
import { InView } from "./visible.js";
import { WAYS } from "./ways.js";

const TOMBSTONE = "orderbell.tombstone"; // in the place of an event that could not be published
const RETRACTED = "orderbell.retracted";
const READ = "orderbell.read";
const EXPIRED = "orderbell.expired";

const POP_UP_MS = 10 * 60_000; // what was missed for longer is a line in a list, not a row of old toasts
const CATCH_UP_MS = 10_000; // then pop-ups are no longer held back, whatever is still missing

const OWN_EVENTS = new Set([
  ...["open", "message", "alert", "shown", "reset", "reconnecting", "error", "close"],
  ...["retracted", "expired", "read", "unread", "older"],
]);

// The tab that is looked at claims first. A visible tab beside it waits a moment; a tab that can only show a desktop
// alert waits longer than a slow visible tab may take. A late claim costs nothing.
const VISIBLE_MS = 50;
const HIDDEN_MS = 250;

/**
 * @fires open  the gateway said hello; `gateway` and `channels` are known
 * @fires message  MessageEvent, in every tab: `data` the CloudEvent, `lastEventId` its cursor; and the same under its
 *   own type, where that is none of these
 * @fires alert  AlertEvent, in one tab: `detail` the CloudEvent, `shown(promise)` to say when it was on the screen
 * @fires shown  CustomEvent `{channel, first, place, cursor, by}`: another tab or device has shown the events from `first` to `place`
 * @fires retracted  CustomEvent `{channel, cursor, reason}`: an alert was taken back; remove it from your list
 * @fires expired  CustomEvent `{cursors}`: these alerts have expired
 * @fires read  CustomEvent `{upTo, alone}`: the customer has read everything up to a cursor, or single alerts, on any device
 * @fires unread  CustomEvent `{unread, asOf}`: the number of unread alerts has changed
 * @fires older  CustomEvent `{count}`: this many were missed too long ago to pop up; "and 12 older"
 * @fires reset  CustomEvent `{channel, reason, cursor, refetch}`: events are missing, reload what depends on them
 * @fires reconnecting  CustomEvent `{attempt, delay, code, reason}`
 * @fires error  CustomEvent `{kind, message}`: something that a person has to change; the source goes on trying
 * @fires close  CloseEvent, only when it will not reconnect
 */
export class AlertSource extends Listened {
  static CONNECTING = CONNECTING;
  static OPEN = OPEN;
  static CLOSED = CLOSED;
  CONNECTING = CONNECTING;
  OPEN = OPEN;
  CLOSED = CLOSED;

  /** The name of the gateway that said hello last. */
  gateway = "";
  /** The channels that this customer may read. @type {readonly string[]} */
  channels = [];

  #url;
  #environment;
  #log;
  #desktop;
  #popUpFor;
  #name = randomName();
  #faults;
  #line;
  #page;
  #customer;
  #inView;
  #shown;
  #offers;
  #reports;
  #resume = new Resume();
  #elsewhere = new Elsewhere((shown) => this.#fire("shown", shown));
  #unread = new Unread((count) => this.#fire("unread", count));
  /** @type {Promise<import("./inbox.js").Inbox> | undefined} */
  #inbox;
  /** How far the server's clock is ahead of ours. */
  #ahead = 0;
  /** Where the channels were at the last hello: what comes up to there was missed. @type {Places} */
  #heads = new Map();
  /** @type {number | undefined} */
  #catchingUp;
  #listening = new AbortController();
  /** Changes to what is stored, one after the other. @type {Promise<unknown>} */
  #queue = Promise.resolve();

  /**
   * @param {string | URL} [url]  of the gateway, or of the balancer in front of several
   * @param {Options} [options]
   */
  constructor(
    url = "/",
    { key = "", getToken, desktop, popUpFor = POP_UP_MS, transports = WAYS, signal, debug = false, log, environment } = {},
  ) {
    super(() => this.#offers.pump());
    this.#environment = { ...browser(), ...environment };
    this.#log = log ?? (debug ? (/** @type {unknown[]} */ ...words) => console.debug("orderbell:", ...words) : () => {});
    this.#url = new URL("events", addressOf(url, this.#environment.document));
    this.#desktop = desktop;
    this.#popUpFor = popUpFor;
    this.#faults = new Faults(this.#url, (fault) => {
      this.#log(`error: ${fault.kind}`, fault.message);
      this.#fire("error", fault);
    });
    this.#line = new Line(
      this.#url,
      { environment: this.#environment, getToken, transports, faults: this.#faults, name: this.#name },
      {
        after: () => this.#resume.after,
        forget: () => this.#resume.forget(),
        received: (text) => this.#receive(text),
        shows: () => this.shows,
        reconnecting: (detail) => this.#fire("reconnecting", detail),
        ending: () => this.#reports.flush(),
        ended: (...close) => this.#ended(...close),
        log: this.#log,
      },
    );
    this.#shown = new Shown(String(key ?? ""), {
      ...this.#environment,
      tab: this.#name,
      ontab: (item) => this.#shownElsewhere(item),
      onfree: () => this.#offers.free(),
      onfault: (error) => this.#faults.explain("storage", error),
    });
    this.#reports = new Reports(this.#shown, this.#environment, (report) => {
      const open = this.readyState === OPEN;
      if (open) this.#line.send("orderbell.seen", report);
      return open;
    });
    this.#offers = new Offers(this.#shown, {
      ...this.#environment,
      shows: () => this.shows,
      settled: async () => {
        await null; // what has come in the same moment is in the queue then
        await this.#queue;
      },
      offer: (alert, showing, ended) => this.#offer(alert, showing, ended),
      isOver: (event) => isOver(event, this.#serverNow),
      seen: (channel) => this.#reports.add(channel),
      elsewhere: ({ channel, place: { epoch, seq } }) => this.#elsewhere.add(channel, epoch, seq, seq, "tab"),
      log: this.#log,
    });
    this.#inView = new InView(() => this.#offers.pump());
    if (this.#environment.document.documentElement) this.#inView.watch(this.#environment.document.documentElement);
    this.#customer = new Customer(getToken ? null : this.#environment.broadcastChannel, () =>
      this.#line.return(0, 1000, "somebody else has signed in"),
    );
    // Node shows nothing, so it has nothing to remember.
    if (!this.#environment.indexedDB && "origin" in globalThis) void this.#faults.explain("storage");
    this.#page = this.#live();
    if (signal?.aborted) this.close();
    else signal?.addEventListener("abort", () => this.close(), { signal: this.#listening.signal });
    void this.#start();
  }

  get readyState() {
    return this.#line.state;
  }

  get url() {
    return this.#url.href;
  }

  /** The transport in use, or being tried: "websocket", "sse" or "long-polling". */
  get transport() {
    return this.#line.transport;
  }

  /** The cursor of the last events that this tab received. */
  get lastEventId() {
    return this.#resume.cursor;
  }

  /** Whether an alert could be shown here at this moment: something listens, and the page is on a screen. */
  get shows() {
    const { document } = this.#environment;
    if (this.readyState === CLOSED || Listened.countOf(this) === 0) return false;
    if (/** @type {{ prerendering?: boolean }} */ (document).prerendering) return false;
    const root = document.documentElement;
    if (document.visibilityState !== "visible") return this.#desktop?.state === "granted";
    return !root || this.#inView.has(root);
  }

  /** How many alerts are unread; null until that is known. */
  get unread() {
    return this.#unread.count?.unread ?? null;
  }

  /**
   * The customer's alerts, newest first, with the state of each, as the server has them.
   *
   * @param {{ before?: string | null, limit?: number, signal?: AbortSignal }} [options]  `before`: the last list's
   * @returns {Promise<AlertList>}
   */
  async list(options) {
    return (await this.#getInbox()).list(options);
  }

  /**
   * Marks alerts as read, for all devices: those with these ids, all up to a cursor, or without either all that were
   * counted here; what has come since stays unread.
   *
   * @param {string | readonly string[]} [what]  a cursor, or ids
   * @returns {Promise<Count>}
   */
  async markRead(what = this.#unread.count?.asOf ?? "") {
    if (what.length === 0) return this.#unread.count ?? { unread: 0, asOf: "" };
    return (await this.#getInbox()).read(what);
  }

  #getInbox() {
    this.#inbox ??= import("./inbox.js").then(
      ({ Inbox }) =>
        new Inbox(
          this.#url,
          this.#environment.fetch,
          (until) => this.#line.askForToken(until),
          (answer) => this.#unread.take(answer),
        ),
    );
    this.#inbox.catch(() => (this.#inbox = undefined)); // the next call tries again
    return this.#inbox;
  }

  /** Leaves the current connection, and makes another at once. */
  reconnect() {
    this.#line.return(0, 1000, "reconnect()");
  }

  /** Ends it for good; fires "close". */
  close() {
    this.#line.end(1000, "", true);
  }

  /** `using alerts = new AlertSource(…)`; where a browser has no such symbol yet, nobody can call it. */
  [Symbol.dispose]() {
    this.close();
  }

  async #start() {
    this.#resume.begin(await this.#shown.places());
    void this.#line.connect();
  }

  /** @param {number} code @param {string} reason @param {boolean} wasClean */
  #ended(code, reason, wasClean) {
    this.#listening.abort();
    this.#environment.clearTimeout(this.#catchingUp);
    this.#offers.close();
    this.#inView.close();
    this.#shown.close();
    this.#customer.close();
    this.dispatchEvent(closeEvent(code, reason, wasClean));
  }

  // --- what the gateway says ---------------------------------------------------------------------------

  /** @param {string} text */
  #receive(text) {
    /** @type {CloudEvent} */
    let event;
    try {
      event = JSON.parse(text);
    } catch {
      return; // If it was an event, the next one shows the hole that it left.
    }
    // An event of a channel may have any type, also one of ours; only what has no place is the gateway's own word.
    if (event.seq !== undefined) return this.#deliver(event);
    switch (event.type) {
      case "orderbell.hello":
        this.#ahead = (Date.parse(event.time ?? "") || this.#environment.now()) - this.#environment.now();
        return this.#greeted(event.data);
      case "orderbell.unread":
        return this.#unread.take(event.data);
      case "orderbell.ring":
        return this.#offers.free();
      case "orderbell.reset":
        return this.#reset(event.data);
      case "orderbell.seen":
        return this.#seenElsewhere(event.data);
      case "orderbell.bye":
        this.#line.byeMs = event.data.retry_after_ms; // the gateway closes, and has spread these waits
    }
  }

  /** @param {{ cursor: string, channels: string[], gateway: string, heartbeat_seconds?: number, accepts?: string[], as_of?: string }} hello */
  #greeted({ cursor, channels, gateway, heartbeat_seconds = 0, accepts = [], as_of = "" }) {
    if (!this.#customer.owns(channels)) {
      // Signed in as somebody else, in another tab or meanwhile: nothing of theirs belongs on this page.
      const reason = "another customer is signed in now";
      this.#faults.say("customer", `${reason}; this page's alerts end.`);
      return this.#line.end(4403, reason, true);
    }
    const start = parseCursors(cursor);
    const resumed = this.#resume.adopt(start, (channel) => this.#offers.drop((alert) => alert.channel === channel));
    this.#wait(() => this.#shown.start(start));
    this.#line.greeted();
    if (!resumed) return this.#line.return(undefined, 1000, "resume");
    this.#catchUp(parseCursors(as_of));
    this.gateway = gateway;
    this.channels = channels;
    this.#line.opened(heartbeat_seconds, accepts);
    this.#reports.begin();
    this.#log("open", gateway);
    this.dispatchEvent(new Event("open"));
  }

  /** @param {CloudEvent} event */
  #deliver(event) {
    const { channel, epoch, seq } = event;
    if (channel === undefined || epoch === undefined || seq === undefined) return;
    const place = { epoch, seq };
    const taken = this.#resume.take(channel, place);
    if (taken === "before") return;
    if (taken !== "next") return this.#missing(channel, place, taken);
    if (event.type.startsWith(SYSTEM)) {
      this.#wait(() => this.#shown.pass({ channel, place }));
      if (event.type !== TOMBSTONE) this.#change(event);
      return this.#checkCaughtUp();
    }

    const cursor = formatCursor(channel, place);
    this.#log("message", cursor);
    const init = { data: event, lastEventId: cursor };
    this.dispatchEvent(new MessageEvent("message", init));
    if (!OWN_EVENTS.has(event.type)) this.dispatchEvent(new MessageEvent(event.type, init));
    if (event.replaces) this.#offers.retire((alert) => isReplaced(alert.event, event));
    if (isOver(event, this.#serverNow)) {
      this.#wait(() => this.#shown.pass({ channel, place }));
      return this.#checkCaughtUp();
    }
    // Another tab or device has shown it, and reported that before the event came here.
    if (this.#shown.knows(channel, place)) return this.#shownElsewhere({ channel, place });
    const due = this.#environment.now() + this.#turn();
    this.#offers.add({ cursor, channel, place, event, due, missed: reaches(this.#heads.get(channel), place) });
    this.#checkCaughtUp();
  }

  /**
   * There are events between the last one and this: ask for them again, from the last one on.
   *
   * @param {string} channel @param {Place} place @param {{ after: string, stays: boolean }} hole
   */
  #missing(channel, place, { after, stays }) {
    if (!stays) return this.#line.return(undefined, 1000, `a hole after ${after}`);
    // Nothing fills this hole. Asking for ever would show nothing any more; report it and go on.
    const before = { epoch: place.epoch, seq: place.seq - 1 };
    this.#reset({ channel, reason: "unavailable", cursor: formatCursor(channel, before), refetch: null });
    this.#line.return(0, 1000, `the hole after ${after} stays`);
  }

  /** @param {ResetDetail} reset */
  #reset(reset) {
    const { channel } = reset;
    const place = parseCursors(reset.cursor).get(channel);
    if (!place) return;
    const refused = this.#resume.placeOf(channel);
    this.#resume.set(channel, place);
    this.#wait(() => this.#shown.reset(channel, refused, place));
    // After a step back, the events that wait here to be shown no longer exist.
    const back = refused?.epoch !== place.epoch || !reaches(place, refused);
    if (back) this.#offers.drop((alert) => alert.channel === channel);
    this.#elsewhere.forget(channel);
    this.#fire("reset", reset);
  }

  // --- what was missed, and what becomes of alerts -----------------------------------------------------------

  /** @param {Places} heads */
  #catchUp(heads) {
    this.#heads = heads;
    this.#environment.clearTimeout(this.#catchingUp);
    this.#catchingUp = this.#environment.setTimeout(() => {
      this.#heads.clear();
      this.#checkCaughtUp();
    }, CATCH_UP_MS);
    this.#checkCaughtUp();
  }

  /** What was missed pops up once all of it is here: a retraction may be among it. */
  #checkCaughtUp() {
    for (const [channel, head] of this.#heads) {
      if (reaches(this.#resume.placeOf(channel), head)) this.#heads.delete(channel);
    }
    const missed = this.#offers.caughtUp((channel) => !this.#heads.has(channel));
    const old = missed.filter(({ event }) => this.#serverNow - Date.parse(event.time ?? "") > this.#popUpFor);
    if (old.length === 0) return;
    this.#offers.drop((alert) => old.includes(alert));
    this.#wait(async () => {
      const news = old.filter(({ channel, place }) => !this.#shown.knows(channel, place));
      for (const alert of news) await this.#shown.pass(alert);
      for (const channel of new Set(news.map((alert) => alert.channel))) this.#reports.add(channel);
      if (news.length > 0) this.#fire("older", { count: news.length });
    });
  }

  /** An event of the system: what became of alerts. @param {CloudEvent} event */
  #change({ type, channel = "", data }) {
    const { cursor, alone, reason } = Object(data);
    const cursors = new Set(Array.isArray(alone) ? alone : []);
    if (type === RETRACTED && typeof cursor === "string") cursors.add(cursor);
    const upTo = type === READ && typeof cursor === "string" ? placeOf(cursor) : null;
    // No tab shows it any more, even if this one has never received the alert.
    for (const one of cursors) {
      const at = placeOf(one);
      if (!at) continue;
      this.#wait(async () => {
        await this.#shown.pass({ channel: at[0], place: at[1] });
        this.#reports.add(at[0]);
      });
    }
    if (upTo) this.#wait(() => this.#shown.seen(upTo[0], extentUpTo(upTo[1])));
    this.#offers.retire(
      ({ cursor: one, channel: of, place }) => cursors.has(one) || (upTo !== null && of === upTo[0] && reaches(upTo[1], place)),
    );
    this.#unread.take(Object(data));
    if (type === RETRACTED) this.#fire("retracted", { channel, cursor, reason: reason ?? "" });
    if (type === EXPIRED) this.#fire("expired", { cursors: [...cursors] });
    if (type === READ) this.#fire("read", { upTo: cursor ?? null, alone: [...cursors] });
  }

  // --- what others have shown ------------------------------------------------------------------------------

  /** @param {{ cursor: string, seen?: string }} seen  by another device: all up to there, and what is beyond it */
  #seenElsewhere({ cursor, seen }) {
    for (const [channel, extent] of parseExtents(seen || cursor)) {
      if (covers(this.#shown.extentOf(channel), extent)) continue; // by us: reports of our own come back, too
      this.#wait(() => this.#shown.seen(channel, extent));
      this.#offers.drop((alert) => alert.channel === channel && includes(extent, alert.place));
      const { epoch, seq } = extent.upTo;
      this.#elsewhere.add(channel, epoch, 1, seq, "device");
      for (const [first, last] of extent.beyond) this.#elsewhere.add(channel, epoch, first, last, "device");
    }
  }

  /** By another tab: this one event. @param {{ channel: string, place: Place }} item */
  #shownElsewhere({ channel, place }) {
    const cursor = formatCursor(channel, place);
    this.#offers.drop((alert) => alert.cursor === cursor);
    this.#elsewhere.add(channel, place.epoch, place.seq, place.seq, "tab");
  }

  // --- showing -------------------------------------------------------------------------------------------

  /** @param {import("./offers.js").Waiting} waiting @param {AbortSignal} signal @param {AbortSignal} ended */
  #offer({ event, cursor }, signal, ended) {
    const alert = new AlertEvent(event, signal, ended);
    const thrown = dispatchAlert(this, alert);
    this.#log("alert", cursor);
    return { showing: alert.showing, failed: thrown >= Math.max(1, Listened.countOf(this)), alert };
  }

  /** How long this tab lets others go first. */
  #turn() {
    const { document } = this.#environment;
    if (document.visibilityState !== "visible") return HIDDEN_MS;
    return document.hasFocus() ? 0 : VISIBLE_MS;
  }

  /** @param {() => Promise<unknown>} action */
  #wait(action) {
    this.#queue = this.#queue.then(action).catch((error) => this.#log("a defect", error));
  }

  get #serverNow() {
    return this.#environment.now() + this.#ahead;
  }

  /** @param {string} type @param {unknown} detail */
  #fire(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // --- the life of the page ------------------------------------------------------------------------------

  #live() {
    const freeze = () => {
      // No other tab has to wait for one that stands still.
      void this.#offers.giveBack();
      this.#shown.freeze();
    };
    const thaw = () => this.#shown.thaw((this.#name = randomName()));
    return new Page(this.#environment, this.#url.origin, this.#listening.signal, {
      hide: () => {
        this.#reports.flush();
        this.#line.leave();
        freeze();
      },
      unhide: () => {
        thaw();
        void this.#line.connect();
      },
      freeze,
      thaw,
      look: () => this.#look(),
      focus: () => this.#line.ask(),
      renew: (another) => this.#line.renew(another),
      tick: () => {
        this.#line.checkSilence();
        this.#offers.pump(); // no event reports that the frame we are in is no longer transparent
      },
      forbidden: () => void this.#faults.explain("policy"),
    });
  }

  #look() {
    if (!this.#page.isVisible) {
      // What was on the screen for less than a moment: another tab may be looked at now.
      if (this.#desktop?.state !== "granted") void this.#offers.giveBack(HIDDEN_MS);
      return;
    }
    this.#offers.free();
    // Somebody is looking at the page: don't let them wait for the rest of a long delay.
    if (this.#line.waits) this.#line.renew(false);
    else this.#line.ask();
  }
}

/** Node has no CloseEvent before 23. @param {number} code @param {string} reason @param {boolean} wasClean */
function closeEvent(code, reason, wasClean) {
  if (typeof CloseEvent !== "undefined") return new CloseEvent("close", { code, reason, wasClean });
  return Object.assign(new Event("close"), { code, reason, wasClean });
}

/** crypto.randomUUID() exists on secure pages only. */
function randomName() {
  return crypto.getRandomValues(new Uint32Array(3)).join("-");
}
