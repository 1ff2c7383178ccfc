/**
 * One alert on its way to the screen: what a listener of "alert" gets.
 *
 * An alert counts as seen when it was shown, and a listener that returned has not shown anything yet. So it says
 * when: `alert.shown(promise)`, in the manner of `ExtendableEvent.waitUntil()`. Toasts and DesktopAlerts that are
 * shown by a listener say it themselves. Where no promise is given, returning counts, and an exception does not.
 *
 * @typedef {import("./orderbell.js").CloudEvent} CloudEvent
 *
 * @typedef {object} Room  where alerts are shown, a few at a time
 * @property {boolean} hasRoom
 * @property {(action: () => void) => void} whenRoom  calls it the next time that there is room
 */

/** @extends {CustomEvent<CloudEvent>} */
export class AlertEvent extends CustomEvent {
  /** Aborts when the alert is no longer this tab's to show: take it off the screen. @type {AbortSignal} */
  signal;
  /** Aborts when the alert was taken back, replaced, read elsewhere or has expired, even after it was seen. @type {AbortSignal} */
  ended;
  /** @type {Promise<unknown>[]} */
  #promises = [];
  /** @type {Room | null} */
  #room = null;

  /** @param {CloudEvent} event @param {AbortSignal} signal @param {AbortSignal} [ended] */
  constructor(event, signal, ended = new AbortController().signal) {
    super("alert", { detail: event });
    this.signal = signal;
    this.ended = ended;
  }

  /**
   * The promise resolves when the alert was on the screen; of several, the first counts. Where it rejects, or
   * resolves to `false`, the alert is left to another tab or device.
   *
   * @template T @param {T | Promise<T>} promise @returns {Promise<T>} the same
   */
  shown(promise) {
    const given = Promise.resolve(promise);
    this.#promises.push(given);
    return given;
  }

  /** The alerts after this one wait for room here. @param {Room} room */
  into(room) {
    this.#room = room;
  }

  get room() {
    return this.#room;
  }

  /**
   * What the listeners gave, once they have returned. @returns {Promise<void> | null}
   */
  get showing() {
    if (this.#promises.length === 0) return null;
    const each = this.#promises.map(async (promise) => {
      if ((await promise) === false) throw new Error("it was not shown");
    });
    return Promise.any(each).then(() => {});
  }
}

// A page may have loaded the client twice, also in two versions: Toasts of one show the alerts of the other.
const AT_HAND = Symbol.for("orderbell.alert");
const page = /** @type {Record<symbol, AlertEvent | null | undefined>} */ (/** @type {unknown} */ (globalThis));

/** The alert whose listeners run at this moment. */
export function alertAtHand() {
  return page[AT_HAND] ?? null;
}

/**
 * @param {EventTarget} target @param {AlertEvent} alert
 * @returns {number} how many of its listeners have thrown; what they threw is reported to the page as ever
 */
export function dispatchAlert(target, alert) {
  let thrown = 0;
  const count = () => void (thrown += 1);
  const before = page[AT_HAND];
  page[AT_HAND] = alert;
  // An exception in a listener never reaches the one who dispatches; but it is reported before that goes on.
  globalThis.addEventListener("error", count, true);
  try {
    target.dispatchEvent(alert);
  } finally {
    globalThis.removeEventListener("error", count, true);
    page[AT_HAND] = before;
  }
  return thrown;
}
