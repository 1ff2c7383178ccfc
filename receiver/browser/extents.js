/**
 * Extents: which events of a channel, where they need not be all up to one.
 *
 * A later alert may be on the screen while an earlier one waits elsewhere. So what was shown is a place, up to which
 * all was, and a few ranges beyond it; when the hole before a range is filled, the place moves on to the range's end.
 *
 * The text extends the cursor's: `customer:alice=1.40+42+45-47` is everything up to 1.40, and 42, 45, 46, 47.
 *
 * @typedef {import("./cursors.js").Place} Place
 * @typedef {[first: number, last: number]} Range  of seqs, both included
 *
 * @typedef {object} Extent
 * @property {Place} upTo
 * @property {Range[]} beyond  in the epoch of `upTo`, ascending, with at least one seq between them
 */

import { formatCursor, parseCursors, reaches } from "./cursors.js";

const RANGES = 64; // in one text: servers take no more

/** @param {Place} upTo @returns {Extent} */
export function extentUpTo(upTo) {
  return { upTo, beyond: [] };
}

/** @param {Extent | undefined} extent @param {Place} place */
export function includes(extent, { epoch, seq }) {
  if (!extent) return false;
  if (reaches(extent.upTo, { epoch, seq })) return true;
  return epoch === extent.upTo.epoch && extent.beyond.some(([first, last]) => first <= seq && seq <= last);
}

/**
 * Adds the events from `first` to `last` of an epoch. A newer epoch takes the place of all before it.
 *
 * @param {Extent} extent @param {number} epoch @param {number} first @param {number} [last]
 */
export function include(extent, epoch, first, last = first) {
  if (epoch < extent.upTo.epoch || last < first) return;
  if (epoch > extent.upTo.epoch) Object.assign(extent, extentUpTo({ epoch, seq: Math.max(first - 1, 0) }));
  /** @type {Range[]} */
  const ranges = [[0, extent.upTo.seq], ...extent.beyond, [first, last]];
  /** @type {Range[]} */
  const joined = [];
  for (const [from, to] of ranges.sort(([one], [other]) => one - other)) {
    const before = joined[joined.length - 1];
    if (before && from <= before[1] + 1) before[1] = Math.max(before[1], to);
    else joined.push([from, to]);
  }
  const [[, seq], ...beyond] = joined;
  Object.assign(extent, { upTo: { epoch, seq }, beyond });
}

/** Adds all of another one. @param {Extent} extent @param {Extent} other */
export function unite(extent, { upTo, beyond }) {
  for (const [first, last] of [[0, upTo.seq], ...beyond]) include(extent, upTo.epoch, first, last);
}

/** Whether all of the other one is in it. @param {Extent | undefined} extent @param {Extent} other */
export function covers(extent, { upTo, beyond }) {
  if (!extent || !reaches(extent.upTo, upTo)) return false;
  if (extent.upTo.epoch > upTo.epoch) return true;
  const { seq } = extent.upTo;
  return beyond.every(([first, last]) => last <= seq || extent.beyond.some(([from, to]) => from <= first && last <= to));
}

/**
 * @param {string} text  of several channels, joined by commas
 * @returns {Map<string, Extent>} by channel
 * @throws {SyntaxError}
 */
export function parseExtents(text) {
  /** @type {Map<string, Extent>} */
  const extents = new Map();
  for (const part of text === "" ? [] : text.split(",")) {
    const [cursor, ...ranges] = part.split("+");
    for (const [channel, upTo] of parseCursors(cursor)) extents.set(channel, extentOf(upTo, ranges));
  }
  return extents;
}

/** @param {Place} upTo @param {string[]} ranges */
function extentOf(upTo, ranges) {
  const extent = extentUpTo(upTo);
  for (const range of ranges) {
    const match = /^([1-9]\d{0,15})(?:-([1-9]\d{0,15}))?$/.exec(range);
    if (!match) throw new SyntaxError(`not a range of events: ${range.slice(0, 40)}`);
    include(extent, upTo.epoch, Number(match[1]), Number(match[2] ?? match[1]));
  }
  return extent;
}

/** Names only the newest ranges if there are too many; alerts of the others may pop up again. @param {string} channel @param {Extent} extent */
export function formatExtent(channel, { upTo, beyond }) {
  const ranges = beyond.slice(-RANGES).map(([first, last]) => (first === last ? `+${first}` : `+${first}-${last}`));
  return formatCursor(channel, upTo) + ranges.join("");
}

/** What a browser has stored, perhaps not by us. @param {unknown} stored @returns {Range[]} */
export function parseRanges(stored) {
  if (!Array.isArray(stored)) return [];
  return stored.filter(
    (range) => Array.isArray(range) && range.length === 2 && range.every(Number.isSafeInteger) && range[0] <= range[1],
  );
}
