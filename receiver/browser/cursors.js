/**
 * Cursors: "the last event I had", in the one text form that all of Orderbell uses.
 *
 * `customer:alice=1.42` is the place epoch 1, seq 42 in that channel; cursors of several channels are
 * joined by commas. Places follow each other by epoch first, then by seq. In a channel's name all but
 * `A-Z a-z 0-9 . _ @ -` is percent-encoded, in one way only: `customer:auth0%7C5f7c=1.42`.
 *
 * @typedef {{ readonly epoch: number, readonly seq: number }} Place
 * @typedef {Map<string, Place>} Places  by channel
 */

// One character of a name as shared/channels.py has it: plain, or its UTF-8 as RFC 3629, 4 allows.
const CHARACTER = [
  "[A-Za-z0-9._@-]",
  "%(?:2[0-9A-CF]|3[A-F]|5[B-E]|60|7[B-E])",
  "%C2%[AB][0-9A-F]",
  "%(?:C[3-9A-F]|D[0-9A-F])%[89AB][0-9A-F]",
  "%E0%[AB][0-9A-F]%[89AB][0-9A-F]",
  "%(?:E[1-9A-CEF]%[89AB]|ED%[89])[0-9A-F]%[89AB][0-9A-F]",
  "%(?:F0%[9AB]|F[1-3]%[89AB]|F4%8)[0-9A-F]%[89AB][0-9A-F]%[89AB][0-9A-F]",
].join("|");
const CURSOR = new RegExp(
  `^((?:customer|topic):(?:${CHARACTER}){1,128})=([1-9][0-9]{0,15})\\.(0|[1-9][0-9]{0,15})$`,
);

/**
 * @param {string} text  an empty one names no channel
 * @returns {Places}
 * @throws {SyntaxError}
 */
export function parseCursors(text) {
  return new Map(text === "" ? [] : text.split(",").map(parseCursor));
}

/** @param {string} text @returns {[string, Place]} */
function parseCursor(text) {
  const match = CURSOR.exec(text);
  const [, channel, epoch, seq] = match ?? [];
  if (!match || Math.max(Number(epoch), Number(seq)) > Number.MAX_SAFE_INTEGER) {
    throw new SyntaxError(`not a cursor: ${text.slice(0, 160)}`);
  }
  return [channel, { epoch: Number(epoch), seq: Number(seq) }];
}

/** @param {Places} places */
export function formatCursors(places) {
  return [...places].map(([channel, place]) => formatCursor(channel, place)).join(",");
}

/** @param {string} channel @param {Place} place */
export function formatCursor(channel, place) {
  return `${channel}=${place.epoch}.${place.seq}`;
}

/**
 * Whether one has got as far as the other. Nowhere (undefined) is before every place.
 *
 * @param {Place | undefined} place @param {Place} other
 */
export function reaches(place, other) {
  if (!place) return false;
  return place.epoch === other.epoch ? place.seq >= other.seq : place.epoch > other.epoch;
}

/**
 * Moves the channel's place forward; never back.
 *
 * @param {Places} places @param {string} channel @param {Place} place
 */
export function advance(places, channel, place) {
  if (!reaches(places.get(channel), place)) places.set(channel, place);
}
