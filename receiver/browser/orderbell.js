/// <reference lib="esnext.disposable" preserve="true" />

/**
 * Orderbell in the browser: the alerts of one customer, each shown once.
 *
 *     import { AlertSource, Toasts } from "/client/v1/orderbell.js";
 *
 *     const toasts = new Toasts();
 *     const alerts = new AlertSource("https://alerts.example/", { key: "alice", getToken });
 *     alerts.addEventListener("alert", ({ detail }) => toasts.show(detail));
 *
 * Names follow EventSource, WebSocket and MessageEvent. What an AlertSource promises:
 * - every event of the customer's channels reaches every tab once, in order and without holes ("message"), across
 *   lost connections, restarted gateways and sleep; where the server no longer has them all, "reset" says so; a
 *   tombstone, in the place of an event that could not be published, is passed over;
 * - one tab of this browser shows it ("alert"), one that a person can see; the other tabs and devices are notified
 *   ("shown"). An alert that was on no screen does not count as shown.
 *
 * Every tab has its own connection. One connection for all tabs would need a leader, and a leader's tab may be
 * throttled, frozen or killed without notice; a claim for each event (shown.js) has nobody to lose.
 *
 * @typedef {import("./cursors.js").Place} Place
 * @typedef {import("./cursors.js").Places} Places
 * @typedef {import("./extents.js").Extent} Extent
 * @typedef {import("./faults.js").Fault} Fault
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
 * @property {string} [expirytime]  when it expires
 * @property {string} [popuntil]  after this time it no longer pops up
 * @property {string | boolean} [replaces]  the id of another event of its source; true: all earlier ones of its subject
 * @property {any} [data]
 *
 * @typedef {{ token: string } | { ticket: string }} Credential
 *
 * @typedef {object} Options
 * @property {string} [key]  whose alerts these are; separates what is remembered when customers share a browser
 * @property {(options: { signal: AbortSignal }) => Promise<Credential | null> | Credential | null} [getToken]  asked
 *   before each connection, and before a token runs out; without it, or when it gives null, a same-site cookie has to
 *   authenticate
 * @property {{ readonly state: string }} [desktop]  a DesktopAlerts that the listener of "alert" shows them with: while
 *   it is "granted", alerts are also offered to this tab while it is hidden
 * @property {readonly import("./ways.js").Way[]} [transports]  those to try, the best first; by default all of them
 * @property {number} [popUpFor]  milliseconds: alerts missed longer ago are only counted ("older"); 10 minutes
 * @property {AbortSignal} [signal]  closes it
 * @property {boolean} [debug]  logs to the console what happens, never a payload or a token
 * @property {(text: string, detail?: unknown) => void} [log]  the same, to your own log
 * @property {Partial<Environment>} [environment]  for tests; and `{ WebSocket }` for runtimes without one, such as Node 20
 *
 * @typedef {object} Environment  what the browser gives
 * @property {typeof WebSocket} WebSocket
 * @property {typeof fetch} fetch
 * @property {IDBFactory | null} indexedDB
 * @property {((name: string) => BroadcastChannel) | null} broadcastChannel
 * @property {(action: () => void, ms: number) => number} setTimeout
 * @property {(timer: number | undefined) => void} clearTimeout
 * @property {() => number} now  milliseconds, going on while the machine sleeps
 * @property {() => number} random
 * @property {EventTarget} window  fires pagehide, pageshow, online, offline, focus
 * @property {Document} document
 *
 * @typedef {{ channel: string, first: Place, place: Place, cursor: string, by: "tab" | "device" }} ShownDetail
 * @typedef {{ channel: string, reason: string, cursor: string, refetch: string | null }} ResetDetail
 * @typedef {{ channel: string, cursor: string, reason: string }} RetractedDetail
 * @typedef {{ cursors: string[] }} ExpiredDetail
 * @typedef {{ upTo: string | null, alone: string[] }} ReadDetail
 * @typedef {{ count: number }} OlderDetail
 * @typedef {import("./alerts.js").Count} Count
 * @typedef {import("./alerts.js").AlertList} AlertList
 * @typedef {{ attempt: number, delay: number, code: number, reason: string }} ReconnectingDetail
 *
 * @typedef {object} AlertSourceEventMap
 * @property {Event} open
 * @property {MessageEvent<CloudEvent>} message
 * @property {AlertEvent} alert
 * @property {CustomEvent<ShownDetail>} shown
 * @property {CustomEvent<ResetDetail>} reset
 * @property {CustomEvent<RetractedDetail>} retracted
 * @property {CustomEvent<ExpiredDetail>} expired
 * @property {CustomEvent<ReadDetail>} read
 * @property {CustomEvent<Count>} unread
 * @property {CustomEvent<OlderDetail>} older
 * @property {CustomEvent<ReconnectingDetail>} reconnecting
 * @property {CustomEvent<Fault>} error
 * @property {CloseEvent} close
 */

import { AlertEvent, dispatchAlert } from "./alert.js";
import { Offered, SYSTEM, Unread, isOver, isReplaced, placeOf } from "./alerts.js";
import { advance, formatCursor, formatCursors, parseCursors, reaches } from "./cursors.js";
import { covers, extentUpTo, formatExtent, include, includes, parseExtents } from "./extents.js";
import { Faults } from "./faults.js";
import { Offers } from "./offers.js";
import { Backoff, answerTo } from "./returning.js";
import { Shown } from "./shown.js";
import { Silence } from "./silence.js";
import { lifeOf } from "./token.js";
import { InView } from "./visible.js";
import { WAYS, Ways } from "./ways.js";

