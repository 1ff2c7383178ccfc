/**
 * One alert on its way to the screen: what a listener of "alert" gets.
 *
 * An alert counts as seen when it was shown, and a listener that returned has not shown anything yet. So it says
 * when: `alert.shown(promise)`, in the manner of `ExtendableEvent.waitUntil()`. Toasts and DesktopAlerts that are
 * shown by a listener say it themselves, also after it has waited for something. Where no promise is given, returning
 * counts, and an exception does not; of listeners that are all async, the end counts, and a rejection does not.
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
  #given = [];
  /** What async listeners have returned. @type {unknown[]} */
  #returned = [];
  #hasReturned = false;
  #ongiven = () => {};
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
    this.#given.push(given);
    this.#ongiven();
    return given;
  }

  /** The alerts after this one wait for room here. @param {Room} room */
  into(room) {
    this.#room = room;
  }

  get room() {
    return this.#room;
  }

  /** A listener has returned this. @param {any} result */
  after(result) {
    if (typeof result?.then !== "function") return void (this.#hasReturned = true);
    this.#returned.push(result);
    void result.then(() => {}); // so that the page hears of a rejection as ever
  }

  /** When it was shown, once the listeners have returned; null: it was. @returns {Promise<void> | null} */
  get showing() {
    if (this.#given.length > 0 || (this.#returned.length > 0 && !this.#hasReturned)) return this.#whenShown();
    return null;
  }

  async #whenShown() {
    const given = new Promise((resolve) => (this.#ongiven = () => resolve(undefined)));
    if (this.#given.length === 0) await Promise.race([Promise.allSettled(this.#returned), given]);
    await Promise.any((this.#given.length > 0 ? this.#given : this.#returned).map(wasShown));
  }
}

/** @param {unknown} promise */
async function wasShown(promise) {
  if ((await promise) === false) throw new Error("it was not shown");
}

// A page may have loaded the client twice, also in two versions: Toasts of one show the alerts of the other.
const AT_HAND = Symbol.for("orderbell.alert");
const ALERTS = Symbol.for("orderbell.alerts");
const page = /** @type {Record<symbol, any>} */ (/** @type {unknown} */ (globalThis));

/** The alert whose listeners run at this moment, else that of this event. @param {unknown} [event] @returns {AlertEvent | null} */
export function alertAtHand(event) {
  return page[AT_HAND] ?? page[ALERTS]?.get(event) ?? null;
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
  (page[ALERTS] ??= new WeakMap()).set(alert.detail, alert);
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
