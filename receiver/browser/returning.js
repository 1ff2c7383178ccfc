/**
 * Coming back after a connection ended: whether, and when.
 *
 * Full jitter (a random part of the whole delay) because all the browsers of a gateway lose it in the
 * same moment; anything less would bring them back as a wave.
 */

export const BASE_MS = 500;
export const LONGEST_MS = 30_000;
export const SPREAD_MS = 5_000; // a restarting gateway hands all its browsers to the others at once
export const STABLE_MS = 5_000; // open for less than this doesn't count as success

/**
 * What a close code asks of the browser.
 *
 * @typedef {object} Answer
 * @property {"return" | "authenticate" | "forget" | "stop"} does  authenticate: return with a new token;
 *   forget: return without the cursor, once
 * @property {number} [leastMs]  wait at least so long
 * @property {number} [spreadMs]  the first time, wait a random part of this instead of backing off
 */

// RFC 6455 7.4; 4000-4999 are Orderbell's.
/** Normal; or coming back would only repeat the mistake: bad messages, and whatever else is against the protocol. */
const ENDS = [1000, 1002, 1003, 1007, 1008, 1009, 4400];
/** @type {ReadonlyMap<number, Answer>} */
const ANSWERS = new Map([
  [1012, { does: "return", spreadMs: SPREAD_MS }], // going away
  [1013, { does: "return", spreadMs: SPREAD_MS }],
  [4401, { does: "authenticate" }],
  [4403, { does: "forget" }], // forbidden: perhaps only the cursor, kept from another customer or topic
  [4409, { does: "return", leastMs: LONGEST_MS }], // too many connections: another has to end first
  [4429, { does: "return", leastMs: SPREAD_MS }], // too fast
]);

/** @param {number} code @returns {Answer} */
export function answerTo(code) {
  // 1001, 1005, 1006, 1011, 4408 and whatever is invented later: the event is still owed, so come back.
  return ANSWERS.get(code) ?? { does: ENDS.includes(code) ? "stop" : "return" };
}

export class Backoff {
  /** How many connections in a row have failed. */
  attempt = 0;

  /** @param {() => number} random  in [0, 1) */
  constructor(random) {
    this.random = random;
  }

  /** Milliseconds to wait before the next connection. @param {Answer} answer */
  next({ leastMs = 0, spreadMs }) {
    const longest = Math.min(LONGEST_MS, BASE_MS * 2 ** this.attempt);
    const range = this.attempt === 0 && spreadMs !== undefined ? spreadMs : longest;
    this.attempt += 1;
    return leastMs + this.random() * range;
  }

  /** The connection that just ended said hello and lived so long. @param {number} ms */
  lived(ms) {
    if (ms >= STABLE_MS) this.attempt = 0;
  }
}
