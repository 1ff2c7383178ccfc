/**
 * Orderbell in the browser: the alerts of one customer, each shown once.
 *
 *     import { AlertSource, Toasts } from "/client/v1/orderbell.js";
 *
 *     const toasts = new Toasts();
 *     const alerts = new AlertSource("https://alerts.example/", { key: "alice", getToken });
 *     alerts.addEventListener("alert", ({ detail }) => toasts.show(detail.data.message));
 *
 * Names follow EventSource, WebSocket and MessageEvent. What an AlertSource promises:
 * - every event of the customer's channels reaches every tab once, in order and without holes ("message"), across
 *   lost connections, restarted gateways and sleep; where the server no longer has them all, "reset" says so; a
 *   tombstone, in the place of an event that could not be published, is passed over;
 * - one tab of this browser shows it ("alert"); the others, and other devices, are told ("shown").
 *
 * Every tab has its own connection. One connection for all tabs would need a leader, and a leader's tab may be
 * throttled, frozen or killed without notice; a claim for each event (shown.js) has nobody to lose.
 *
 * @typedef {import("./cursors.js").Place} Place
 * @typedef {import("./cursors.js").Places} Places
 *
 * @typedef {object} CloudEvent
 * @property {string} id
 * @property {string} source
 * @property {string} type
 * @property {string} [subject]
 * @property {string} [time]
 * @property {string} [channel]
 * @property {number} [epoch]
 * @property {number} [seq]
 * @property {any} [data]
 *
 * @typedef {{ token: string } | { ticket: string }} Credential
 *
 * @typedef {object} Options
 * @property {string} [key]  whose alerts these are; separates what is remembered when customers share a browser
 * @property {(options: { signal: AbortSignal }) => Promise<Credential | null>} [getToken]  asked before each
 *   connection; without it, or when it gives null, a same-site cookie has to authenticate
 * @property {Partial<Environment>} [environment]  for tests
 *
 * @typedef {object} Environment  what the browser gives
 * @property {typeof WebSocket} WebSocket
 * @property {IDBFactory | null} indexedDB
 * @property {((name: string) => BroadcastChannel) | null} broadcastChannel
 * @property {(action: () => void, ms: number) => number} setTimeout
 * @property {(timer: number | undefined) => void} clearTimeout
 * @property {() => number} now  milliseconds, going on while the machine sleeps
 * @property {() => number} random
 * @property {EventTarget} window  fires pagehide, pageshow, online, offline
 * @property {Document} document
 */

import { advance, formatCursor, formatCursors, parseCursors, reaches } from "./cursors.js";
import { Backoff, answerTo } from "./returning.js";
import { Shown } from "./shown.js";
import { webSocketTransport } from "./websocket.js";

export { DesktopAlerts } from "./desktop.js";
export { TitleBadge } from "./badge.js";
export { Toasts } from "./toast.js";

const HELLO_MS = 10_000; // from the start of a connection to its hello
const REPORT_MS = 1_000; // between reports of what was shown: gateways close clients that talk too fast
const TICK_MS = 10_000;
const SLEPT_MS = 150_000; // a hidden tab's timers may fire once a minute; later than this, the machine slept
const JITTER_MS = 1_000; // networks and offices come back together
const REFUSALS = 2; // in a row, then a new token doesn't help
const SAME_HOLE = 3; // connections that couldn't fill a hole, then it is passed over with a reset
const TOMBSTONE = "orderbell.tombstone"; // in the place of an event that could not be published

// Who claims first: the tab that is looked at. A visible tab beside it waits a moment, a hidden one longer
// than a slow visible one may take. A hidden tab's timers are a second late at most, and a late claim costs nothing.
const VISIBLE_MS = 50;
const HIDDEN_MS = 250;

/**
 * @fires open  the gateway said hello; `gateway` and `channels` are known
 * @fires message  MessageEvent, in every tab: `data` the CloudEvent, `lastEventId` its cursor
 * @fires alert  CustomEvent, in one tab: `detail` the CloudEvent; show it now, before the listener returns
 * @fires shown  CustomEvent `{channel, place, cursor, by: "tab" | "device"}`: somebody else has shown all up to there
 * @fires reset  CustomEvent `{channel, reason, cursor, refetch}`: events are missing, reload what depends on them
 * @fires reconnecting  CustomEvent `{attempt, delay, code, reason}`
 * @fires close  CloseEvent, only when it will not come back
 */
