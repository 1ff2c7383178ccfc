/**
 * A connection that has fallen silent: noticed by the clock, because no close ever comes for it.
 *
 * The gateway's pings are frames of the protocol, which a page can't see; so it sends heartbeats as messages. A page
 * that is looked at again, or comes online, does not wait for the next one: it asks.
 */

const SLACK_MS = 2_000;
const FRESH_MS = 3_000; // heard so recently, there is nothing to ask
const ANSWER_MS = 4_000;

export class Silence {
  #heardAt = 0;
  #askedAt = 0;
  /** 0: this gateway sends no heartbeats, silence means nothing. */
  #longest = 0;

  /** A connection begins. @param {number} now @param {number} heartbeatSeconds  0: unknown */
  begin(now, heartbeatSeconds) {
    this.#heardAt = now;
    this.#askedAt = 0;
    // One heartbeat may be late by a busy gateway; two that don't come are none. At 20 s: 32 s.
    this.#longest = heartbeatSeconds > 0 ? heartbeatSeconds * 1_500 + SLACK_MS : 0;
  }

  /** Something came, whatever it was. @param {number} now */
  heard(now) {
    this.#heardAt = now;
    this.#askedAt = 0;
  }

  /** Whether to ask now; then it counts as asked. @param {number} now */
  asks(now) {
    if (!this.#longest || this.#askedAt || now - this.#heardAt < FRESH_MS) return false;
    this.#askedAt = now;
    return true;
  }

  /** Whether the other side is gone. @param {number} now */
  isTooLong(now) {
    if (!this.#longest) return false;
    return now - this.#heardAt > this.#longest || (this.#askedAt > 0 && now - this.#askedAt >= ANSWER_MS);
  }

  static ANSWER_MS = ANSWER_MS;
}
