/**
 * An alert's life beyond its pop-up: which have ended, how many are unread. The customer's list is inbox.js.
 *
 * The sender's database decides all of it. A count comes with the place where it is true, and a count of an earlier
 * place never replaces that of a later one, however it came: so devices differ for a moment at most.
 *
 * @typedef {import("./orderbell.js").CloudEvent} CloudEvent
 * @typedef {import("./cursors.js").Place} Place
 *
 * @typedef {{ unread: number, asOf: string }} Count
 * @typedef {"unseen" | "seen" | "read" | "retracted" | "expired"} AlertState
 * @typedef {{ cursor: string, state: AlertState, event: CloudEvent }} ListedAlert
 * @typedef {{ alerts: ListedAlert[], unread: number, asOf: string, before: string | null }} AlertList
 */

import { parseCursors, reaches } from "./cursors.js";

export const SYSTEM = "orderbell."; // types of events that are not alerts

/** The place that one cursor names. @param {unknown} cursor @returns {[channel: string, place: Place] | null} */
export function placeOf(cursor) {
  try {
    return [...parseCursors(typeof cursor === "string" ? cursor : "")][0] ?? null;
  } catch {
    return null; // a newer gateway may say more than we know
  }
}

/**
 * Whether it has expired, or must no longer pop up. @param {CloudEvent} event @param {number} now  the server's clock
 */
export function isOver({ expirytime, popuntil }, now) {
  return [expirytime, popuntil].some((moment) => typeof moment === "string" && Date.parse(moment) <= now);
}

/**
 * Whether the second event replaces the first: a list of your own then drops the first.
 *
 * @param {Pick<CloudEvent, "id" | "source" | "subject" | "channel">} event  an earlier one
 * @param {CloudEvent} other
 */
export function isReplaced(event, { replaces, source, subject, channel }) {
  if (!replaces || event.source !== source || event.channel !== channel) return false;
  return replaces === true || replaces === "true" ? !!subject && event.subject === subject : event.id === replaces;
}

/** The newest count that is known. */
export class Unread {
  /** @type {Count | null} */
  count = null;
  #onchange;

  /** @param {(count: Count) => void} onchange */
  constructor(onchange) {
    this.#onchange = onchange;
  }

  /** @param {{ unread?: unknown, as_of?: unknown }} answer  a message that may contain a count */
  take({ unread, as_of: asOf }) {
    const place = placeOf(asOf);
    if (typeof unread !== "number" || typeof asOf !== "string" || !place) return;
    const before = this.count && placeOf(this.count.asOf);
    if (before && before[0] === place[0] && !reaches(place[1], before[1])) return; // late
    const changed = this.count?.unread !== unread;
    this.count = { unread, asOf };
    if (changed) this.#onchange(this.count);
  }
}
