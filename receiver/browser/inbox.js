/**
 * `GET /alerts` and `POST /read`: the customer's list. It is loaded with the first call.
 *
 * @typedef {import("./orderbell.js").Credential} Credential
 */

export class Inbox {
  #base;
  #fetch;
  #ask;

  /**
   * @param {URL} base  of the gateway
   * @param {typeof globalThis.fetch} send
   * @param {(signal: AbortSignal) => Promise<Credential | null>} ask  for a credential
   */
  constructor(base, send, ask) {
    this.#base = base;
    this.#fetch = send;
    this.#ask = ask;
  }

  /** @param {{ before?: string | null, limit?: number, signal?: AbortSignal }} [options] @returns {Promise<any>} */
  list({ before, limit, signal } = {}) {
    const query = new URLSearchParams();
    if (before) query.set("before", before);
    if (limit) query.set("limit", String(limit));
    return this.#request("alerts", query, { method: "GET", signal });
  }

  /** @param {{ cursor: string } | { ids: string[] }} what @returns {Promise<any>} */
  read(what) {
    return this.#request("read", new URLSearchParams(), { method: "POST", body: JSON.stringify(what) });
  }

  /** @param {string} path @param {URLSearchParams} query @param {RequestInit} init */
  async #request(path, query, init) {
    const credential = await this.#ask(init.signal ?? new AbortController().signal);
    const headers = new Headers(init.body ? { "content-type": "application/json" } : {});
    if (credential && "token" in credential) headers.set("authorization", `Bearer ${credential.token}`);
    if (credential && "ticket" in credential) query.set("ticket", credential.ticket);
    const url = new URL(path, this.#base);
    url.search = query.toString();
    const answer = await this.#fetch(url, { ...init, headers, credentials: "include", cache: "no-store" });
    if (answer.ok) return answer.json();
    const problem = await answer.json().catch(() => ({}));
    throw new Error(`${path}: ${answer.status} ${problem.detail ?? ""}`.trim());
  }
}
