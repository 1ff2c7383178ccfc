/**
 * Extents: which events of a channel, where they need not be all up to one.
 *
 * A later alert may be on the screen while an earlier one waits elsewhere. So what was shown is a place, up to which
 * all was, and a few ranges beyond it; when the hole before a range is filled, the place moves on to the range's end.
 *
 * @typedef {import("./cursors.js").Place} Place
 * @typedef {[first: number, last: number]} Range  of seqs, both included
 *
 * @typedef {object} Extent
 * @property {Place} upTo
 * @property {Range[]} beyond  in the epoch of `upTo`, ascending, with at least one seq between them
 */

import { reaches } from "./cursors.js";

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
  if (epoch > extent.upTo.epoch) Object.assign(extent, extentUpTo({ epoch, seq: first - 1 }));
  const apart = extent.beyond.filter(([from, to]) => to < first - 1 || from > last + 1);
  const touching = extent.beyond.filter(([from, to]) => to >= first - 1 && from <= last + 1);
  /** @type {Range} */
  const joined = [Math.min(first, ...touching.map(([from]) => from)), Math.max(last, ...touching.map(([, to]) => to))];
  extent.beyond = [...apart, joined].sort(([one], [other]) => one - other);
  settle(extent);
}

/** Adds everything up to this place. @param {Extent} extent @param {Place} place */
export function includeUpTo(extent, place) {
  if (reaches(extent.upTo, place)) return;
  if (place.epoch > extent.upTo.epoch) extent.beyond = [];
  extent.upTo = place;
  settle(extent);
}

/** Moves the place over the ranges that it touches. @param {Extent} extent */
function settle(extent) {
  const { epoch } = extent.upTo;
  for (const [first, last] of extent.beyond) {
    if (first <= extent.upTo.seq + 1 && last > extent.upTo.seq) extent.upTo = { epoch, seq: last };
  }
  const { seq } = extent.upTo;
  extent.beyond = extent.beyond.filter(([, last]) => last > seq);
}

/** What a browser has stored, perhaps not by us. @param {unknown} stored @returns {Range[]} */
export function parseRanges(stored) {
  if (!Array.isArray(stored)) return [];
  return stored.filter(
    (range) => Array.isArray(range) && range.length === 2 && range.every(Number.isSafeInteger) && range[0] <= range[1],
  );
}
