/**
 * What this tab reports to the server as seen: at once, but then not again within `REPORT_MS`.
 *
 * @typedef {import("./cursors.js").Places} Places
 */

import { formatCursors } from "./cursors.js";
import { formatExtent } from "./extents.js";

const REPORT_MS = 1_000; // gateways close clients that talk too fast

export class Reports {
  /** The channels of which this tab has shown something since its last report. @type {Set<string>} */
  #news = new Set();
  /** What it reported last on this connection, by channel. @type {Map<string, string>} */
  #reported = new Map();
  /** @type {number | undefined} */
  #reporting;
  #shown;
  #environment;
  #send;

  /**
   * @param {import("./shown.js").Shown} shown @param {import("./environment.js").Environment} environment
   * @param {(report: { cursor: string, seen?: string }) => boolean} send  false: there is no connection
   */
  constructor(shown, environment, send) {
    this.#shown = shown;
    this.#environment = environment;
    this.#send = send;
  }

  /** This tab has shown something of the channel. @param {string} channel */
  add(channel) {
    // The server keeps no seen cursor for topics: it would be one for all their readers.
    if (channel.startsWith("customer:")) this.#news.add(channel);
    this.#report();
  }

  /** A connection is open. What the last one reported may have been lost with it. */
  begin() {
    this.#environment.clearTimeout(this.#reporting);
    this.#reporting = undefined;
    this.#reported.clear();
    this.#report();
  }

  #report() {
    if (this.#reporting !== undefined || !this.flush()) return;
    this.#reporting = this.#environment.setTimeout(() => {
      this.#reporting = undefined;
      this.#report();
    }, REPORT_MS);
  }

  /** Whether something was reported. */
  flush() {
    /** @type {Places} */
    const places = new Map();
    const texts = new Map();
    for (const channel of this.#news) {
      const extent = this.#shown.extentOf(channel);
      const text = extent && formatExtent(channel, extent);
      if (!extent || this.#reported.get(channel) === text) continue;
      places.set(channel, extent.upTo);
      texts.set(channel, text);
    }
    if (places.size === 0) return false;
    const beyond = [...texts.values()].filter((text) => text.includes("+")).join(",");
    // Older gateways take only the cursor.
    if (!this.#send({ cursor: formatCursors(places), ...(beyond && { seen: beyond }) })) return false;
    for (const [channel, text] of texts) this.#reported.set(channel, text);
    return true;
  }
}