export { AlertEvent } from "./alert.js";
export { isReplaced } from "./alerts.js";
export { DesktopAlerts } from "./desktop.js";
export { TitleBadge } from "./badge.js";
export { Toasts } from "./toast.js";
export { severityOf, textOf } from "./words.js";

const HELLO_MS = 10_000; // from the start of a connection to its hello
const REPORT_MS = 1_000; // between reports of what was shown: gateways close clients that talk too fast
const TICK_MS = 5_000;
const SLEPT_MS = 150_000; // a hidden tab's timers may fire once a minute; later than this, the machine slept
const JITTER_MS = 1_000; // networks and offices come back together
const REFUSALS = 2; // in a row of one and the same token: another has to come
const COOKIE_REFUSALS = 3; // whether a cookie is another one, script can't see
const SLOWER_MS = 5_000; // after a refusal of a new token: the clock of a gateway, or of the shop, is wrong
const SAME_HOLE = 3; // connections that couldn't fill a hole, then it is passed over with a reset
const UNWELCOME = 2; // connections that never said hello, then it is asked why
const TOMBSTONE = "orderbell.tombstone"; // in the place of an event that could not be published
const RETRACTED = "orderbell.retracted";
const READ = "orderbell.read";
const EXPIRED = "orderbell.expired";
const PING = "orderbell.ping"; // a gateway that takes it also sends heartbeats as messages
const CUSTOMERS = "orderbell/customers"; // BroadcastChannel: who is signed in, by cookie

const POP_UP_MS = 10 * 60_000; // what was missed for longer is a line in a list, not a row of old toasts
const CATCH_UP_MS = 10_000; // then pop-ups are no longer held back, whatever is still missing

const HANDLER = Symbol("onalert"); // in the place of a listener
const OWN_EVENTS = new Set([
  ...["open", "message", "alert", "shown", "reset", "reconnecting", "error", "close"],
  ...["retracted", "expired", "read", "unread", "older"],
]);

// Who claims first: the tab that is looked at. A visible tab beside it waits a moment, one that can only raise an alert
// of the desktop longer than a slow visible one may take. A late claim costs nothing.
const VISIBLE_MS = 50;
const HIDDEN_MS = 250;

