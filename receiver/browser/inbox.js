/**
 * `GET /alerts` and `POST /read`: the customer's list. It is loaded with the first call.
 *
 * @typedef {import("./orderbell.js").Credential} Credential
 */

export class Inbox {
  #base;
  #fetch;
  #ask;
  #counted;

  /**
   * @param {URL} base  of the gateway
   * @param {typeof globalThis.fetch} send
   * @param {(signal: AbortSignal) => Promise<Credential | null>} ask  for a credential
   * @param {(answer: { unread?: unknown, as_of?: unknown }) => void} counted  gets each answer, which contains a count
   */
  constructor(base, send, ask, counted) {
    this.#base = base;
    this.#fetch = send;
    this.#ask = ask;
    this.#counted = counted;
  }

  /**
   * @param {{ before?: string | null, limit?: number, signal?: AbortSignal }} [options]
   * @returns {Promise<import("./alerts.js").AlertList>}
   */
  async list({ before, limit, signal } = {}) {
    const query = new URLSearchParams();
    if (before) query.set("before", before);
    if (limit) query.set("limit", String(limit));
    const { alerts, unread, as_of: asOf, before: rest } = await this.#request("alerts", query, { method: "GET", signal });
    return { alerts, unread, asOf, before: rest };
  }

  /** @param {string | readonly string[]} what  a cursor, or ids @returns {Promise<import("./alerts.js").Count>} */
  async read(what) {
    const body = JSON.stringify(typeof what === "string" ? { cursor: what } : { ids: what });
    const { unread, as_of: asOf } = await this.#request("read", new URLSearchParams(), { method: "POST", body });
    return { unread, asOf };
  }

  /** @param {string} path @param {URLSearchParams} query @param {RequestInit} init @returns {Promise<any>} */
  async #request(path, query, init) {
    const credential = await this.#ask(init.signal ?? new AbortController().signal);
    const headers = new Headers(init.body ? { "content-type": "application/json" } : {});
    if (credential && "token" in credential) headers.set("authorization", `Bearer ${credential.token}`);
    if (credential && "ticket" in credential) query.set("ticket", credential.ticket);
    const url = new URL(path, this.#base);
    url.search = query.toString();
    const answer = await this.#fetch(url, { ...init, headers, credentials: "include", cache: "no-store" });
    if (answer.ok) {
      const content = await answer.json();
      this.#counted(content);
      return content;
    }
    const problem = await answer.json().catch(() => ({}));
    throw new Error(`${path}: ${answer.status} ${problem.detail ?? ""}`.trim());
  }
}