export class AlertSource extends EventTarget {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSED = 2;

  readyState = AlertSource.CONNECTING;
  /** The name of the gateway that said hello last. */
  gateway = "";
  /** The channels that this customer may read. @type {readonly string[]} */
  channels = [];

  #url;
  #getToken;
  #environment;
  #transport;
  #shown;
  #backoff;
  #listening = new AbortController();

  /** The last event that this tab received, by channel: where it resumes. @type {Places} */
  #had = new Map();
  /** The last event that this tab itself showed, and the last it reported on this connection. @type {Places} */
  #shownHere = new Map();
  /** @type {Places} */
  #reported = new Map();
  /** The last that "shown" has told. @type {Places} */
  #told = new Map();

  /** @type {import("./websocket.js").Connection | null} */
  #connection = null;
  /** One for each attempt to connect; whatever an earlier one still brings is ignored. */
  #attempt = new AbortController();
  #helloAt = 0;
  /** @type {number | null}  the wait that the gateway asked for when it said bye */
  #byeMs = null;
  #refusals = 0;
  /** Whether the next connection names its cursor. */
  #resumes = true;
  /** Whether a connection without the cursor was tried since one with it was welcome. */
  #forgot = false;
  #hole = { cursor: "", times: 0 };
  #sent = 0;
  #name = randomName();

  /** @type {number | undefined} */
  #returning;
  /** @type {number | undefined} */
  #reporting;
  /** @type {number | undefined} */
  #ticking;
  #tickAt = 0;
  #wasOffline = false;
  /** Claims and resets, one after the other. */
  #queue = Promise.resolve();

