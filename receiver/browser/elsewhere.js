/**
 * What other tabs and devices have shown: reported to the page once, as ranges.
 *
 * @typedef {import("./extents.js").Extent} Extent
 * @typedef {import("./orderbell.js").ShownDetail} ShownDetail
 */

import { formatCursor } from "./cursors.js";
import { covers, extentUpTo, include } from "./extents.js";

export class Elsewhere {
  /** @type {Map<string, Extent>} */
  #reported = new Map();
  #report;

  /** @param {(shown: ShownDetail) => void} report */
  constructor(report) {
    this.#report = report;
  }

  /** @param {string} channel @param {number} epoch @param {number} first @param {number} last @param {"tab" | "device"} by */
  add(channel, epoch, first, last, by) {
    const reported = this.#reported.get(channel) ?? extentUpTo({ epoch, seq: 0 });
    if (last < first || covers(reported, { upTo: { epoch, seq: 0 }, beyond: [[first, last]] })) return;
    include(reported, epoch, first, last);
    this.#reported.set(channel, reported);
    const place = { epoch, seq: last };
    this.#report({ channel, place, first: { epoch, seq: first }, cursor: formatCursor(channel, place), by });
  }

  /** The channel's places start anew. @param {string} channel */
  forget(channel) {
    this.#reported.delete(channel);
  }
}