/**
 * @fires open  the gateway said hello; `gateway` and `channels` are known
 * @fires message  MessageEvent, in every tab: `data` the CloudEvent, `lastEventId` its cursor; and the same under its
 *   own type, where that is none of these
 * @fires alert  AlertEvent, in one tab: `detail` the CloudEvent, `shown(promise)` to say when it was on the screen
 * @fires shown  CustomEvent `{channel, first, place, cursor, by}`: another tab or device has shown those from `first` to `place`
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
export class AlertSource extends EventTarget {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSED = 2;
  CONNECTING = 0;
  OPEN = 1;
  CLOSED = 2;

  readyState = AlertSource.CONNECTING;
  /** The name of the gateway that said hello last. */
  gateway = "";
  /** The channels that this customer may read. @type {readonly string[]} */
  channels = [];

  #url;
  #getToken;
  #environment;
  #ways;
  #shown;
  #offers;
  #backoff;
  #faults;
  #log;
  #desktop;
  #inView;
  #customers;
  #popUpFor;
  /** @type {Promise<import("./inbox.js").Inbox> | undefined} */
  #inbox;
  #offered = new Offered();
  #unread = new Unread((count) => this.#fire("unread", count));
  /** The server's clock, as far as it is ahead of ours. */
  #ahead = 0;
  /** Where the channels were at the last hello: what comes up to there was missed. @type {Places} */
  #heads = new Map();
  /** What was missed and may be taken back by what still comes. @type {import("./offers.js").Waiting[]} */
  #missed = [];
  /** @type {number | undefined} */
  #catchingUp;
  #silence = new Silence();
  #listening = new AbortController();
  /** Those of "alert", and what is called for each: without one, this tab shows nothing. @type {Map<unknown, any>} */
  #listeners = new Map();

  /** The last event that this tab received, by channel: where it resumes. @type {Places} */
  #had = new Map();
  /** What this tab reported last on this connection, by channel. @type {Map<string, string>} */
  #reported = new Map();
  /** The channels of which this tab has shown something since its last report. @type {Set<string>} */
  #news = new Set();
  /** What "shown" has told. @type {Map<string, Extent>} */
  #told = new Map();

  /** @type {import("./websocket.js").Connection | null} */
  #connection = null;
  /** One for each attempt to connect; whatever an earlier one still brings is ignored. */
  #attempt = new AbortController();
  #helloAt = 0;
  /** @type {number | null}  the wait that the gateway asked for when it said bye */
  #byeMs = null;
  /** The credential of this connection, and the one that was refused last. */
  #credential = "";
  #refused = "";
  #refusals = 0;
  /** Connections in a row that never said hello. */
  #unwelcome = 0;
  /** Whether the next connection names its cursor. */
  #resumes = true;
  /** Whether a connection without the cursor was tried since one with it was welcome. */
  #forgot = false;
  #hole = { cursor: "", times: 0 };
  #sent = 0;
  #name = randomName();
  /** Whose page this is, since the first hello. @type {string | null} */
  #customer = null;
  /** @type {Set<string>}  what messages this gateway takes */
  #accepts = new Set();

  /** @type {number | undefined} */
  #returning;
  /** @type {number | undefined} */
  #reporting;
  /** @type {number | undefined} */
  #ticking;
  /** @type {number | undefined} */
  #asking;
  /** @type {number | undefined} */
  #renewing;
  #tickAt = 0;
  #wasOffline = false;
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
    super();
    this.#environment = { ...browser(), ...environment };
    this.#log = log ?? (debug ? (/** @type {unknown[]} */ ...words) => console.debug("orderbell:", ...words) : () => {});
    this.#url = new URL("events", addressOf(url, this.#environment.document));
    this.#faults = new Faults(this.#url, (fault) => {
      this.#log(`error: ${fault.kind}`, fault.message);
      this.#fire("error", fault);
    });
    this.#getToken = getToken;
    this.#desktop = desktop;
    this.#ways = new Ways(transports, this.#environment);
    this.#popUpFor = popUpFor;
    this.#backoff = new Backoff(this.#environment.random);
    this.#shown = new Shown(key, {
      ...this.#environment,
      tab: this.#name,
      ontab: (item) => this.#shownElsewhere(item),
      onfree: () => this.#offers.free(),
      onfault: (error) => this.#faults.explain("storage", error),
    });
    this.#offers = new Offers(this.#shown, {
      ...this.#environment,
      shows: () => this.shows,
      offer: (event, held) => this.#offer(event, held),
      isOver: (event) => isOver(event, this.#serverNow),
      seen: (channel) => this.#report(channel),
      elsewhere: ({ channel, place }) => this.#tell(channel, place.epoch, place.seq, place.seq, "tab"),
      log: this.#log,
    });
    this.#inView = new InView(() => this.#offers.pump());
    if (this.#environment.document.documentElement) this.#inView.watch(this.#environment.document.documentElement);
    this.#customers = this.#hearOfCustomers();
    // Node shows nothing, so it has nothing to remember.
    if (!this.#environment.indexedDB && "origin" in globalThis) void this.#faults.explain("storage");
    this.#listen();
    if (signal?.aborted) this.close();
    else signal?.addEventListener("abort", () => this.close(), { signal: this.#listening.signal });
    void this.#start();
  }

  get url() {
    return this.#url.href;
  }

  /** The transport in use, or being tried: "websocket", "sse" or "long-polling". */
  get transport() {
    return this.#ways.name;
  }

  /** The cursor of the last events that this tab received. */
  get lastEventId() {
    return formatCursors(this.#had);
  }

  /** Whether an alert could be shown here at this moment: somebody listens, and the page is on a screen. */
  get shows() {
    const { document } = this.#environment;
    if (this.readyState === AlertSource.CLOSED || this.#listeners.size === 0) return false;
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
          (until) => this.#askForToken(until),
          (told) => this.#unread.take(told),
        ),
    );
    this.#inbox.catch(() => (this.#inbox = undefined)); // the next call tries again
    return this.#inbox;
  }

  get #serverNow() {
    return this.#environment.now() + this.#ahead;
  }

  /** Leaves the present connection, and makes another at once. */
  reconnect() {
    if (this.readyState !== AlertSource.CLOSED) this.#return(0, 1000, "reconnect()");
  }

  /** Ends it for good; fires "close". */
  close() {
    this.#end(1000, "", true);
  }

  /** `using alerts = new AlertSource(…)`; where a browser has no such symbol yet, nobody can call it. */
  [Symbol.dispose]() {
    this.close();
  }

  // --- listening -------------------------------------------------------------------------------------

  // As of an EventSource: one handler for each kind of event, called after its listeners.

  /** @type {((this: AlertSource, event: Event) => unknown) | null} */
  onopen = null;
  /** @type {((this: AlertSource, event: MessageEvent<CloudEvent>) => unknown) | null} */
  onmessage = null;
  /** @type {((this: AlertSource, event: CustomEvent<ShownDetail>) => unknown) | null} */
  onshown = null;
  /** @type {((this: AlertSource, event: CustomEvent<RetractedDetail>) => unknown) | null} */
  onretracted = null;
  /** @type {((this: AlertSource, event: CustomEvent<ExpiredDetail>) => unknown) | null} */
  onexpired = null;
  /** @type {((this: AlertSource, event: CustomEvent<ReadDetail>) => unknown) | null} */
  onread = null;
  /** @type {((this: AlertSource, event: CustomEvent<Count>) => unknown) | null} */
  onunread = null;
  /** @type {((this: AlertSource, event: CustomEvent<OlderDetail>) => unknown) | null} */
  onolder = null;
  /** @type {((this: AlertSource, event: CustomEvent<ResetDetail>) => unknown) | null} */
  onreset = null;
  /** @type {((this: AlertSource, event: CustomEvent<ReconnectingDetail>) => unknown) | null} */
  onreconnecting = null;
  /** @type {((this: AlertSource, event: CustomEvent<Fault>) => unknown) | null} */
  onerror = null;
  /** @type {((this: AlertSource, event: CloseEvent) => unknown) | null} */
  onclose = null;
  /** @type {((this: AlertSource, event: AlertEvent) => unknown) | null} */
  #onalert = null;

  get onalert() {
    return this.#onalert;
  }

  /** As with a listener, this tab shows alerts from now on. */
  set onalert(handler) {
    this.#onalert = handler;
    this.#listeners.delete(HANDLER);
    if (typeof handler !== "function") return;
    this.#listeners.set(HANDLER, handler);
    this.#offers.pump();
  }

  /** @param {Event} event @returns {boolean} */
  dispatchEvent(event) {
    super.dispatchEvent(event);
    const handler = /** @type {Record<string, unknown>} */ (/** @type {unknown} */ (this))[`on${event.type}`];
    try {
      if (typeof handler === "function") hear(event, handler.call(this, event));
    } catch (error) {
      reportThrown(error);
    }
    return !event.defaultPrevented;
  }

  /**
   * @template {keyof AlertSourceEventMap} K
   * @overload
   * @param {K} type
   * @param {((this: AlertSource, event: AlertSourceEventMap[K]) => unknown) | { handleEvent: (event: AlertSourceEventMap[K]) => unknown } | null} listener
   * @param {boolean | AddEventListenerOptions} [options]
   * @returns {void}
   */
  /**
   * @overload
   * @param {string} type  of an event, as its sender named it
   * @param {EventListenerOrEventListenerObject | null} listener
   * @param {boolean | AddEventListenerOptions} [options]
   * @returns {void}
   */
  /**
   * @param {string} type @param {any} listener @param {boolean | AddEventListenerOptions} [options]
   */
  addEventListener(type, listener, options) {
    if (type !== "alert" || !listener) return super.addEventListener(type, listener, options);
    const heard =
      this.#listeners.get(listener) ??
      ((/** @type {Event} */ event) =>
        hear(event, typeof listener === "function" ? listener.call(this, event) : listener.handleEvent(event)));
    super.addEventListener(type, heard, options);
    const { once = false, signal } = typeof options === "object" ? options : {};
    if (signal?.aborted) return;
    this.#listeners.set(listener, heard);
    const forget = () => this.#listeners.delete(listener);
    signal?.addEventListener("abort", forget, { once: true });
    if (once) super.addEventListener(type, forget, { once, signal });
    this.#offers.pump(); // what came before there was anybody to show it
  }

  /**
   * @template {keyof AlertSourceEventMap} K
   * @overload
   * @param {K} type
   * @param {((this: AlertSource, event: AlertSourceEventMap[K]) => unknown) | { handleEvent: (event: AlertSourceEventMap[K]) => unknown } | null} listener
   * @param {boolean | EventListenerOptions} [options]
   * @returns {void}
   */
  /**
   * @overload
   * @param {string} type
   * @param {EventListenerOrEventListenerObject | null} listener
   * @param {boolean | EventListenerOptions} [options]
   * @returns {void}
   */
  /** @param {string} type @param {any} listener @param {boolean | EventListenerOptions} [options] */
  removeEventListener(type, listener, options) {
    super.removeEventListener(type, (type === "alert" && this.#listeners.get(listener)) || listener, options);
    if (type === "alert") this.#listeners.delete(listener);
  }

  // --- connecting ------------------------------------------------------------------------------------

  async #start() {
    const places = await this.#shown.places();
    for (const [channel, place] of places) advance(this.#had, channel, place);
    void this.#connect();
  }

  async #connect() {
    if (this.readyState === AlertSource.CLOSED) return;
    this.#leave();
    this.readyState = AlertSource.CONNECTING;
    const attempt = (this.#attempt = new AbortController());
    const { signal } = attempt;
    const timer = this.#environment.setTimeout(() => {
      if (this.#attempt === attempt && this.readyState === AlertSource.CONNECTING) {
        if (this.#connection) this.#ways.failed(true);
        this.#leave();
        this.#closed(1006, "no hello", false);
      }
    }, HELLO_MS);
    signal.addEventListener("abort", () => this.#environment.clearTimeout(timer));

    let credential;
    try {
      credential = await this.#askForToken(signal);
    } catch (error) {
      // Perhaps the network is down. A page that knows better calls close().
      if (!signal.aborted) this.#closed(1006, `no token: ${error}`, false);
      return;
    }
    if (signal.aborted) return;
    this.#credential = credential ? JSON.stringify(credential) : "";
    if (this.#refusals >= REFUSALS && credential && this.#credential === this.#refused) {
      return this.#end(4401, "getToken gives the token that was refused", true);
    }

    const url = new URL(this.#url);
    if (this.#resumes && this.#had.size > 0) url.searchParams.set("after", formatCursors(this.#had));
    this.#log("connecting", url.href);
    let transport = this.#ways.transport;
    if (transport instanceof Promise) {
      try {
        transport = await transport;
      } catch (error) {
        if (signal.aborted) return;
        this.#ways.failed(false);
        return this.#closed(1006, `not loaded: ${error}`, false);
      }
      if (signal.aborted) return;
    }
    this.#connection = transport(url, {
      credential,
      authenticate: () => this.#askForToken(signal),
      // In band, not in the URL: URLs are written into logs and histories.
      opened: () => credential && this.#send("orderbell.auth", credential),
      alive: () => this.#silence.heard(this.#environment.now()),
      received: (text) => this.#receive(text),
      closed: (code, reason, wasClean) => this.#closed(code, reason, wasClean),
    });
    this.#renewAfter(credential);
  }

  /** @param {AbortSignal} signal @returns {Promise<Credential | null>} */
  async #askForToken(signal) {
    /** @type {unknown} */
    let credential;
    try {
      credential = await this.#getToken?.({ signal });
    } catch (error) {
      if (!signal.aborted) this.#faults.say("token", "getToken failed; trying again.", error);
      throw error;
    }
    if (credential === undefined || credential === null) return null;
    const { token, ticket } = /** @type {{ token?: unknown, ticket?: unknown }} */ (credential);
    if (typeof token === "string") return { token };
    if (typeof ticket === "string") return { ticket };
    const message = `getToken has to give { token: "…" }, { ticket: "…" } or null, and gave a ${typeof credential}.`;
    if (!signal.aborted) this.#faults.say("token", message);
    throw new TypeError(message);
  }

  /** Before a token runs out, another one goes through the connection that lives on. @param {Credential | null} credential */
  #renewAfter(credential) {
    const life = credential && "token" in credential ? lifeOf(credential.token) : null;
    if (life === null) return;
    const { signal } = this.#attempt;
    this.#environment.clearTimeout(this.#renewing);
    this.#renewing = this.#environment.setTimeout(async () => {
      const next = await this.#askForToken(signal).catch(() => null); // then the gateway closes with 4401, as ever
      if (!next || signal.aborted || this.readyState !== AlertSource.OPEN) return;
      this.#credential = JSON.stringify(next);
      this.#send("orderbell.auth", next);
      this.#renewAfter(next);
    }, life);
  }

  /** Ends the present connection or attempt without another word. */
  #leave() {
    for (const timer of [this.#returning, this.#reporting, this.#asking, this.#renewing]) {
      this.#environment.clearTimeout(timer);
    }
    this.#returning = this.#reporting = this.#asking = this.#renewing = undefined;
    this.#attempt.abort();
    this.#ways.stop();
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
    const greeted = this.#helloAt > 0;
    if (code === 1006 && greeted) this.#ways.broke(this.#lived());
    else if (code === 1006 && this.#connection) this.#ways.failed(false);
    this.#connection = null;
    this.#leave();
    this.#log("closed", `${code} ${reason}`);
    const answer = answerTo(code);
    if (answer.does === "stop") return this.#stop(code, reason, wasClean);
    if (answer.does === "authenticate" && !this.#mayTryAnother(answer, reason)) {
      return this.#stop(code, reason, wasClean);
    }
    if (answer.does === "forget") {
      if (this.#forgot || this.#had.size === 0) return this.#stop(code, reason, wasClean);
      this.#forgot = true;
      this.#resumes = false;
    }
    this.#unwelcome = greeted || code !== 1006 ? 0 : this.#unwelcome + 1;
    if (this.#unwelcome === UNWELCOME * this.#ways.count) void this.#diagnose();
    const slower = this.#refusals >= REFUSALS ? SLOWER_MS : 0;
    const delay = this.#byeMs ?? this.#backoff.next({ ...answer, leastMs: Math.max(answer.leastMs ?? 0, slower) });
    this.#byeMs = null;
    this.#return(delay, code, reason);
  }

  /**
   * After 4401. A token that has run out is no fault; one that is refused at once, though it is new, may come from a
   * clock that is wrong, and then waiting helps: as long as another token comes, it is tried.
   *
   * @param {import("./returning.js").Answer} answer @param {string} reason
   */
  #mayTryAnother(answer, reason) {
    this.#refusals += 1;
    const same = this.#credential === this.#refused;
    this.#refused = this.#credential;
    if (this.#refusals < REFUSALS) return true;
    if (this.#credential === "") return this.#refusals < COOKIE_REFUSALS;
    if (same) return false;
    this.#faults.say("refused", `the gateway refuses the token (${reason || "4401"}); trying with another, more slowly.`);
    return true;
  }

  /** @param {number} code @param {string} reason @param {boolean} wasClean */
  #stop(code, reason, wasClean) {
    const why = reason || "no reason given";
    if (code === 4403) this.#faults.say("forbidden", `the gateway forbids it: ${why}.`);
    if (code === 4401) this.#faults.say("refused", `the gateway refuses the token: ${why}.`);
    this.#end(code, reason, wasClean);
  }

  async #diagnose() {
    const kind = await this.#faults.diagnose(this.#environment.fetch);
    if (this.readyState === AlertSource.CONNECTING && this.#unwelcome > 0) void this.#faults.explain(kind);
  }

  /** @param {number} delay @param {number} [code] @param {string} [reason] */
  #return(delay, code = 1006, reason = "") {
    if (this.readyState === AlertSource.CLOSED) return; // a probe, or a word of another tab, may come late
    this.#leave();
    this.readyState = AlertSource.CONNECTING;
    this.#returning = this.#environment.setTimeout(() => void this.#connect(), delay);
    this.#fire("reconnecting", { attempt: this.#backoff.attempt, delay, code, reason });
  }

  /** @param {number} code @param {string} reason @param {boolean} wasClean */
  #end(code, reason, wasClean) {
    if (this.readyState === AlertSource.CLOSED) return;
    this.#flush();
    this.readyState = AlertSource.CLOSED;
    this.#leave();
    this.#listening.abort();
    this.#environment.clearTimeout(this.#catchingUp);
    this.#missed = [];
    this.#offers.close();
    this.#inView.close();
    this.#shown.close();
    this.#customers?.close();
    this.dispatchEvent(closeEvent(code, reason, wasClean));
  }

  // --- what the gateway says ---------------------------------------------------------------------------

  /** @param {string} text */
  #receive(text) {
    this.#silence.heard(this.#environment.now());
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
        this.#byeMs = event.data.retry_after_ms; // the gateway closes, and has spread these waits
    }
  }

  /** @param {{ cursor: string, channels: string[], gateway: string, heartbeat_seconds?: number, accepts?: string[], as_of?: string }} hello */
  #greeted({ cursor, channels, gateway, heartbeat_seconds = 0, accepts = [], as_of = "" }) {
    const customer = customerOf(channels);
    if (this.#customer !== null && this.#customer !== customer) {
      // Signed in as somebody else, in another tab or meanwhile: nothing of theirs belongs on this page.
      const reason = "another customer is signed in now";
      this.#faults.say("customer", `${reason}; this page's alerts end.`);
      return this.#end(4403, reason, true);
    }
    const resumed = this.#resumes;
    const resumable = this.#adopt(parseCursors(cursor));
    this.#resumes = true;
    this.#helloAt = this.#environment.now();
    if (resumed) {
      this.#forgot = false;
    } else if (resumable) {
      // Without its cursor this connection has only shown which channels are ours; resume those where we were.
      return this.#return(this.#backoff.next({ does: "return" }), 1000, "resume");
    }
    this.#refusals = this.#unwelcome = 0;
    this.#refused = "";
    this.#faults.over("refused", "token", "unreachable", "origin", "policy");
    this.#accepts = new Set(accepts);
    this.#catchUp(parseCursors(as_of));
    this.#silence.begin(this.#environment.now(), this.#accepts.has(PING) ? heartbeat_seconds : 0);
    this.#ways.works(this.#url, () => this.#return(0, 1000, "the WebSocket works again"));
    this.#isCustomer(customer);
    this.gateway = gateway;
    this.channels = channels;
    this.readyState = AlertSource.OPEN;
    // What the last connection reported may have been lost with it.
    this.#reported.clear();
    this.#report();
    this.#log("open", gateway);
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
      if (start.has(channel)) continue;
      this.#had.delete(channel);
      this.#offers.drop((alert) => alert.channel === channel);
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
    if (event.replaces) this.#retire(({ event: other }) => isReplaced(other, event), (other) => isReplaced(other, event));
    if (isOver(event, this.#serverNow)) {
      this.#wait(() => this.#shown.pass({ channel, place }));
      return this.#checkCaughtUp();
    }
    // Another one has shown it, and reported that before the event came here.
    if (this.#shown.knows(channel, place)) return this.#shownElsewhere({ channel, place });
    // The wait begins now and not behind earlier changes: a hundred events at once wait together.
    const due = this.#environment.now() + this.#turn();
    if (this.#isMissed(channel, place)) {
      this.#missed.push({ cursor, channel, place, event, due });
      return this.#checkCaughtUp();
    }
    this.#wait(async () => this.#offers.add({ cursor, channel, place, event, due }));
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

  /** @param {string} channel @param {Place} place */
  #isMissed(channel, place) {
    const head = this.#heads.get(channel);
    return head !== undefined && reaches(head, place);
  }

  /** What was missed pops up once all of it is here: a retraction may be among it. */
  #checkCaughtUp() {
    for (const [channel, head] of this.#heads) {
      if (reaches(this.#had.get(channel), head)) this.#heads.delete(channel);
    }
    if (this.#missed.length === 0) return;
    const ready = this.#missed.filter(({ channel }) => !this.#heads.has(channel));
    this.#missed = this.#missed.filter(({ channel }) => this.#heads.has(channel));
    const old = ready.filter(({ event }) => this.#serverNow - Date.parse(event.time ?? "") > this.#popUpFor);
    this.#wait(async () => {
      for (const alert of ready) if (!old.includes(alert)) this.#offers.add(alert);
      const news = old.filter(({ channel, place }) => !this.#shown.knows(channel, place));
      for (const alert of news) await this.#shown.pass(alert);
      for (const channel of new Set(news.map((alert) => alert.channel))) this.#report(channel);
      if (news.length > 0) this.#fire("older", { count: news.length });
    });
  }

  /** An event of the system: what became of alerts. @param {CloudEvent} event */
  #change({ type, channel = "", data }) {
    const { cursor, alone, reason } = Object(data);
    const cursors = new Set(Array.isArray(alone) ? alone : []);
    if (type === RETRACTED && typeof cursor === "string") cursors.add(cursor);
    const upTo = type === READ && typeof cursor === "string" ? placeOf(cursor) : null;
    const isIt = (/** @type {string} */ one, /** @type {Place} */ place, /** @type {string} */ of) =>
      cursors.has(one) || (upTo !== null && of === upTo[0] && reaches(upTo[1], place));
    // No tab shows it any more; not even where the alert itself is not known here.
    for (const one of cursors) {
      const at = placeOf(one);
      if (!at) continue;
      this.#wait(async () => {
        await this.#shown.pass({ channel: at[0], place: at[1] });
        this.#report(at[0]);
      });
    }
    if (upTo) this.#wait(() => this.#shown.seen(upTo[0], extentUpTo(upTo[1])));
    this.#retire(
      (alert) => isIt(alert.cursor, alert.place, alert.channel),
      (of, one) => isIt(one, { epoch: of.epoch ?? 0, seq: of.seq ?? 0 }, of.channel ?? ""),
    );
    this.#unread.take(Object(data));
    if (type === RETRACTED) this.#fire("retracted", { channel, cursor, reason: reason ?? "" });
    if (type === EXPIRED) this.#fire("expired", { cursors: [...cursors] });
    if (type === READ) this.#fire("read", { upTo: cursor ?? null, alone: [...cursors] });
  }

  /**
   * These are no alerts any more: they don't pop up, and go from the screen.
   *
   * @param {(alert: import("./offers.js").Waiting) => boolean} waits
   * @param {(event: CloudEvent, cursor: string) => boolean} offered
   */
  #retire(waits, offered) {
    const gone = this.#missed.filter(waits);
    this.#missed = this.#missed.filter((alert) => !gone.includes(alert));
    for (const alert of gone) this.#wait(() => this.#shown.pass(alert));
    // Behind what is still on its way to the offers.
    this.#wait(async () => this.#offers.drop(waits));
    this.#offers.drop(waits);
    this.#offered.end(offered);
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

  /** @param {ResetDetail} reset */
  #reset(reset) {
    const { channel } = reset;
    const place = parseCursors(reset.cursor).get(channel);
    if (!place) return;
    const refused = this.#had.get(channel);
    this.#had.set(channel, place);
    this.#wait(async () => {
      await this.#shown.reset(channel, refused, place);
      // After a step back, what waits here to be shown has never been.
      if (refused && !reaches(place, refused)) this.#offers.drop((alert) => alert.channel === channel);
      if (refused?.epoch !== place.epoch) this.#offers.drop((alert) => alert.channel === channel);
    });
    this.#told.delete(channel);
    this.#fire("reset", reset);
  }

  // --- what others have shown ------------------------------------------------------------------------------

  /** @param {{ cursor: string, seen?: string }} seen  by another device: all up to there, and what is beyond it */
  #seenElsewhere({ cursor, seen }) {
    for (const [channel, extent] of parseExtents(seen || cursor)) {
      if (covers(this.#shown.extentOf(channel), extent)) continue; // by us: reports of our own come back, too
      this.#wait(() => this.#shown.seen(channel, extent));
      this.#offers.drop((alert) => alert.channel === channel && includes(extent, alert.place));
      const { epoch, seq } = extent.upTo;
      this.#tell(channel, epoch, 1, seq, "device");
      for (const [first, last] of extent.beyond) this.#tell(channel, epoch, first, last, "device");
    }
  }

  /** By another tab: this one event. @param {{ channel: string, place: Place }} item */
  #shownElsewhere({ channel, place }) {
    const cursor = formatCursor(channel, place);
    this.#offers.drop((alert) => alert.cursor === cursor);
    this.#tell(channel, place.epoch, place.seq, place.seq, "tab");
  }

  /** @param {string} channel @param {number} epoch @param {number} first @param {number} last @param {"tab" | "device"} by */
  #tell(channel, epoch, first, last, by) {
    const told = this.#told.get(channel) ?? extentUpTo({ epoch, seq: 0 });
    if (last < first || covers(told, { upTo: { epoch, seq: 0 }, beyond: [[first, last]] })) return;
    include(told, epoch, first, last);
    this.#told.set(channel, told);
    const place = { epoch, seq: last };
    this.#fire("shown", { channel, place, first: { epoch, seq: first }, cursor: formatCursor(channel, place), by });
  }

  // --- showing -------------------------------------------------------------------------------------------

  /** @param {CloudEvent} event @param {AbortSignal} signal */
  #offer(event, signal) {
    const alert = new AlertEvent(event, signal, this.#offered.add(event));
    const thrown = dispatchAlert(this, alert);
    this.#log("alert", formatCursor(event.channel ?? "", { epoch: event.epoch ?? 0, seq: event.seq ?? 0 }));
    return { showing: alert.showing, failed: thrown >= Math.max(1, this.#listeners.size), alert };
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

  /**
   * Reports to the server what was shown: at once, but then not again within `REPORT_MS`.
   *
   * @param {string} [channel]  of which this tab has shown something
   */
  #report(channel) {
    // The server keeps no seen cursor for topics: it would be one for all their readers.
    if (channel?.startsWith("customer:")) this.#news.add(channel);
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
    /** @type {Places} */
    const places = new Map();
    const beyond = [];
    for (const channel of this.#news) {
      const extent = this.#shown.extentOf(channel);
      const text = extent && formatExtent(channel, extent);
      if (!extent || !text || this.#reported.get(channel) === text) continue;
      this.#reported.set(channel, text);
      places.set(channel, extent.upTo);
      if (extent.beyond.length > 0) beyond.push(text);
    }
    if (places.size === 0) return false;
    // Older gateways take the cursor alone.
    const report = { cursor: formatCursors(places) };
    this.#send("orderbell.seen", beyond.length > 0 ? { ...report, seen: beyond.join(",") } : report);
    return true;
  }

  // --- whose page this is ----------------------------------------------------------------------------------

  /** Tells the other tabs, once: a cookie is theirs, too. @param {string | null} customer */
  #isCustomer(customer) {
    if (this.#customer === customer) return;
    this.#customer = customer;
    if (!this.#getToken) this.#customers?.postMessage(customer);
  }

  #hearOfCustomers() {
    /** @type {BroadcastChannel | null} */
    let channel = null;
    try {
      channel = this.#environment.broadcastChannel?.(CUSTOMERS) ?? null;
    } catch {
      // said by Shown, which needs one more
    }
    channel?.addEventListener("message", ({ data }) => {
      // It may be about another gateway's cookie. Connecting anew shows whose ours is now.
      if (this.#customer === null || this.#customer === data || this.#getToken) return;
      this.#return(0, 1000, "somebody else has signed in");
    });
    return channel;
  }

  // --- the life of the page ------------------------------------------------------------------------------

  #listen() {
    const { window, document } = this.#environment;
    const { signal } = this.#listening;
    const looking = AbortSignal.any?.([signal]) ?? signal; // Node warns of more than ten listeners to one signal
    // A page in the back/forward cache may have no open connection; one that is left needs none.
    window.addEventListener("pagehide", () => this.#hide(), { signal });
    window.addEventListener("pageshow", (event) => this.#unhide(/** @type {PageTransitionEvent} */ (event)), { signal });
    // "offline" alone ends nothing: a gateway on this machine or in this house can be reached without a network.
    // But after it, no close may ever come for a connection that went through the old network.
    window.addEventListener("offline", () => (this.#wasOffline = true), { signal });
    window.addEventListener("online", () => this.#wasOffline && (this.#ways.renew(), this.#renew()), { signal });
    window.addEventListener("focus", () => this.#ask(), { signal });
    document.addEventListener("visibilitychange", () => this.#look(), { signal: looking });
    document.addEventListener("prerenderingchange", () => this.#look(), { signal: looking });
    document.addEventListener("freeze", () => this.#freeze(), { signal: looking });
    document.addEventListener("resume", () => this.#thaw(), { signal: looking });
    document.addEventListener(
      "securitypolicyviolation",
      (event) => {
        const { effectiveDirective: directive, blockedURI: blocked } = event;
        if (directive !== "connect-src" || !blocked.replace(/^ws/, "http").startsWith(this.#url.origin)) return;
        void this.#faults.explain("policy");
      },
      { signal },
    );
    this.#tick();
    signal.addEventListener("abort", () => this.#environment.clearTimeout(this.#ticking));
  }

  #hide() {
    this.#flush();
    this.#leave();
    this.readyState = AlertSource.CONNECTING;
    this.#freeze();
  }

  /** No other tab has to wait for one that stands still. */
  #freeze() {
    void this.#offers.giveBack();
    this.#shown.freeze();
  }

  #thaw() {
    this.#shown.thaw((this.#name = randomName()));
    this.#look();
  }

  /** @param {PageTransitionEvent} event */
  #unhide({ persisted }) {
    if (!persisted) return; // an ordinary load: the constructor connects
    this.#tickAt = this.#environment.now();
    this.#shown.thaw((this.#name = randomName()));
    void this.#connect();
  }

  #look() {
    if (this.#environment.document.visibilityState !== "visible") {
      // What was on the screen for less than a moment: another tab may be looked at now.
      if (this.#desktop?.state !== "granted") void this.#offers.giveBack(HIDDEN_MS);
      return;
    }
    this.#checkSleep();
    this.#offers.free();
    // Somebody looks at the page: don't let them wait for the rest of a long delay.
    if (this.#returning !== undefined) this.#renew();
    else this.#ask();
  }

  #tick() {
    this.#tickAt = this.#environment.now();
    this.#ticking = this.#environment.setTimeout(() => {
      this.#checkSleep();
      this.#checkSilence();
      this.#offers.pump(); // no event says that the frame we are in is no longer transparent
      this.#tick();
    }, TICK_MS);
  }

  /**
   * Connections die silently while a machine sleeps; the clock shows that it slept. Where it was put back, the next
   * hello says again how far it is from the server's, and silence is measured anew.
   */
  #checkSleep() {
    const passed = this.#environment.now() - this.#tickAt;
    this.#tickAt = this.#environment.now();
    if (passed > SLEPT_MS || passed < 0) this.#renew();
  }

  #checkSilence() {
    if (this.readyState !== AlertSource.OPEN || !this.#silence.isTooLong(this.#environment.now())) return;
    this.#log("silent");
    this.#ways.broke(0);
    this.#return(this.#environment.random() * JITTER_MS, 1006, "nothing was heard");
  }

  /** Is anybody there? Without an answer the connection is left. */
  #ask() {
    const { document } = this.#environment;
    if (this.transport !== "websocket") return; // the others can't ask; their silence shows
    if (this.readyState !== AlertSource.OPEN || !this.#silence.asks(this.#environment.now())) return;
    this.#send(PING, { visible: document.visibilityState === "visible", shows: this.shows });
    this.#asking = this.#environment.setTimeout(() => this.#checkSilence(), Silence.ANSWER_MS);
  }

  #renew() {
    this.#wasOffline = false;
    if (this.readyState !== AlertSource.CLOSED) this.#return(this.#environment.random() * JITTER_MS);
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

/** Node has no CloseEvent before 23. @param {number} code @param {string} reason @param {boolean} wasClean */
function closeEvent(code, reason, wasClean) {
  if (typeof CloseEvent !== "undefined") return new CloseEvent("close", { code, reason, wasClean });
  return Object.assign(new Event("close"), { code, reason, wasClean });
}

/** What a listener has returned says when an alert was shown. @param {Event} event @param {unknown} result */
function hear(event, result) {
  if (event instanceof AlertEvent) event.after(result);
}

/** What a handler threw, as what a listener throws. @param {unknown} error */
function reportThrown(error) {
  if (typeof reportError === "function") return reportError(error);
  queueMicrotask(() => {
    throw error; // Node has no reportError
  });
}

/** @param {readonly string[]} channels */
function customerOf(channels) {
  return channels.find((channel) => channel.startsWith("customer:")) ?? null;
}

/**
 * A gateway's address is a folder, and seen from the page: `<base>` is for its links and pictures.
 *
 * @param {string | URL} url @param {Document} document
 */
function addressOf(url, document) {
  const page = document.location?.href ?? "";
  const address = new URL(url, (/^https?:/.test(page) ? page : document.baseURI) || undefined);
  if (!address.pathname.endsWith("/")) address.pathname += "/";
  return address;
}

/** @returns {Environment} */
function browser() {
  return {
    WebSocket: globalThis.WebSocket,
    fetch: (...request) => globalThis.fetch(...request),
    indexedDB: storage(),
    broadcastChannel: typeof BroadcastChannel === "undefined" ? null : (name) => new BroadcastChannel(name),
    setTimeout: (action, ms) => Number(globalThis.setTimeout(action, ms)),
    clearTimeout: (timer) => globalThis.clearTimeout(timer),
    now: () => Date.now(),
    random: () => Math.random(),
    // Node's global object is no EventTarget.
    window: "addEventListener" in globalThis ? globalThis : new EventTarget(),
    document: globalThis.document ?? outside(),
  };
}

function storage() {
  try {
    return globalThis.indexedDB ?? null;
  } catch {
    return null; // some browsers throw where site data is blocked
  }
}

/** A worker has no document: it receives events, and shows nothing. */
function outside() {
  const looks = { visibilityState: "hidden", baseURI: globalThis.location?.href ?? "", hasFocus: () => false };
  return /** @type {Document} */ (/** @type {unknown} */ (Object.assign(new EventTarget(), looks)));
}

/** crypto.randomUUID() exists on secure pages only. */
function randomName() {
  return crypto.getRandomValues(new Uint32Array(3)).join("-");
}
