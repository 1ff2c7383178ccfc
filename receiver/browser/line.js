/**
 * The line to a gateway: one connection after the other, until it is ended. It asks for the token, takes the transport
 * that works, comes back when a connection has ended, and notices one that has fallen silent. source.js handles
 * what is said over it.
 *
 * @typedef {import("./orderbell.js").Credential} Credential
 * @typedef {import("./returning.js").Answer} Answer
 *
 * @typedef {object} Owner  what a Line asks of its AlertSource, and what it reports to it
 * @property {() => string} after  the cursor where the next connection resumes; "" if none
 * @property {() => boolean} forget  the gateway refuses that cursor; false: there was none, or none was sent
 * @property {(text: string) => void} received
 * @property {() => boolean} shows  whether an alert could be shown at this moment
 * @property {(detail: import("./orderbell.js").ReconnectingDetail) => void} reconnecting
 * @property {() => void} ending  it is about to end: send now what still has to be sent
 * @property {(code: number, reason: string, wasClean: boolean) => void} ended
 * @property {(text: string, detail?: unknown) => void} log
 */

import { Backoff, answerTo } from "./returning.js";
import { Silence } from "./silence.js";
import { lifeOf } from "./token.js";
import { Ways } from "./ways.js";

export const CONNECTING = 0;
export const OPEN = 1;
export const CLOSED = 2;

const HELLO_MS = 10_000; // from the start of a connection to its hello
const JITTER_MS = 1_000; // all clients of an office come back together
const REFUSALS = 2; // in a row of the same token; then another one is needed
const COOKIE_REFUSALS = 3; // in a row; a script can't see whether the cookie has changed
const SLOWER_MS = 5_000; // after a refusal of a new token: the clock of a gateway, or of the shop, is wrong
const UNWELCOME = 2; // connections in a row without a hello, after which we find out why
const PING = "orderbell.ping"; // a gateway that takes it also sends heartbeats as messages

export class Line {
  state = CONNECTING;
  /** The wait that the gateway asked for with its bye. @type {number | null} */
  byeMs = null;

  #url;
  #environment;
  #getToken;
  #faults;
  #owner;
  #name;
  #ways;
  #backoff;
  #silence = new Silence();
  /** @type {import("./websocket.js").Connection | null} */
  #connection = null;
  /** One for each attempt to connect; whatever an earlier one still brings is ignored. */
  #attempt = new AbortController();
  #helloAt = 0;
  /** The credential of this connection, and the one that was refused last. */
  #credential = "";
  #refused = "";
  #refusals = 0;
  /** Connections in a row that never said hello. */
  #unwelcome = 0;
  #sent = 0;
  /** @type {number | undefined} */
  #returning;
  /** @type {number | undefined} */
  #asking;
  /** @type {number | undefined} */
  #renewing;

  /**
   * @param {URL} url  of the gateway's /events
   * @param {object} options
   * @param {import("./environment.js").Environment} options.environment
   * @param {import("./orderbell.js").Options["getToken"]} options.getToken
   * @param {readonly import("./ways.js").Way[]} options.transports
   * @param {import("./faults.js").Faults} options.faults
   * @param {string} options.name  of this tab
   * @param {Owner} owner
   */
  constructor(url, { environment, getToken, transports, faults, name }, owner) {
    this.#url = url;
    this.#environment = environment;
    this.#getToken = getToken;
    this.#faults = faults;
    this.#name = name;
    this.#owner = owner;
    this.#ways = new Ways(transports, environment);
    this.#backoff = new Backoff(environment.random);
  }

  get transport() {
    return this.#ways.name;
  }

  /** Whether it is waiting to connect again. */
  get waits() {
    return this.#returning !== undefined;
  }