  /**
   * @param {string | URL} [url]  of the gateway, or of the balancer in front of several
   * @param {Options} [options]
   */
  constructor(url = "/", { key = "", getToken, environment } = {}) {
    super();
    this.#environment = { ...browser(), ...environment };
    this.#url = new URL("events", new URL(url, this.#environment.document.baseURI));
    this.#getToken = getToken;
    this.#transport = webSocketTransport(this.#environment.WebSocket);
    this.#backoff = new Backoff(this.#environment.random);
    this.#shown = new Shown(key, {
      indexedDB: this.#environment.indexedDB,
      broadcastChannel: this.#environment.broadcastChannel,
      ontab: (channel, place) => this.#tell(channel, place, "tab"),
    });
    this.#listen();
    this.#start();
  }

  get url() {
    return this.#url.href;
  }

  /** The cursor of the last events that this tab received. */
  get lastEventId() {
    return formatCursors(this.#had);
  }

  /** Ends it for good; fires "close". */
  close() {
    this.#end(1000, "", true);
  }

  // --- connecting ------------------------------------------------------------------------------------

  async #start() {
    const places = await this.#shown.places();
    for (const [channel, place] of places) advance(this.#had, channel, place);
    this.#connect();
  }

  async #connect() {
    if (this.readyState === AlertSource.CLOSED) return;
    this.#leave();
    this.readyState = AlertSource.CONNECTING;
    const attempt = (this.#attempt = new AbortController());
    const { signal } = attempt;
    const timer = this.#environment.setTimeout(() => {
      if (this.#attempt === attempt && this.readyState === AlertSource.CONNECTING) {
        this.#leave();
        this.#closed(1006, "no hello", false);
      }
    }, HELLO_MS);
    signal.addEventListener("abort", () => this.#environment.clearTimeout(timer));

    let credential;
    try {
      credential = await this.#getToken?.({ signal });
    } catch (error) {
      // Perhaps the network is down. A page that knows better calls close().
      if (!signal.aborted) this.#closed(1006, `no token: ${error}`, false);
      return;
    }
    if (signal.aborted) return;

    const url = new URL(this.#url);
    if (this.#resumes && this.#had.size > 0) url.searchParams.set("after", formatCursors(this.#had));
    this.#connection = this.#transport(url, {
      // In band, not in the URL: URLs are written into logs and histories.
      opened: () => credential && this.#send("orderbell.auth", credential),
      received: (text) => this.#receive(text),
      closed: (code, reason, wasClean) => this.#closed(code, reason, wasClean),
    });
  }

  /** Ends the present connection or attempt without another word. */
  #leave() {
    this.#environment.clearTimeout(this.#returning);
    this.#environment.clearTimeout(this.#reporting);
    this.#returning = this.#reporting = undefined;
    this.#attempt.abort();
    this.#connection?.leave();
    this.#connection = null;
    this.#backoff.lived(this.#lived());
    this.#helloAt = 0;
  }

  /** How long the present connection has been open. */
  #lived() {
    return this.#helloAt ? this.#environment.now() - this.#helloAt : 0;
  }

  /** @param {number} code @param {string} reason @param {boolean} wasClean */
  #closed(code, reason, wasClean) {
    this.#connection = null;
    this.#leave();
    const answer = answerTo(code);
    if (answer.does === "stop") return this.#end(code, reason, wasClean);
    if (answer.does === "authenticate" && ++this.#refusals >= REFUSALS) return this.#end(code, reason, wasClean);
    if (answer.does === "forget") {
      if (this.#forgot || this.#had.size === 0) return this.#end(code, reason, wasClean);
      this.#forgot = true;
      this.#resumes = false;
    }
    const delay = this.#byeMs ?? this.#backoff.next(answer);
    this.#byeMs = null;
    this.#return(delay, code, reason);
  }

  /** @param {number} delay @param {number} [code] @param {string} [reason] */
  #return(delay, code = 1006, reason = "") {
    this.#leave();
    this.readyState = AlertSource.CONNECTING;
    this.#returning = this.#environment.setTimeout(() => this.#connect(), delay);
    this.#fire("reconnecting", { attempt: this.#backoff.attempt, delay, code, reason });
  }

  /** @param {number} code @param {string} reason @param {boolean} wasClean */
  #end(code, reason, wasClean) {
    if (this.readyState === AlertSource.CLOSED) return;
    this.#flush();
    this.readyState = AlertSource.CLOSED;
    this.#leave();
    this.#listening.abort();
    this.#shown.close();
    this.dispatchEvent(new CloseEvent("close", { code, reason, wasClean }));
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
        return this.#greeted(event.data);
      case "orderbell.reset":
        return this.#reset(event.data);
      case "orderbell.seen":
        return this.#seenElsewhere(event.data);
      case "orderbell.bye":
        this.#byeMs = event.data.retry_after_ms; // the gateway closes, and has spread these waits
    }
  }

  /** @param {{ cursor: string, channels: string[], gateway: string }} hello */
  #greeted({ cursor, channels, gateway }) {
    const resumed = this.#resumes;
    const resumable = this.#adopt(parseCursors(cursor));
    this.#resumes = true;
    this.#refusals = 0;
    this.#helloAt = this.#environment.now();
    if (resumed) {
      this.#forgot = false;
    } else if (resumable) {
      // Without its cursor this connection has only told which channels are ours; resume those where we were.
      return this.#return(this.#backoff.next({ does: "return" }), 1000, "resume");
    }
    this.gateway = gateway;
    this.channels = channels;
    this.readyState = AlertSource.OPEN;
    // What the last connection reported may have been lost with it.
    this.#reported.clear();
    this.#report();
    this.dispatchEvent(new Event("open"));
  }

  /**
   * Takes where the connection starts for channels that are new here, and drops those that are no longer ours.
   *
   * @param {Places} start
   * @returns whether some are neither
   */
  #adopt(start) {
    for (const channel of this.#had.keys()) {
      if (!start.has(channel)) this.#had.delete(channel);
    }
    const kept = this.#had.size > 0;
    for (const [channel, place] of start) {
      if (!this.#had.has(channel)) this.#had.set(channel, place);
    }
    this.#wait(() => this.#shown.start(start));
    return kept;
  }

  /** @param {CloudEvent} event */
  #deliver(event) {
    const { channel, epoch, seq } = event;
    if (channel === undefined || epoch === undefined || seq === undefined) return;
    const place = { epoch, seq };
    const had = this.#had.get(channel);
    if (reaches(had, place)) return; // received before: the resumed range and the live one overlap
    if (had && !(epoch === had.epoch && seq === had.seq + 1)) return this.#missing(channel, had, place);
    this.#had.set(channel, place);
    if (event.type === TOMBSTONE) return this.#wait(() => this.#pass(channel, place));

    this.dispatchEvent(new MessageEvent("message", { data: event, lastEventId: formatCursor(channel, place) }));
    // The wait begins now and not behind earlier claims: a hundred events at once wait together.
    const due = this.#turn();
    this.#wait(async () => {
      await due;
      await this.#claim(channel, place, event);
    });
  }

  /**
   * There are events between the last one and this: ask for them again, from the last one on.
   *
   * @param {string} channel @param {Place} had @param {Place} place
   */
  #missing(channel, had, place) {
    const cursor = formatCursor(channel, had);
    this.#hole = { cursor, times: this.#hole.cursor === cursor ? this.#hole.times + 1 : 1 };
    if (this.#hole.times < SAME_HOLE) {
      return this.#return(this.#backoff.next({ does: "return" }), 1000, `a hole after ${cursor}`);
    }
    // Nobody can fill it. Going round for ever would show nothing any more; say so and go on.
    const before = { epoch: place.epoch, seq: place.seq - 1 };
    this.#reset({ channel, reason: "unavailable", cursor: formatCursor(channel, before), refetch: null });
    this.#return(0, 1000, `the hole after ${cursor} stays`);
  }

  /** @param {{ channel: string, reason: string, cursor: string, refetch: string | null }} reset */
  #reset(reset) {
    const place = parseCursors(reset.cursor).get(reset.channel);
    if (!place) return;
    const refused = this.#had.get(reset.channel);
    this.#had.set(reset.channel, place);
    this.#wait(() => this.#shown.reset(reset.channel, refused, place));
    this.#fire("reset", reset);
  }

  /** @param {{ cursor: string }} seen */
  #seenElsewhere({ cursor }) {
    for (const [channel, place] of parseCursors(cursor)) {
      if (this.#shown.knows(channel, place)) continue; // by us: reports of our own come back, too
      this.#shown.seen(channel, place);
      this.#tell(channel, place, "device");
    }
  }

  // --- showing -------------------------------------------------------------------------------------------

  /** @param {string} channel @param {Place} place @param {CloudEvent} event */
  async #claim(channel, place, event) {
    // Whoever is asked next shows it: another tab now, or the next visit.
    if (this.readyState === AlertSource.CLOSED) return;
    if (await this.#shown.claim(channel, place, () => this.#fire("alert", event))) {
      advance(this.#shownHere, channel, place);
      this.#report();
    } else {
      this.#tell(channel, place, "tab");
    }
  }

  /** There is nothing to show at this place. @param {string} channel @param {Place} place */
  async #pass(channel, place) {
    // The claims before it were dropped then, and must not be passed over.
    if (this.readyState !== AlertSource.CLOSED) await this.#shown.pass(channel, place);
  }

  /** Resolves when it is this tab's turn to claim. @returns {Promise<void>} */
  #turn() {
    const { document, setTimeout } = this.#environment;
    const visible = document.visibilityState === "visible";
    if (visible && document.hasFocus()) return Promise.resolve();
    return new Promise((resolve) => setTimeout(resolve, visible ? VISIBLE_MS : HIDDEN_MS));
  }

  /** @param {() => Promise<void>} action */
  #wait(action) {
    this.#queue = this.#queue.then(action);
  }

  /** @param {string} channel @param {Place} place @param {"tab" | "device"} by */
  #tell(channel, place, by) {
    if (reaches(this.#told.get(channel), place)) return;
    this.#told.set(channel, place);
    this.#fire("shown", { channel, place, cursor: formatCursor(channel, place), by });
  }

  /** Tells the server what was shown here: at once, but then not again within `REPORT_MS`. */
  #report() {
    if (this.#reporting !== undefined || this.readyState !== AlertSource.OPEN) return;
    if (!this.#flush()) return;
    this.#reporting = this.#environment.setTimeout(() => {
      this.#reporting = undefined;
      this.#report();
    }, REPORT_MS);
  }

  /** Whether there was something to report. */
  #flush() {
    if (this.readyState !== AlertSource.OPEN) return false;
    const news = [...this.#shownHere].filter(
      // The server keeps no seen cursor for topics: it would be one for all their readers.
      ([channel, place]) => channel.startsWith("customer:") && !reaches(this.#reported.get(channel), place),
    );
    if (news.length === 0) return false;
    for (const [channel, place] of news) this.#reported.set(channel, place);
    this.#send("orderbell.seen", { cursor: formatCursors(new Map(news)) });
    return true;
  }

  // --- the life of the page ------------------------------------------------------------------------------

  #listen() {
    const { window, document } = this.#environment;
    const { signal } = this.#listening;
    // A page in the back/forward cache may have no open connection; one that is left needs none.
    window.addEventListener("pagehide", () => this.#hide(), { signal });
    window.addEventListener("pageshow", (event) => this.#unhide(/** @type {PageTransitionEvent} */ (event)), { signal });
    // "offline" alone ends nothing: a gateway on this machine or in this house can be reached without a network.
    // But after it, no close may ever come for a connection that went through the old network.
    window.addEventListener("offline", () => (this.#wasOffline = true), { signal });
    window.addEventListener("online", () => this.#wasOffline && this.#renew(), { signal });
    document.addEventListener("visibilitychange", () => this.#look(), { signal });
    this.#tick();
    signal.addEventListener("abort", () => this.#environment.clearTimeout(this.#ticking));
  }

  #hide() {
    this.#flush();
    this.#leave();
    this.readyState = AlertSource.CONNECTING;
  }

  /** @param {PageTransitionEvent} event */
  #unhide({ persisted }) {
    if (!persisted) return; // an ordinary load: the constructor connects
    this.#tickAt = this.#environment.now();
    this.#connect();
  }

  #look() {
    if (this.#environment.document.visibilityState !== "visible") return;
    this.#checkSleep();
    // Somebody looks at the page: don't let them wait for the rest of a long delay.
    if (this.#returning !== undefined) this.#renew();
  }

  #tick() {
    this.#tickAt = this.#environment.now();
    this.#ticking = this.#environment.setTimeout(() => {
      this.#checkSleep();
      this.#tick();
    }, TICK_MS);
  }

  /**
   * Connections die silently while a machine sleeps, and a quiet one looks the same: script can't see the
   * gateway's pings. So it is the sleep that we notice, by the clock.
   */
  #checkSleep() {
    const slept = this.#environment.now() - this.#tickAt > SLEPT_MS;
    this.#tickAt = this.#environment.now();
    if (slept) this.#renew();
  }

  #renew() {
    this.#wasOffline = false;
    this.#return(this.#environment.random() * JITTER_MS);
  }

  // --- saying --------------------------------------------------------------------------------------------

  /** @param {string} type @param {object} data */
  #send(type, data) {
    const id = `${this.#name}-${++this.#sent}`;
    this.#connection?.send(JSON.stringify({ specversion: "1.0", id, source: "/orderbell/browser", type, data }));
  }

  /** @param {string} type @param {unknown} detail */
  #fire(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** @returns {Environment} */
function browser() {
  return {
    WebSocket,
    indexedDB: storage(),
    broadcastChannel: "BroadcastChannel" in window ? (name) => new BroadcastChannel(name) : null,
    setTimeout: (action, ms) => window.setTimeout(action, ms),
    clearTimeout: (timer) => window.clearTimeout(timer),
    now: () => Date.now(),
    random: () => Math.random(),
    window,
    document,
  };
}

function storage() {
  try {
    return window.indexedDB ?? null;
  } catch {
    return null; // some browsers throw where site data is blocked
  }
}

/** crypto.randomUUID() exists on secure pages only. */
function randomName() {
  return [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
