/**
 * Where this tab resumes: after the last event that it received, by channel. Events that are missing before a later one
 * are asked for again; a hole that nothing fills is passed over in the end.
 *
 * @typedef {import("./cursors.js").Place} Place
 * @typedef {import("./cursors.js").Places} Places
 */

import { advance, formatCursor, formatCursors, reaches } from "./cursors.js";

const SAME_HOLE = 3; // connections that couldn't fill the same hole

export class Resume {
  /** @type {Places} */
  #had = new Map();
  /** Whether the next connection names its cursor. */
  #resumes = true;
  /** Whether a connection without the cursor was tried since one with it was welcome. */
  #forgot = false;
  #hole = { cursor: "", times: 0 };

  /** @param {string} channel */
  placeOf(channel) {
    return this.#had.get(channel);
  }

  get cursor() {
    return formatCursors(this.#had);
  }

  /** The cursor that the next connection names. */
  get after() {
    return this.#resumes ? this.cursor : "";
  }

  /** What this browser remembers. @param {Places} places */
  begin(places) {
    for (const [channel, place] of places) advance(this.#had, channel, place);
  }

  /** Makes the next connection name no cursor, once; false: that was tried, or there is none. */
  forget() {
    if (this.#forgot || this.#had.size === 0) return false;
    this.#forgot = true;
    this.#resumes = false;
    return true;
  }

  /**
   * Takes where a connection starts for channels that are new here, and drops those that are no longer ours.
   *
   * @param {Places} start @param {(channel: string) => void} dropped
   * @returns whether this connection will do; else it has only shown which channels are ours, and the next resumes
   */
  adopt(start, dropped) {
    for (const channel of this.#had.keys()) {
      if (!start.has(channel) && this.#had.delete(channel)) dropped(channel);
    }
    const resumed = this.#resumes;
    const kept = this.#had.size > 0;
    for (const [channel, place] of start) if (!this.#had.has(channel)) this.#had.set(channel, place);
    this.#resumes = true;
    if (resumed) this.#forgot = false;
    return resumed || !kept;
  }

  /** @param {string} channel @param {Place} place */
  set(channel, place) {
    this.#had.set(channel, place);
  }

  /**
   * An event has come.
   *
   * @param {string} channel @param {Place} place
   * @returns {"next" | "before" | { after: string, stays: boolean }} "before": it was received already, as the resumed
   *   range and the live one overlap; else events are missing before it, and `stays`: they were asked for often enough
   */
  take(channel, place) {
    const had = this.#had.get(channel);
    if (reaches(had, place)) return "before";
    if (!had || (place.epoch === had.epoch && place.seq === had.seq + 1)) {
      this.#had.set(channel, place);
      return "next";
    }
    const cursor = formatCursor(channel, had);
    this.#hole = { cursor, times: this.#hole.cursor === cursor ? this.#hole.times + 1 : 1 };
    return { after: cursor, stays: this.#hole.times >= SAME_HOLE };
  }
}