  async connect() {
    if (this.state === CLOSED) return;
    this.leave();
    const attempt = (this.#attempt = new AbortController());
    const { signal } = attempt;
    const timer = this.#environment.setTimeout(() => {
      if (this.#attempt === attempt && this.state === CONNECTING) {
        if (this.#connection) this.#ways.failed(true);
        this.leave();
        this.#closed(1006, "no hello", false);
      }
    }, HELLO_MS);
    signal.addEventListener("abort", () => this.#environment.clearTimeout(timer));

    let credential;
    let transport;
    try {
      credential = await this.askForToken(signal);
      if (signal.aborted) return;
      transport = await this.#ways.transport;
    } catch (error) {
      // Perhaps the network is down. A page that knows better calls close().
      if (signal.aborted) return;
      if (credential !== undefined) this.#ways.failed(false);
      return this.#closed(1006, `${credential === undefined ? "no token" : "not loaded"}: ${error}`, false);
    }
    if (signal.aborted) return;
    this.#credential = credential ? JSON.stringify(credential) : "";
    if (this.#refusals >= REFUSALS && credential && this.#credential === this.#refused) {
      return this.end(4401, "getToken gives the token that was refused", true);
    }

    const url = new URL(this.#url);
    const after = this.#owner.after();
    if (after) url.searchParams.set("after", after);
    this.#owner.log("connecting", url.href);
    try {
      this.#connection = transport(url, {
        credential,
        authenticate: () => this.askForToken(signal),
        // In band, not in the URL: URLs are written into logs and histories.
        opened: () => credential && this.send("orderbell.auth", credential),
        alive: () => this.#silence.heard(this.#environment.now()),
        received: (text) => {
          this.#silence.heard(this.#environment.now());
          this.#owner.received(text);
        },
        closed: (code, reason, wasClean) => this.#closed(code, reason, wasClean),
      });
    } catch (error) {
      // An insecure WebSocket on a secure page can't even be made, nor can one to what is no gateway's address.
      this.#ways.failed(false);
      return this.#closed(1006, String(error), false);
    }
    this.#renewAfter(credential);
  }

  /** The gateway has said hello. */
  greeted() {
    this.#helloAt = this.#environment.now();
  }

  /** From now on it is open. @param {number} heartbeatSeconds @param {readonly string[]} accepts  the messages that the gateway takes */
  opened(heartbeatSeconds, accepts) {
    this.#refusals = this.#unwelcome = 0;
    this.#refused = "";
    this.#faults.over("refused", "token", "unreachable", "origin", "policy");
    this.#silence.begin(this.#environment.now(), accepts.includes(PING) ? heartbeatSeconds : 0);
    this.#ways.works(this.#url, this.#attempt.signal, () => this.return(0, 1000, "the WebSocket works again"));
    this.state = OPEN;
  }

  /** @param {string} type @param {object} data */
  send(type, data) {
    const id = `${this.#name}-${++this.#sent}`;
    this.#connection?.send(JSON.stringify({ specversion: "1.0", id, source: "/orderbell/browser", type, data }));
  }

  // --- the token -------------------------------------------------------------------------------------------

