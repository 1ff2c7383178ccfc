/**
 * What is wrong with a set-up, said once: as an "error" event, and in one line on the console that says what to change.
 *
 * Where the words are many, they are in hints.js, which is loaded when they are needed.
 *
 * @typedef {"token" | "refused" | "forbidden" | "unreachable" | "origin" | "policy" | "storage" | "customer"} Kind
 * @typedef {{ kind: Kind, message: string, cause?: unknown }} Fault
 */

export class Faults {
  /** @type {Set<Kind>} */
  #said = new Set();
  #url;
  #report;

  /** @param {URL} url  of the gateway @param {(fault: Fault) => void} report */
  constructor(url, report) {
    this.#url = url;
    this.#report = report;
  }

  /** @param {Kind} kind @param {string} message @param {unknown} [cause] */
  say(kind, message, cause) {
    this.#report({ kind, message, cause });
    if (this.#said.has(kind)) return;
    this.#said.add(kind);
    console.warn(`orderbell: ${message}`, ...(cause === undefined ? [] : [cause]));
  }

  /** Says it in the words of hints.js; the kind has to do where they can't be had. @param {import("./hints.js").Kind} kind @param {unknown} [cause] */
  async explain(kind, cause) {
    const hints = await this.#load();
    this.say(kind, hints?.HINTS[kind](this.#url) ?? kind, cause);
  }

  /** No connection was ever opened; a browser does not say why. @param {typeof globalThis.fetch} fetch */
  async diagnose(fetch) {
    const hints = await this.#load();
    return hints?.diagnose(this.#url, fetch) ?? "unreachable";
  }

  #load() {
    return import("./hints.js").catch(() => null);
  }

  /** It works now; should it fail again, that is news. @param {Kind[]} kinds */
  over(...kinds) {
    for (const kind of kinds) this.#said.delete(kind);
  }
}
