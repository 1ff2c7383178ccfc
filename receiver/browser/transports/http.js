/**
 * What the transports over plain HTTP share: how a request is authenticated, and what the end of an answer means.
 *
 * @typedef {import("../orderbell.js").Credential} Credential
 * @typedef {import("../websocket.js").Listener} Listener
 */

/** @type {ReadonlyMap<string, number>} the gateway's words for an end, as the close codes of a WebSocket */
const CODES = new Map([
  ["restart", 1012],
  ["draining", 1012],
  ["overloaded", 1013],
  ["unavailable", 1013],
  ["try-again-later", 1013],
  ["internal-error", 1011],
  ["bad-message", 4400],
  ["token-in-url", 4400],
  ["unauthenticated", 4401],
  ["forbidden", 4403],
  ["forbidden-token", 4403],
  ["foreign-origin", 4403],
  ["slow", 4408],
  ["too-many-connections", 4409],
  ["too-fast", 4429],
]);

/** Something other than a gateway may have answered: 1006, as for a connection that broke. @param {string} kind */
const codeOf = (kind) => CODES.get(kind) ?? 1006;

export class Requests {
  #fetch;
  #events;
  #credential;
  #authenticate;
  #used = false;
  #leaving = new AbortController();
  #listener;
  closed = false;

  /** @param {typeof globalThis.fetch} fetch @param {URL} events  the gateway's /events @param {Listener} listener */
  constructor(fetch, events, listener) {
    this.#fetch = fetch;
    this.#events = events;
    this.#listener = listener;
    this.#credential = listener.credential;
    this.#authenticate = listener.authenticate;
  }

  /**
   * @param {Record<string, string>} query @param {RequestInit} [init] @param {string} [path]  beside /events
   * @returns {Promise<Response>}
   */
  async get(query, init = {}, path = "events") {
    // A ticket works once; a token until it expires.
    if (this.#used && this.#credential && "ticket" in this.#credential) this.#credential = await this.#authenticate();
    this.#used = true;
    const url = new URL(path, this.#events);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    const headers = new Headers(init.headers);
    if (this.#credential && "token" in this.#credential) headers.set("authorization", `Bearer ${this.#credential.token}`);
    else if (this.#credential) url.searchParams.set("ticket", this.#credential.ticket);
    const { signal } = this.#leaving;
    return this.#fetch(url, { cache: "no-store", credentials: "include", signal, ...init, headers });
  }

  /** A message over a WebSocket is a request to its own path here. @param {string} text */
  async send(text) {
    const { type, data } = JSON.parse(text);
    if (type === "orderbell.auth") {
      this.#credential = data;
      this.#used = false;
    } else if (type === "orderbell.seen" || type === "orderbell.read") {
      const headers = { "content-type": "application/json" };
      const body = JSON.stringify(data);
      const path = type.replace("orderbell.", "");
      // Also when the page is left. If the report is lost, the next one repeats it.
      const init = { method: "POST", headers, body, keepalive: true, signal: null };
      await this.get({}, init, path).catch(() => {});
    }
  }

  /** An answer that is not the expected one. @param {Response} response */
  async refused(response) {
    let kind = "";
    let reason = `${response.status} instead of a gateway's answer`;
    if (response.headers.get("content-type")?.startsWith("application/problem+json")) {
      const problem = await response.json().catch(() => ({}));
      kind = String(problem.type).replace("urn:orderbell:problem:", "");
      reason = problem.detail ?? reason;
    }
    this.close(codeOf(kind), reason);
  }

  /** One of the gateway's own messages, or an event. @param {any} message */
  received(message) {
    if (message.type === "orderbell.end" && message.seq === undefined) this.close(codeOf(message.data.end), message.data.reason);
    else if (!this.closed) this.#listener.received(JSON.stringify(message));
  }

  /** Bytes came, whatever they are. */
  alive() {
    if (!this.closed) this.#listener.alive();
  }

  /** @param {number} code @param {string} reason */
  close(code, reason) {
    if (this.closed) return;
    this.leave();
    this.#listener.closed(code, reason, code !== 1006);
  }

  leave() {
    this.closed = true;
    this.#leaving.abort();
  }
}
