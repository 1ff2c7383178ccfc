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

const LONGEST = 128; // characters of a name
const CURSOR = /^((?:customer|topic):((?:[\w.@-]|%[\dA-F]{2})+))=([1-9]\d{0,15})\.(0|[1-9]\d{0,15})$/;
const NEEDLESS = /%(2[DE]|3\d|4.|5[\dAF]|6[1-9A-F]|7[\dA])/; // escapes of A-Z a-z 0-9 . _ @ -

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
  const [, channel, name, ...numbers] = CURSOR.exec(text) ?? [];
  const [epoch, seq] = numbers.map(Number);
  if (Number.isSafeInteger(epoch) && Number.isSafeInteger(seq) && isName(name)) return [channel, { epoch, seq }];
  throw new SyntaxError(`not a cursor: ${text.slice(0, 160)}`);
}

/** Whether it is a name, as shared/channels.py has them, in the one form that each is encoded in. @param {string} text */
function isName(text) {
  try {
    const name = decodeURIComponent(text);
    return !NEEDLESS.test(text) && [...name].length <= LONGEST && !/\p{Cc}/u.test(name);
  } catch {
    return false; // its escapes are not UTF-8
  }
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