  /** @param {AbortSignal} signal @returns {Promise<Credential | null>} */
  async askForToken(signal) {
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

  /** Before a token runs out, sends another one over the open connection. @param {Credential | null} credential */
  #renewAfter(credential) {
    const life = credential && "token" in credential ? lifeOf(credential.token) : null;
    if (life === null) return;
    const { signal } = this.#attempt;
    this.#environment.clearTimeout(this.#renewing);
    this.#renewing = this.#environment.setTimeout(async () => {
      const next = await this.askForToken(signal).catch(() => null); // then the gateway closes with 4401, as always
      if (!next || signal.aborted || this.state !== OPEN) return;
      this.#credential = JSON.stringify(next);
      this.send("orderbell.auth", next);
      this.#renewAfter(next);
    }, life);
  }

  // --- the end of a connection -------------------------------------------------------------------------------

  /** Ends the current connection or attempt without another word. */
  leave() {
    for (const timer of [this.#returning, this.#asking, this.#renewing]) this.#environment.clearTimeout(timer);
    this.#returning = this.#asking = this.#renewing = undefined;
    this.#attempt.abort();
    this.#connection?.leave();
    this.#connection = null;
    this.#backoff.lived(this.#lived());
    this.#helloAt = 0;
    if (this.state !== CLOSED) this.state = CONNECTING;
  }

  /** How long the current connection has been open. */
  #lived() {
    return this.#helloAt ? this.#environment.now() - this.#helloAt : 0;
  }

  /** @param {number} code @param {string} reason @param {boolean} wasClean */
  #closed(code, reason, wasClean) {
    const greeted = this.#helloAt > 0;
    if (code === 1006 && greeted) this.#ways.broke(this.#lived());
    else if (code === 1006 && this.#connection) this.#ways.failed(false);
    this.#connection = null;
    this.leave();
    this.#owner.log("closed", `${code} ${reason}`);
    const answer = answerTo(code);
    const stops =
      answer.does === "stop" ||
      (answer.does === "authenticate" && !this.#mayTryAnother(reason)) ||
      (answer.does === "forget" && !this.#owner.forget());
    if (stops) {
      const why = reason || "no reason given";
      if (code === 4403) this.#faults.say("forbidden", `the gateway forbids it: ${why}.`);
      if (code === 4401) this.#faults.say("refused", `the gateway refuses the token: ${why}.`);
      return this.end(code, reason, wasClean);
    }
    this.#unwelcome = greeted || code !== 1006 ? 0 : this.#unwelcome + 1;
    if (this.#unwelcome === UNWELCOME * this.#ways.count) void this.#diagnose();
    const slower = this.#refusals >= REFUSALS ? SLOWER_MS : 0;
    const delay = this.byeMs ?? this.#backoff.next({ ...answer, leastMs: Math.max(answer.leastMs ?? 0, slower) });
    this.byeMs = null;
    this.return(delay, code, reason);
  }

  /**
   * After 4401. A token that has run out is no fault. A new token that is refused at once may come from a wrong clock,
   * and then waiting helps: as long as another token comes, it is tried.
   *
   * @param {string} reason
   */
  #mayTryAnother(reason) {
    this.#refusals += 1;
    const same = this.#credential === this.#refused;
    this.#refused = this.#credential;
    if (this.#refusals < REFUSALS) return true;
    if (this.#credential === "") return this.#refusals < COOKIE_REFUSALS;
    if (same) return false;
    this.#faults.say("refused", `the gateway refuses the token (${reason || "4401"}); trying with another, more slowly.`);
    return true;
  }

  async #diagnose() {
    const kind = await this.#faults.diagnose(this.#environment.fetch);
    if (this.state === CONNECTING && this.#unwelcome > 0) void this.#faults.explain(kind);
  }

  /** Connects again after `delay`, else after what the backoff says. @param {number | undefined} delay @param {number} [code] @param {string} [reason] */
  return(delay = this.#backoff.next({ does: "return" }), code = 1006, reason = "") {
    if (this.state === CLOSED) return; // a probe, or a message of another tab, may come late
    this.leave();
    this.#returning = this.#environment.setTimeout(() => void this.connect(), delay);
    this.#owner.reconnecting({ attempt: this.#backoff.attempt, delay, code, reason });
  }

  /** For good. @param {number} code @param {string} reason @param {boolean} wasClean */
  end(code, reason, wasClean) {
    if (this.state === CLOSED) return;
    this.#owner.ending();
    this.state = CLOSED;
    this.leave();
    this.#owner.ended(code, reason, wasClean);
  }

  // --- whether anybody is there ------------------------------------------------------------------------------

  /** The network may have changed. @param {boolean} another  it has: the new one may let WebSockets pass */
  renew(another) {
    if (another) this.#ways.renew();
    this.return(this.#environment.random() * JITTER_MS);
  }

  /** Asks for a sign of life; without an answer, gives the connection up. */
  ask() {
    if (this.transport !== "websocket") return; // the others can't ask; their silence shows
    if (this.state !== OPEN || !this.#silence.asks(this.#environment.now())) return;
    this.send(PING, { visible: this.#environment.document.visibilityState === "visible", shows: this.#owner.shows() });
    this.#asking = this.#environment.setTimeout(() => this.checkSilence(), Silence.ANSWER_MS);
  }

  checkSilence() {
    if (this.state !== OPEN || !this.#silence.isTooLong(this.#environment.now())) return;
    this.#owner.log("silent");
    this.#ways.broke(0);
    this.return(this.#environment.random() * JITTER_MS, 1006, "nothing was heard");
  }
}
